"""The ops endpoint: is the process alive, can it work, and what came of its work; for machines, and a page for people.

Read-only by design. A token guards whatever tells of accounts: as a bearer token, or as the password of a browser.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from jinja2 import Environment
from prometheus_client import CONTENT_TYPE_LATEST

from worker import RELEASE
from worker.daemon.listener import listening
from worker.daemon.planner import Pulse
from worker.errors import StoreError
from worker.model.escape import json_text
from worker.web.metrics import Scrape, exposition
from worker.web.status_page import part_of, policy, status_page

Rows = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Returns rows of the worker's tables; raises StoreError while the database is unreachable."""

Ready = Callable[[], Awaitable[None]]
"""Raises StoreError while the database is unreachable or not migrated; cheap, for it is asked every few seconds."""

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Queries:
    """Where the endpoint reads: accounts, totals, leases, recent runs, the queue, and what is due next.

    Also what awaits an answer, and channels. And of this process: its connections by state, and how many jobs it has
    in hand. Not `by_account`, metrics are of all accounts together.
    """

    status: Rows
    totals: Rows
    leases: Rows
    runs: Callable[[Sequence[str]], Awaitable[list[dict[str, Any]]]]
    queue: Rows
    workers: Callable[[], Awaitable[int]]
    upcoming: Callable[[Sequence[str]], Awaitable[list[tuple[str, str, datetime]]]]
    awaiting: Rows
    channels: Rows
    connections: Callable[[], Mapping[str, int]]
    in_hand: Callable[[], int]
    by_account: bool = True


@asynccontextmanager
async def ops_endpoint(
    listen: str,
    token: str,
    ready: Ready,
    queries: Queries,
    pulse: Pulse,
    templates: Environment,
    *,
    configured: Collection[str],
) -> AsyncIterator[None]:
    """Serve the page at `/`, `/healthz`, `/readyz`, `/metrics` and `/status` at `host:port`.

    A `token`, when not empty, guards the page, the metrics and the status. `configured` names the accounts of the
    configuration; the data may have others.
    """
    headers = HEADERS | {"Content-Security-Policy": policy(templates)}

    async def healthz(_: web.Request) -> web.Response:
        if pulse.is_stalled():
            return web.json_response({"status": "the planner is stalled"}, status=503)
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        try:
            await ready()
        except StoreError as error:
            return web.json_response({"status": "not ready", "why": str(error)}, status=503)
        return web.json_response({"status": "ready"})

    async def metrics(_: web.Request) -> web.Response:
        scrape = await _scrape(queries)
        body = await asyncio.to_thread(exposition, scrape)  # takes a while where there are many accounts
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        rows = [row | {"configured": row["account"] in configured} for row in await queries.status()]
        document = {"release": RELEASE, "accounts": rows}
        return web.json_response(document, dumps=json_text)

    async def page(request: web.Request) -> web.Response:
        now = datetime.now(UTC)
        asked = request.query
        part = part_of(await queries.status(), asked.get("search", ""), asked.get("page", ""), now)
        shown = [row["account"] for row in part.rows]
        text = status_page(part, await queries.runs(shown), await queries.upcoming(shown), now, templates)
        return web.Response(text=text, content_type="text/html", headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    for path, answer in (("/", page), ("/metrics", metrics), ("/status", status)):
        app.router.add_get(path, _guarded(token, ready, answer))
    async with listening(app, listen, guarded=bool(token)):
        yield


async def _scrape(queries: Queries) -> Scrape:
    return Scrape(
        await queries.status(),
        await queries.totals(),
        await queries.leases(),
        queries.connections(),
        queries.in_hand(),
        await queries.queue(),
        await queries.workers(),
        await queries.awaiting() if queries.by_account else (),
        await queries.channels(),
        queries.by_account,
    )


def _guarded(
    token: str, ready: Ready, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Ask for the token first, and say so plainly when the database is unreachable."""

    async def guarded(request: web.Request) -> web.Response:
        if token and not _knows(request.headers.get("Authorization", ""), token):
            refusal = web.json_response({"error": "a bearer token is needed"}, status=401)
            refusal.headers["WWW-Authenticate"] = 'Basic realm="referral-sync", charset="UTF-8"'
            return refusal
        try:
            await ready()
            return await answer(request)
        except StoreError as error:
            return web.json_response({"error": str(error)}, status=503)

    return guarded


def _knows(authorization: str, token: str) -> bool:
    """Return whether a header holds the token, as a bearer token or as anybody's password."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
