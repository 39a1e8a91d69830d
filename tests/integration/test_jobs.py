"""What the daemon's jobs do that no command does: housekeeping, and syncs beside a replay that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from tests.support.steps import ACCOUNT, backfill_all
from worker.config.sources import load
from worker.daemon.jobs import Jobs
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
