"""The ops endpoint: is the process alive, can it work, and what came of its work."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from worker.errors import StoreError, SyncError
from worker.report.metrics import exposition

Status = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Returns the rows of `sync.status`; raises StoreError while the database is away or not migrated."""

Ready = Callable[[], Awaitable[None]]
"""Raises StoreError while the database is away or not migrated; cheap, for it is asked every few seconds."""


@asynccontextmanager
async def ops_endpoint(listen: str, token: str, ready: Ready, status: Status) -> AsyncIterator[None]:
    """Serve `/healthz`, `/readyz`, `/metrics` and `/status` at `host:port`; a `token` guards the last two."""
    host, _, port = listen.rpartition(":")
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz(ready)),
            web.get("/metrics", _metrics(status, token)),
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


def _readyz(ready: Ready) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def readyz(_: web.Request) -> web.Response:
        try:
            await ready()
        except StoreError as error:
            return web.json_response({"status": "not ready", "why": str(error)}, status=503)
        return web.json_response({"status": "ready"})

    return readyz


def _status(status: Status, token: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        rows = await _rows(request, status, token)
        return web.json_response({"accounts": rows}, dumps=lambda value: json.dumps(value, default=_plain))

    return answer


def _metrics(status: Status, token: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        body = exposition(await _rows(request, status, token))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer


async def _rows(request: web.Request, status: Status, token: str) -> list[dict[str, Any]]:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and not hmac.compare_digest(given.encode(), token.encode()):
        raise _refusal(web.HTTPUnauthorized, "a bearer token is needed")
    try:
        return await status()
    except StoreError as error:
        raise _refusal(web.HTTPServiceUnavailable, str(error)) from error


def _refusal(kind: type[web.HTTPError], why: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": why}), content_type="application/json")


def _plain(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
