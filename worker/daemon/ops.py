"""The ops endpoint: is the process alive, can it work, and what came of its work."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from worker.errors import StoreError, SyncError

Status = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Returns the rows of `sync.status`; raises StoreError while the database is away or not migrated."""


@asynccontextmanager
async def ops_endpoint(listen: str, token: str, status: Status) -> AsyncIterator[None]:
    """Serve `/healthz`, `/readyz` and `/status` at `host:port`; `token`, when not empty, guards `/status`."""
    host, _, port = listen.rpartition(":")
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz(status)),
            web.get("/status", _status(status, token)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as error:
        await runner.cleanup()
        raise SyncError(
            f"The ops endpoint cannot listen on {listen}: {error.strerror}.", "Change `http.listen`."
        ) from error
    try:
        yield
    finally:
        await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    """Answering at all shows that the loop moves."""
    return web.json_response({"status": "ok"})


def _readyz(status: Status) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def readyz(_: web.Request) -> web.Response:
        try:
            await status()
        except StoreError as error:
            return web.json_response({"status": "not ready", "why": str(error)}, status=503)
        return web.json_response({"status": "ready"})

    return readyz


def _status(status: Status, token: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            return web.json_response({"error": "a bearer token is needed"}, status=401)
        try:
            rows = await status()
        except StoreError as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({"accounts": rows}, dumps=lambda value: json.dumps(value, default=_plain))

    return answer


def _plain(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
