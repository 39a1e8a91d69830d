"""When nothing changed, nothing is written; and the replication lag is measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.pages import page, referral
from tests.support.runs import leased
from tests.support.steps import assert_same_as_source, backfill_all, listing_requests, sync_once
from worker.demo.control import Control
from worker.model import instant
from worker.model.instant import Instant, from_datetime, shift
from worker.model.lag import MAX_SAMPLES, Lag
from worker.model.mapping import map_pages
from worker.store import checkpoints, queries
from worker.store.database import Database
from worker.store.save import save
from worker.sync.pipeline import Pipeline

WRITES = """
SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables
WHERE schemaname = 'partner_center' OR relname IN ('watermarks', 'capabilities', 'rejected_records', 'parity')
ORDER BY relname
"""


READ = """
SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
WHERE schemaname = 'partner_center'
"""


async def counted(db: asyncpg.Connection, counters: str) -> list[tuple[Any, ...]]:
    """What PostgreSQL counted. A backend hands its counters over when it ends, so the worker's are ended."""
    await db.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    await db.execute("SELECT pg_stat_clear_snapshot()")
    return [tuple(row) for row in await db.fetch(counters)]


async def test_an_idle_sync_writes_its_run_and_nothing_else(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(400)
    await backfill_all(pipeline)
    await sync_once(pipeline)
    before = await counted(db, WRITES)
    await simulator.clear_requests()
    wal = await db.fetchval("SELECT pg_current_wal_insert_lsn()")
    for _ in range(5):
        await sync_once(pipeline)
    assert await db.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", wal) < 5 * 4096, "the runs' own rows"
    assert await counted(db, WRITES) == before
    assert await listing_requests(simulator) == 5
    assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE kind = 'incremental'") == 6


async def test_a_sync_reads_its_own_rows_only_before_anybody_has_analysed_the_tables(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """After a first backfill PostgreSQL knows nothing of it yet, and would take the whole account for a few rows."""
    for table in ("referrals", "referral_versions"):
        await db.execute(f"ALTER TABLE partner_center.{table} SET (autovacuum_enabled = false)")
    await simulator.reset(2000)
    await backfill_all(pipeline)
    pipeline = replace(pipeline, overlap=timedelta(0))
    await sync_once(pipeline)
    for key in sorted((await simulator.state())["referrals"])[:20]:
        await simulator.update(key, {"salesStage": "Propose"})
    (before,) = (await counted(db, READ))[0]
    assert (await sync_once(pipeline)).updated == 20
    (after,) = (await counted(db, READ))[0]
    assert after - before < 20 * 20


async def test_a_load_does_not_read_again_what_it_has_loaded_before_anybody_has_analysed_the_tables(
    database: Database, db: asyncpg.Connection
) -> None:
    """Each save looks for its ids; PostgreSQL would take the whole account for a few rows."""
    await db.execute("ALTER TABLE partner_center.referrals SET (autovacuum_enabled = false)")
    (before,) = (await counted(db, READ))[0]
    async with leased(database, "contoso", "backfill") as run:
        for start in range(0, 2000, 50):
            few = page(*(referral(number) for number in range(start, start + 50)))
            assert (await save(database, run, map_pages([few]))).counts.inserted == 50
    (after,) = (await counted(db, READ))[0]
    assert after - before < 2000


async def test_what_is_new_is_saved_without_the_past_of_other_accounts(
    database: Database, db: asyncpg.Connection
) -> None:
    """Whether an account has a past is seen in an index: PostgreSQL would else read that of others, in their order."""
    await db.execute(
        """
        INSERT INTO partner_center.referral_versions (account, referral_id, referral_key, valid_from, valid_to,
            recorded_at, change, version, payload)
        SELECT CASE WHEN n <= 5000 THEN 'another' ELSE 'contoso' END, 'v' || n, -n, now() - interval '2 days',
            now() - interval '1 day', now(), 'changed', 1, '{}'
        FROM generate_series(1, 10000) n
        """
    )
    await db.execute("ANALYZE partner_center.referral_versions")
    (before,) = (await counted(db, READ))[0]
    async with leased(database, "contoso", "incremental") as lease:
        saved = await save(database, lease, map_pages([page(referral())]))
    assert saved.counts.inserted == 1
    (after,) = (await counted(db, READ))[0]
    assert after - before < 100


async def test_the_newest_row_at_the_watermark_is_known_without_a_look_at_all(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """It is remembered as the watermark moves; where it is deleted or changed, the next newest is looked for once."""
    await simulator.reset(300)
    await backfill_all(pipeline)

    async def known() -> tuple[str, Instant]:
        watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
        assert watermark is not None
        found = await checkpoints.anchor(pipeline.database, pipeline.account, Instant(0), watermark)
        assert found is not None
        return found

    async def remembered() -> tuple[str, Instant]:
        row = await db.fetchrow("SELECT anchor_id, anchor_version FROM sync.watermarks")
        assert row is not None
        return row["anchor_id"], row["anchor_version"]

    async def newest() -> tuple[str, Instant]:
        row = await db.fetchrow(
            "SELECT id, version FROM partner_center.referrals WHERE deleted_at IS NULL ORDER BY version DESC LIMIT 1"
        )
        assert row is not None
        return row["id"], row["version"]

    assert await known() == await newest()
    key = min((await simulator.state())["referrals"])
    await simulator.update(key, {"salesStage": "Propose"})
    await sync_once(pipeline)
    assert await remembered() == await newest(), "with the page that moved the watermark"
    assert await known() == await newest()
    assert (await known())[0] == key
    await db.execute("UPDATE partner_center.referrals SET deleted_at = now() WHERE id = $1", key)
    assert (await remembered())[0] == key
    assert await known() == await newest()
    assert await remembered() == await newest()
    watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
    assert watermark is not None
    later = shift((await known())[1], timedelta(microseconds=1))
    assert await checkpoints.anchor(pipeline.database, pipeline.account, later, watermark) is None, "below the window"


async def test_a_change_of_a_row_writes_to_no_index_of_it(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Each would be a page of the log for each changed row after a checkpoint, and grow for ever."""
    await simulator.reset(200)
    await backfill_all(pipeline)
    async with db.transaction():
        await db.execute(
            """
            UPDATE partner_center.referrals SET version = version + 1, name = 'x', deal_value = 1
            WHERE ctid IN (SELECT min(ctid) FROM partner_center.referrals GROUP BY (ctid::text::point)[0])
            """
        )
        found = await db.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
            " WHERE relid = 'partner_center.referrals'::regclass"
        )
    assert found is not None
    assert found["n_tup_upd"] > 10, "one of each page"
    assert found["n_tup_hot_upd"] >= found["n_tup_upd"] - 2


@pytest.mark.parametrize("count", [300, 3000])
async def test_a_sync_asks_for_the_pages_of_its_overlap_and_saves_each_once(
    count: int, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """However many there are: each request shows the last record of the one before, and no page comes twice.

    One more request verifies the end: from the other end of the listing, nothing newer shows.
    """
    await simulator.reset(count)
    await simulator.behaviour(page_size=50)
    await backfill_all(pipeline)
    await sync_once(pipeline)
    watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
    assert watermark is not None
    for key in sorted((await simulator.state())["referrals"])[:100]:
        await simulator.update(key, {"salesStage": "later"})
    lower = shift(watermark, -pipeline.overlap)
    shown = sum(instant.parse(at) >= lower for at in (await simulator.state())["referrals"].values())
    await simulator.clear_requests()
    counts = await sync_once(pipeline)
    assert counts.updated == 100
    assert await listing_requests(simulator) <= shown // 49 + 2
    assert counts.pages <= shown // 49 + 1


async def test_changes_within_the_overlap_arrive_and_are_measured(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """A row that shows itself late, but within the overlap, comes with the next sync, and its lag is measured."""
    await simulator.reset(100)
    await backfill_all(pipeline)
    await simulator.behaviour(reveal_delay=None)
    await simulator.create([{}])
    late = (await simulator.create([{}]))[0]
    await simulator.behaviour(reveal_delay=0.0)
    await simulator.create([{}])
    assert (await sync_once(pipeline)).inserted == 1
    assert await simulator.reveal() == 2
    assert (await sync_once(pipeline)).inserted == 2, f"{late['id']} lies below the watermark"
    run = await db.fetchrow("SELECT * FROM sync.runs ORDER BY id DESC LIMIT 1")
    assert run is not None
    assert run["lag_max"] >= run["lag_p95"] >= run["lag_p50"] > 0
    assert 0 < run["below_watermark_max"] < 60
    assert run["overlap"] == 600
    (status,) = await queries.status(pipeline.database)
    assert not status["overlap_too_small"]
    await assert_same_as_source(db, simulator)


async def test_lag_near_the_overlap_is_warned_of(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', 1)")
    for late, warned in ((299.0, False), (301.0, True)):
        await db.execute(
            """
            INSERT INTO sync.runs (account, kind, owner, fence, outcome, finished_at, below_watermark_max, overlap)
            VALUES ('contoso', 'incremental', 'x', 1, 'done', now(), $1, 600)
            """,
            late,
        )
        (status,) = await queries.status(pipeline.database)
        assert status["overlap_too_small"] is warned


@pytest.mark.parametrize(("below", "missed"), [(timedelta(minutes=5), 0), (timedelta(minutes=15), 1)])
def test_what_lies_below_the_overlap_should_have_come_before(below: timedelta, missed: int) -> None:
    now = datetime(2024, 5, 1, tzinfo=UTC)
    lag = Lag(from_datetime(now), timedelta(minutes=10), verified_through=from_datetime(now - timedelta(days=1)))
    lag.learn(shift(from_datetime(now), -below), now)
    assert lag.missed == missed
    assert lag.below_watermark == below.total_seconds()
    lag.learn(shift(from_datetime(now), timedelta(seconds=5)), now + timedelta(seconds=9))
    assert min(lag.samples) == 4
    assert lag.facts().lag_max == below.total_seconds()
    for _ in range(MAX_SAMPLES + 5):
        lag.learn(from_datetime(now), now)
    assert len(lag.samples) == MAX_SAMPLES
