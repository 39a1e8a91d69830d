"""What is done for one account, each as a run of its own: sync, backfill, reconcile, refresh, replay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import structlog

from worker.errors import SyncError
from worker.model.counts import Counts
from worker.model.instant import Instant
from worker.store import backfills, checkpoints, rejects
from worker.sync.backfill import BackfillResult, Share, backfill, help_backfill, planned
from worker.sync.by_id import refresh
from worker.sync.incremental import incremental
from worker.sync.pipeline import Pipeline
from worker.sync.reconcile import Reconciled, reconcile
from worker.sync.replay import replay
from worker.sync.run import logged, recorded

_log = structlog.get_logger()

WAIT = timedelta(seconds=60)
"""How long a one-shot command waits for the lease of a process that may be dead."""


async def sync_account(
    pipeline: Pipeline,
    since: Instant | None = None,
    wait: timedelta = timedelta(0),
    due_at: datetime | None = None,
) -> Counts:
    """Run one incremental sync; an account without a watermark is backfilled first."""
    watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
    if watermark is None:
        return await backfill_account(pipeline, wait=wait)
    async with recorded(pipeline, "incremental", wait, due_at=due_at) as run:
        if since is not None:
            await checkpoints.rewind_watermark(pipeline.database, run.lease, since)
            watermark = min(watermark, since)
        counts = await incremental(pipeline, run, watermark)
    return logged(run, counts)


async def backfill_account(
    pipeline: Pipeline,
    since: Instant | None = None,
    until: Instant | None = None,
    *,
    restart: bool = False,
    wait: timedelta = timedelta(0),
) -> Counts:
    """Backfill a range of creation time, or go on with it."""
    return (await backfill_share(pipeline, None, since, until, restart=restart, wait=wait)).counts


async def backfill_share(
    pipeline: Pipeline,
    share: Share | None,
    since: Instant | None = None,
    until: Instant | None = None,
    *,
    restart: bool = False,
    wait: timedelta = timedelta(0),
) -> BackfillResult:
    """Plan a backfill or go on with it, for as long as the share says, and declare it complete when all is read."""
    async with recorded(pipeline, "backfill", wait) as run:
        if restart:
            await backfills.forget_backfills(pipeline.database, run.lease)
        result = await backfill(pipeline, run, since, until, share)
    logged(run, result.counts)
    return result


async def help_account(
    pipeline: Pipeline, slot: str, share: Share, since: Instant | None = None, until: Instant | None = None
) -> BackfillResult | None:
    """Read windows of a backfill that another run has planned; None where there are none to read."""
    found = await planned(pipeline, since, until)
    if found is None:
        return None
    async with recorded(pipeline, "backfill", slot=slot) as run:
        result = await help_backfill(pipeline, run, *found, share)
    logged(run, result.counts)
    return result


async def reconcile_account(
    pipeline: Pipeline,
    *,
    accept_vanished: bool = False,
    due_at: datetime | None = None,
    wait: timedelta = timedelta(0),
) -> Reconciled:
    """Compare the copy with a full listing and repair it."""
    if await checkpoints.watermark(pipeline.database, pipeline.account) is None:
        raise SyncError(
            f"{pipeline.account} has no finished backfill, so there is nothing to compare.",
            f"Run `referral-sync backfill --account {pipeline.account}` first.",
        )
    async with recorded(pipeline, "reconcile", wait, due_at=due_at) as run:
        result = await reconcile(pipeline, run, accept_vanished=accept_vanished)
    logged(run, result.counts)
    if result.unverified:
        _log.warning(
            "verification_failed",
            account=pipeline.account,
            kind="reconcile",
            run_id=run.lease.id,
            why=result.unverified,
        )
    return result


async def refresh_account(pipeline: Pipeline, ids: list[str]) -> tuple[Counts, list[str]]:
    """Fetch referrals by id and store them; returns the counts and the ids that the source does not show."""
    async with recorded(pipeline, "refresh", WAIT) as run:
        counts, unknown = await refresh(pipeline, run, ids)
    logged(run, counts)
    return counts, unknown


async def replay_account(pipeline: Pipeline, *, other_release: bool = False, wait: timedelta = timedelta(0)) -> Counts:
    """Replay rejected records; `other_release`: only what this release has not tried yet."""
    async with recorded(pipeline, "replay", wait) as run:
        counts = await replay(pipeline.database, run, other_release=other_release)
    return logged(run, counts)


async def all_rejects(pipeline: Pipeline) -> AsyncIterator[rejects.Kept]:
    """Give every open rejected record of an account."""
    after = ""
    while batch := await rejects.open_rejects(pipeline.database, pipeline.account, after=after):
        for kept in batch:
            yield kept
        after = batch[-1].key
