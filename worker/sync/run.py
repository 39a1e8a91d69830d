"""The lifecycle of a run: its lease, its limit, its record and its log line, in one place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import structlog
from structlog.contextvars import bound_contextvars

from worker.errors import StoreError, SyncError
from worker.model.counts import Counts
from worker.store import (
    analysis,
    leases,
    privacy,
    schedules,
)
from worker.store.database import Database
from worker.sync.pipeline import Pipeline

_log = structlog.get_logger()

RUN_HOURS = {"incremental": 1, "backfill": 72, "reconcile": 24, "refresh": 1, "replay": 1}
"""No run is longer than this; what it stored until then stands."""


@asynccontextmanager
async def recorded(
    pipeline: Pipeline,
    kind: str,
    wait: timedelta = timedelta(0),
    slot: str | None = None,
    due_at: datetime | None = None,
) -> AsyncIterator[leases.Run]:
    """Run under the lease of this kind of work, with a limit on its time, and log what is worth a look.

    A run that changed something asks for the refresh of what dashboards read, which follows once for many runs.
    """
    before = pipeline.client.traffic
    await privacy.enforce(pipeline.database, pipeline.privacy)
    holding = leases.run(
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
        async with holding as run:
            with bound_contextvars(run_id=run.id):
                try:
                    async with asyncio.timeout(RUN_HOURS[kind] * 3600):
                        yield run
                except TimeoutError:
                    raise SyncError(
                        f"The {kind} of {pipeline.account} took longer than {RUN_HOURS[kind]} hours and was ended.",
                        "What it stored stands; the next run goes on there.",
                    ) from None
                finally:
                    run.traffic = pipeline.client.traffic.since(before)
                    if run.unknown_fields:
                        _log.warning("unknown_fields_found", fields=sorted(run.unknown_fields))
                    if run.lag.missed or (run.lag.below_watermark or 0) > run.lag.overlap.total_seconds() / 2:
                        _log.warning("overlap_exceeded", lag_seconds=run.lag.below_watermark, missed=run.lag.missed)


def logged(pipeline: Pipeline, kind: str, counts: Counts, run: leases.Run) -> Counts:
    """Log the one event of a run that was good."""
    _log.info(
        "run_finished",
        account=pipeline.account,
        kind=kind,
        run_id=run.id,
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged,
        rejected=counts.rejected,
        deleted=run.deleted,
        pages=counts.pages,
        requests=run.traffic.requests,
        retries=run.traffic.retries,
        paging=run.paging,
        seconds=round(time.monotonic() - run.began, 3),
        api_seconds=round(run.traffic.api_seconds, 3),
        decode_seconds=round(run.traffic.decode_seconds, 3),
        map_seconds=round(run.map_seconds, 3),
        store_seconds=round(run.store_seconds, 3),
    )
    return counts


async def refresh_history(database: Database, *, force: bool = False) -> None:
    """Bring up to date what dashboards read from materialised views, where a run asked for it, or by `force`.

    When that fails the copy itself is as good, and the refresh stays asked for.
    """
    try:
        if not await schedules.take_history(database) and not force:
            return
        await analysis.refresh_history(database)
    except StoreError as error:
        _log.warning("history_refresh_failed", error=str(error), hint=error.hint)
        with suppress(StoreError):
            await schedules.ask_for_history(database)
