"""A listening socket whose connections are bounded in number and in time, for whoever asks in good or bad faith."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

from worker.config.values import is_loopback
from worker.errors import SyncError

MAX_CONNECTIONS = 100
"""More are closed as they come: the database and the API need descriptors too."""

QUIET_SECONDS = 10.0
"""A connection that has not asked anything whole for so long, or nothing more after an answer, is closed."""

_SWEEP_SECONDS = 1.0
_log = structlog.get_logger()


@dataclass(slots=True)
class _Connections:
    """Since when each connection asks nothing (monotonic), and which are being answered."""

    quiet: dict[RequestHandler, float] = field(default_factory=dict)
    busy: set[RequestHandler] = field(default_factory=set)


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@asynccontextmanager
async def listening(app: web.Application, listen: str, *, guarded: bool) -> AsyncIterator[None]:
    """Serve an application at `host:port`; raises SyncError where that is taken.

    Not `guarded` by a token, a loopback address answers only who asks for it by a loopback name: a page in a browser
    could else reach it under a name of its own.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    connections = _Connections()
    app.middlewares.append(_counted(connections))
    if not guarded:
        if is_loopback(host.lower()):
            app.middlewares.append(_asked_by_name(host))
        else:
            _log.warning(
                "http_exposed", listen=listen, hint="Set http.token: whoever reaches this address reads the status."
            )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=QUIET_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - it is set up

    def accept() -> asyncio.BaseProtocol:
        return server() if len(server.connections) < MAX_CONNECTIONS else _Refused()

    sweep = asyncio.create_task(_sweep(server, connections))
    try:
        socket = await asyncio.get_running_loop().create_server(accept, host or None, int(port))
    except OSError as error:
        sweep.cancel()
        await runner.cleanup()
        raise SyncError(
            f"The ops endpoint cannot listen on {listen}: {error.strerror}.", "Change `http.listen`."
        ) from error
    try:
        yield
    finally:
        socket.close()
        sweep.cancel()
        await runner.cleanup()


async def _sweep(server: web.Server, connections: _Connections) -> None:
    """Close what asks nothing: aiohttp itself waits for a first request without end."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = time.monotonic()
        for connection in list(server.connections):
            since = connections.quiet.setdefault(connection, now)
            if connection not in connections.busy and now - since > QUIET_SECONDS:
                connection.force_close()
        for closed in connections.quiet.keys() - set(server.connections):
            del connections.quiet[closed]


def _counted(connections: _Connections) -> Middleware:
    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            connections.busy.discard(request.protocol)
            connections.quiet[request.protocol] = time.monotonic()

    return counted


def _asked_by_name(host: str) -> Middleware:
    @web.middleware
    async def asked_by_name(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = ""
        with suppress(ValueError):
            name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if name == host.lower() or is_loopback(name):
            return await handler(request)
        return web.json_response({"error": "ask for this address by a loopback name, or set http.token"}, status=421)

    return asked_by_name
