"""The lifecycle of a run: its lease, its limit, its record and its log lines, in one place.

Flows report what they learn as facts, and only `Run` adds them up; at the end they go into the run's row and its line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from worker.errors import SourceUnavailable, StoreError, SyncError
from worker.model.counts import Checkpoint, Counts, Facts, values
from worker.model.lag import Lag
from worker.model.mapping import Mapped, MappedPage, map_pages
from worker.model.record import Page
from worker.store import analysis, privacy, runs, schedules
from worker.store.database import Database
from worker.store.leases import Lease
from worker.store.save import save
from worker.sync.pipeline import Pipeline

_log = structlog.get_logger()

RUN_HOURS = {"incremental": 1, "backfill": 72, "reconcile": 24, "refresh": 1, "replay": 1}
"""No run is longer than this; what it stored until then stands."""


@dataclass(slots=True)
class Run:
    """A run under way: the lease that it writes under, and what it has learned so far."""

    lease: Lease
    lag: Lag = field(default_factory=Lag)
    facts: Facts = field(default_factory=Facts)
    began: float = field(default_factory=time.monotonic)

    def learn(self, **facts: Any) -> None:
        """Add facts by their names in `Facts`."""
        self.facts += Facts(**facts)


async def store(
    database: Database,
    run: Run,
    mapped: Mapped,
    *,
    pages: int = 0,
    checkpoints: Sequence[Checkpoint] = (),
    force: bool = False,
) -> Counts:
    """Save what some pages came to, as `save` does, and learn how long that took and the lag of changes."""
    began = time.perf_counter()
    saved = await save(database, run.lease, mapped, pages=pages, checkpoints=checkpoints, force=force)
    run.learn(store_seconds=time.perf_counter() - began)
    for row in saved.new_versions:
        run.lag.learn(row.version, row.observed_at)
    return saved.counts


def mapped(run: Run | None, page: Page) -> MappedPage:
    """Map a page; the run, where there is one, learns how long that took and which members no document names."""
    began = time.perf_counter()
    found = map_pages([page])
    if run is not None:
        run.learn(map_seconds=time.perf_counter() - began, unknown_fields=frozenset(found.unknown_fields))
    return MappedPage(page, found)


@asynccontextmanager
async def recorded(
    pipeline: Pipeline,
    kind: str,
    wait: timedelta = timedelta(0),
    slot: str | None = None,
    due_at: datetime | None = None,
) -> AsyncIterator[Run]:
    """Run under the lease of this kind of work, with a limit on its time, and log what is worth a look.

    A run that changed something asks for the refresh of what dashboards read, which follows once for many runs. For how
    long the API asked to wait is recorded for all processes.
    """
    before = pipeline.client.traffic
    await privacy.enforce(pipeline.database, pipeline.privacy)
    recording = runs.recorded(
        pipeline.database,
        pipeline.account,
        kind,
        wait_seconds=wait.total_seconds(),
        privacy=pipeline.privacy,
        waiting=pipeline.waiting,
        slot=slot,
        due_at=due_at,
    )
    with bound_contextvars(account=pipeline.account, kind=kind):
        async with recording as record:
            run = Run(record.lease)
            with bound_contextvars(run_id=run.lease.id):
                try:
                    async with asyncio.timeout(RUN_HOURS[kind] * 3600):
                        yield run
                except TimeoutError:
                    raise SyncError(
                        f"The {kind} of {pipeline.account} took longer than {RUN_HOURS[kind]} hours and was ended.",
                        "What it stored stands; the next run goes on there.",
                    ) from None
                except SourceUnavailable as busy:
                    if busy.retry_after is not None:
                        with suppress(StoreError):
                            await schedules.put_backoff(
                                pipeline.database, pipeline.account, busy.retry_after, str(busy)
                            )
                    raise
                finally:
                    run.facts += Facts.of(pipeline.client.traffic.since(before)) + run.lag.facts()
                    record.facts = run.facts
                    if run.facts.unknown_fields:
                        _log.warning("unknown_fields_found", fields=sorted(run.facts.unknown_fields))
                    if run.lag.exceeds_overlap:
                        _log.warning("overlap_exceeded", lag_seconds=run.lag.below_watermark, missed=run.lag.missed)


def logged(run: Run, counts: Counts) -> Counts:
    """Log the one event of a run that was good."""
    shown = {figure.logged: value for figure, value in values(counts, run.facts).items() if figure.logged}
    shown["seconds"] = time.monotonic() - run.began
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in shown.items()}
    _log.info("run_finished", account=run.lease.account, kind=run.lease.kind, run_id=run.lease.id, **rounded)
    return counts


async def refresh_history(database: Database, *, force: bool = False) -> None:
    """Bring up to date what dashboards read of history, where a run asked for it, or by `force`.

    When that fails the copy itself is as good, and the refresh stays asked for.
    """
    try:
        if not await schedules.take_history(database, force=force) and not force:
            return
        await analysis.refresh_history(database)
    except StoreError as error:
        _log.warning("history_refresh_failed", error=str(error), hint=error.hint)
        with suppress(StoreError):
            await schedules.ask_for_history(database)
