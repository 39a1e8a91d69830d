"""What the daemon's jobs do that no command does: housekeeping, and syncs beside a replay that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from tests.support.steps import ACCOUNT, backfill_all
from worker.config.sources import load
from worker.daemon.jobs import Jobs, _backfill_job
from worker.demo.control import Control
from worker.source.client import open_session
from worker.store.queue import Taken
from worker.sync.pipeline import Pipeline


@pytest.fixture
async def jobs(pipeline: Pipeline, database_url: str, simulator_origin: str, tmp_path: Path) -> AsyncIterator[Jobs]:
    """Give the jobs of a daemon with one account."""
    settings = load(
        {
            "REFERRAL_SYNC_DATABASE__URL": database_url,
            "REFERRAL_SYNC_API__BASE_URL": simulator_origin,
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "simulator",
        },
        tmp_path,
    )
    async with open_session(None) as session:
        yield Jobs(settings, pipeline.database, session)


async def test_housekeeping_is_done_where_no_reconcile_ever_succeeded(jobs: Jobs, db: asyncpg.Connection) -> None:
    await db.execute(
        """
        INSERT INTO sync.runs (account, kind, owner, fence, outcome, finished_at)
        SELECT 'contoso', 'reconcile', 'x', 1, 'failed', now() - age
        FROM unnest('{99 days,1 day}'::interval[]) AS r(age)
        """
    )
    assert await jobs.handle(Taken("housekeeping", "", None, {}), 0) == 0
    assert await db.fetchval("SELECT count(*) FROM sync.runs") == 1


async def test_a_replay_that_fails_does_not_keep_a_sync_from_reading(
    jobs: Jobs, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(5)
    await backfill_all(pipeline)
    await simulator.raw("bad", b'{"id": "bad", "anything": 1e200000}')
    await jobs.handle(Taken("incremental", ACCOUNT, None, {}), 0)
    await db.execute("UPDATE sync.rejected_records SET tried_with = '0.0.1'")
    await db.execute("ALTER TABLE sync.runs ADD CHECK (kind <> 'replay')")
    jobs.states.clear()
    await simulator.create([{}])
    with capture_logs() as lines:
        await jobs.handle(Taken("incremental", ACCOUNT, None, {}), 0)
    assert [one["kind"] for one in lines if one["event"] == "run_failed"] == ["replay"]
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 6


BACKFILLS = "SELECT dedupe_key, status::text FROM queue.pgqueuer WHERE entrypoint = 'backfill' ORDER BY 1"


@pytest.mark.parametrize("in_hand", [True, False])
async def test_a_backfill_whose_windows_are_all_read_is_declared_complete(
    jobs: Jobs, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection, *, in_hand: bool
) -> None:
    """Also where the job that does so is in hand and has looked already, and where the last reader was killed."""
    await simulator.reset(50)
    await backfill_all(pipeline)
    await db.execute(
        "UPDATE sync.backfills SET loaded_at = NULL; DELETE FROM sync.watermarks; DELETE FROM queue.pgqueuer"
    )
    if in_hand:
        await jobs._enqueue(_backfill_job(ACCOUNT, 0, shared=True))  # noqa: SLF001 - as the planner does
        await db.execute("UPDATE queue.pgqueuer SET status = 'picked'")
    await jobs.handle(Taken("window", ACCOUNT, None, {"reader": 1, "turn": 0}), 99)
    queued = [key for key, status in await db.fetch(BACKFILLS) if status == "queued"]
    assert queued == [f"backfill:{ACCOUNT}:{int(in_hand)}"]
    await jobs.handle(Taken("backfill", ACCOUNT, None, {"turn": int(in_hand), "shared": True}), 0)
    assert await db.fetchval("SELECT count(*) FROM sync.watermarks") == 1
