"""What the daemon does for each account when the time comes, and the daemon itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from worker.config.models import Settings
from worker.daemon.http import Books
from worker.daemon.scheduler import Job
from worker.daemon.service import serve as serve_daemon
from worker.database import database_url, pool_size, prepare_database, refresh_history
from worker.errors import LeaseError, SourceUnavailable, StoreUnavailable
from worker.notify import outbox, records
from worker.notify.delivery import deliver_due
from worker.source.client import TokenSource
from worker.store import ledger, rejects
from worker.store.database import Database, open_database
from worker.sync.pipeline import Pipeline
from worker.wiring import (
    open_pipeline,
    reconcile_account,
    replay_account,
    sync_account,
    token_source,
)

LEASE_POLL_SECONDS = 5.0
DELIVERY = timedelta(seconds=5)

SAME_WORK = {"incremental": timedelta(0), "replay": timedelta(0), "reconcile": timedelta(hours=1)}
"""A run of another replica that began so long before ours was due is the same work."""

_log = structlog.get_logger()


@dataclass(slots=True)
class Standing:
    """What the daemon remembers of an account between its runs.

    Where tokens come from; and whether this process has tried again what an earlier release rejected.
    """

    token: TokenSource
    replayed: bool = False


async def tick(settings: Settings, database: Database, name: str, standing: Standing) -> None:
    """Do what the daemon does when a tick is due."""
    async with _allowed(settings, database, name, standing) as pipeline:
        if pipeline is None:
            return
        if not standing.replayed:
            if await rejects.open_rejects(database, name, limit=1, other_release=True):
                await _in_turn(pipeline, "replay", lambda: replay_account(pipeline, other_release=True))
            standing.replayed = True
        await _in_turn(pipeline, "incremental", lambda: sync_account(pipeline))


async def nightly(settings: Settings, database: Database, name: str, standing: Standing) -> None:
    """Reconcile, once the account is loaded; let old runs and closed rejects go; and see that history is up to date."""
    async with _allowed(settings, database, name, standing) as pipeline:
        if pipeline is not None and await ledger.watermark(database, name) is not None:
            await _in_turn(pipeline, "reconcile", lambda: reconcile_account(pipeline))
    older_than = f"{int(settings.sync.keep_runs.total_seconds())} seconds"
    while await ledger.delete_old_runs(database, older_than):
        pass
    while await ledger.delete_closed_rejects(database, older_than):
        pass
    while await records.delete_old(database, older_than):
        pass
    await refresh_history(database)


async def _deliver(settings: Settings, database: Database, channel: str, began: datetime) -> None:
    """Tell one channel what is due; each has a job of its own, so that none waits for another.

    While the database is away there is nothing to say that the accounts' jobs do not, and this comes every few seconds.
    """
    with suppress(StoreUnavailable):
        await deliver_due(database, settings, channel, up_since=began)


@asynccontextmanager
async def _allowed(
    settings: Settings, database: Database, name: str, standing: Standing
) -> AsyncIterator[Pipeline | None]:
    """Open the account's pipeline, or give None while the API has asked for a longer pause than a run waits out."""
    seconds = await ledger.backing_off(database, name)
    if seconds:
        _log.warning("backing_off", account=name, seconds=round(seconds))
        yield None
        return
    try:
        async with open_pipeline(settings, database, name, standing.token) as pipeline:
            yield pipeline
    except SourceUnavailable as busy:
        if busy.retry_after is not None:
            await ledger.put_backoff(database, name, busy.retry_after, str(busy))
        raise


async def _in_turn(pipeline: Pipeline, kind: str, work: Callable[[], Awaitable[object]]) -> None:
    """Work as soon as the lease is free: when its holder dies we go on within a minute.

    Nothing is left to do when the other process did it while we waited.
    """
    asked = time.monotonic()
    while True:
        try:
            await work()
        except LeaseError as held:
            _log.info("waits_for_lease", account=pipeline.account, kind=kind, why=str(held))
            await asyncio.sleep(LEASE_POLL_SECONDS)
            waited = timedelta(seconds=time.monotonic() - asked) + SAME_WORK[kind]
            if await ledger.done_since(pipeline.database, pipeline.account, kind, waited):
                return
        else:
            return


async def serve(settings: Settings) -> None:
    """Be the daemon until a signal: migrations, scheduler, ops endpoint."""
    async with database_url(settings) as url, open_database(url, connections=pool_size(settings)) as database:

        async def prepare() -> None:
            await prepare_database(settings, url)

        jobs = []
        for name in settings.accounts:
            standing = Standing(token_source(settings, database, name))
            ticks = partial(tick, settings, database, name, standing)
            nights = partial(nightly, settings, database, name, standing)
            jobs.append(Job(name, "incremental", settings.schedule.incremental, ticks, at_start=True))
            jobs.append(Job(name, "reconcile", settings.schedule.reconcile, nights))
        began = datetime.now(UTC)
        for channel in settings.notify.channels:
            work = partial(_deliver, settings, database, channel, began)
            jobs.append(Job(outbox.lease_of(channel), "delivery", DELIVERY, work, at_start=True))
        await serve_daemon(
            prepare=prepare,
            reachable=partial(ledger.reachable, database),
            books=Books(
                status=partial(ledger.status, database, list(settings.accounts)),
                totals=partial(ledger.totals, database),
                leases=partial(ledger.held_leases, database),
                runs=partial(ledger.recent_runs, database),
                awaiting=partial(ledger.awaiting, database),
                channels=partial(records.state, database, list(settings.notify.channels)),
                connections=database.connections,
            ),
            jobs=jobs,
            timezone=settings.schedule.timezone,
            listen=settings.http.listen,
            token=settings.http.token.get_secret_value(),
        )
