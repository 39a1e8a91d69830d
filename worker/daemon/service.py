"""The daemon's life: the ops endpoint first, then the database however long it takes, then the schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog
from jinja2 import Environment

from worker import RELEASE
from worker.daemon.http import Queries, ops_endpoint
from worker.daemon.planner import Pulse, stop_on_signal
from worker.errors import LeaseError, StoreError, StoreUnavailable

RETRY_SECONDS = 5.0

_log = structlog.get_logger()


async def serve(
    *,
    prepare: Callable[[], Awaitable[None]],
    reachable: Callable[[], Awaitable[None]],
    queries: Queries,
    templates: Environment,
    work: Callable[[asyncio.Event, Pulse], Awaitable[None]],
    listen: str,
    token: str,
    configured: Collection[str],
) -> None:
    """Run until SIGTERM or SIGINT. `prepare` migrates; while the database is unreachable it is tried again.

    `work` goes on until its event is set, and shows by its pulse that it moves. `configured` names the accounts of the
    configuration.
    """
    stopped = asyncio.Event()
    stop_on_signal(stopped)
    ready = asyncio.Event()

    async def prepared() -> None:
        if not ready.is_set():
            raise StoreError("The database is not prepared yet.")
        await reachable()

    pulse = Pulse()
    async with ops_endpoint(listen, token, prepared, queries, pulse, templates, configured=configured):
        _log.info("worker_started", release=RELEASE, listen=listen)
        await _prepared(prepare, stopped)
        if not stopped.is_set():
            ready.set()
            await work(stopped, pulse)
    _log.info("worker_stopped")


async def _prepared(prepare: Callable[[], Awaitable[None]], stopped: asyncio.Event) -> None:
    """Try until it works; a stop does not wait for a database that does not answer."""
    trying = asyncio.create_task(_try_until_it_works(prepare))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({trying, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if trying.done():
        return trying.result()
    trying.cancel()
    await asyncio.wait({trying})
    return None


async def _try_until_it_works(prepare: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await prepare()
        except (StoreUnavailable, LeaseError) as error:
            _log.warning("database_unreachable", error=str(error), retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
