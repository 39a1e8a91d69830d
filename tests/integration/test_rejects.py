"""Rejected records: replayed on demand and after an upgrade, closed when they are stored or overtaken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec

from tests.support.runs import leased
from tests.support.steps import assert_same_as_source, backfill_all, sync_once
from worker.demo.control import Control
from worker.model import instant
from worker.model.counts import Counts
from worker.model.mapping import map_pages
from worker.model.record import Page, decode_record
from worker.store import rejects
from worker.store.save import save
from worker.sync.pipeline import Pipeline
from worker.sync.replay import replay
from worker.sync.run import recorded

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HUGE = Decimal("1e200000")
"""A number that PostgreSQL's jsonb refuses."""

GOOD = {"id": "r1", "updatedDateTime": "2024-05-01T10:00:00Z", "status": "New", "details": {"dealValue": 1}}
BAD = GOOD | {"anything": HUGE}
ENCODE = msgspec.json.Encoder(decimal_format="number").encode


async def put(pipeline: Pipeline, *trees: dict[str, Any]) -> Counts:
    records = [decode_record(ENCODE(tree)) for tree in trees]
    async with leased(pipeline.database, pipeline.account, "incremental") as run:
        return (await save(pipeline.database, run, map_pages([Page(records, None, NOON)]), pages=1)).counts


async def replayed(pipeline: Pipeline, *, other_release: bool = False) -> Counts:
    async with recorded(pipeline, "replay") as run:
        return await replay(pipeline.database, run, other_release=other_release)


async def refused_by_an_earlier_release(db: asyncpg.Connection) -> None:
    """Turn a rejected record into something that this release reads, as a release before it may not have done."""
    await db.execute("UPDATE sync.rejected_records SET payload = $1, tried_with = '0.0.1'", ENCODE(GOOD))


async def test_what_fails_again_stays_with_one_attempt_more(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    await put(pipeline, BAD)
    assert (await replayed(pipeline)).rejected == 1
    kept = await db.fetchrow("SELECT * FROM sync.rejected_records")
    assert kept is not None
    assert (kept["attempts"], kept["closed_at"], kept["referral_id"]) == (2, None, "r1")
    assert (await put(pipeline, BAD)).rejected == 1
    assert await db.fetchval("SELECT attempts FROM sync.rejected_records") == 2, "reading it again is no replay"


async def test_what_a_release_understands_is_stored_and_closed(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    await put(pipeline, BAD)
    await refused_by_an_earlier_release(db)
    assert (await replayed(pipeline)).inserted == 1
    assert await db.fetchval("SELECT deal_value FROM partner_center.referrals WHERE id = 'r1'") == 1
    assert await db.fetchval("SELECT closed_because FROM sync.rejected_records") == "stored"
    assert await rejects.open_rejects(pipeline.database, pipeline.account) == []


async def test_an_old_payload_replayed_late_never_wins(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    newer = GOOD | {"updatedDateTime": "2024-05-01T11:00:00Z", "status": "Closed", "details": {"dealValue": 5}}
    await put(pipeline, BAD)
    await put(pipeline, newer)
    await db.execute("UPDATE sync.rejected_records SET closed_at = NULL, closed_because = NULL")
    assert len(await rejects.open_rejects(pipeline.database, pipeline.account)) == 1
    await refused_by_an_earlier_release(db)
    assert (await replayed(pipeline)).unchanged == 1
    assert await db.fetchval("SELECT status FROM partner_center.referrals WHERE id = 'r1'") == "Closed"
    assert await db.fetchval("SELECT closed_because FROM sync.rejected_records") == "superseded"


async def test_another_release_tries_once_what_an_earlier_one_refused(
    pipeline: Pipeline, db: asyncpg.Connection
) -> None:
    await put(pipeline, BAD)
    assert (await replayed(pipeline, other_release=True)).records == 0, "this release has tried it"
    await db.execute("UPDATE sync.rejected_records SET tried_with = '0.0.1'")
    assert (await replayed(pipeline, other_release=True)).rejected == 1
    assert (await replayed(pipeline, other_release=True)).records == 0


async def test_what_postgresql_refused_is_replayed_too(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    huge = decode_record(b'{"id":"r9","anything":1e200000}')
    async with leased(pipeline.database, pipeline.account, "incremental") as run:
        await save(pipeline.database, run, map_pages([Page([huge], None, NOON)]), pages=1)
    assert (await replayed(pipeline)).rejected == 1
    assert await db.fetchval("SELECT attempts FROM sync.rejected_records") == 2
    assert "refused by PostgreSQL" in await db.fetchval("SELECT reason FROM sync.rejected_records")


async def test_a_record_that_loses_its_time_is_kept_too(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    await put(pipeline, BAD)
    await put(pipeline, BAD | {"updatedDateTime": "yesterday"})
    assert b"yesterday" in await db.fetchval("SELECT payload FROM sync.rejected_records")


async def test_a_bad_record_stops_nothing_on_the_way(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """The watermark passes a rejected record, its neighbours are stored, and its next version closes it."""
    await simulator.reset(150)
    await backfill_all(pipeline)
    key = next(iter((await simulator.state())["referrals"]))
    before = await db.fetchval("SELECT checkpoint FROM sync.watermarks")
    record = (await simulator.state(full=True))["records"][key]
    now = instant.from_datetime(datetime.now(UTC))
    first, second = (instant.render(instant.shift(now, timedelta(seconds=n))) for n in (0, 1))
    await simulator.raw(key, ENCODE(record | {"anything": HUGE, "updatedDateTime": first}), updated=first)
    await simulator.create([{}])
    counts = await sync_once(pipeline)
    assert (counts.inserted, counts.rejected) == (1, 1)
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") > before
    await simulator.delete(key)
    await simulator.create([record | {"details": {"dealValue": 7}, "updatedDateTime": second}])
    assert (await sync_once(pipeline)).updated == 1
    assert await db.fetchval("SELECT closed_because FROM sync.rejected_records") == "stored"
    await assert_same_as_source(db, simulator)
