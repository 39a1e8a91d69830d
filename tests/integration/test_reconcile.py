"""Reconciling: what differs is repaired, only what is surely deleted is marked, and an equal copy is not touched."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from tests.support.steps import assert_chain, assert_same_as_source, backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.errors import DeletionCapError, SourceError, SyncError
from worker.store import queries
from worker.sync.pipeline import Pipeline
from worker.sync.preview import Preview, preview_reconcile

MARKED_DELETED = "SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL"
FACES = "SELECT id, xmin::text, ctid::text FROM partner_center.referrals ORDER BY id"


async def ids(simulator: Control) -> list[str]:
    return sorted((await simulator.state())["referrals"])


async def test_missing_stale_and_silently_edited_rows_are_repaired(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(250)
    await backfill_all(pipeline)
    known = await ids(simulator)
    await db.execute("DELETE FROM partner_center.referrals WHERE id = $1", known[0])
    await db.execute(
        "UPDATE partner_center.referrals SET version = version - 1000, content_hash = gen_random_uuid() WHERE id = $1",
        known[1],
    )
    await simulator.update(known[2], {"favorite": "yes", "dealSensitivity": "High"}, silent=True)
    assert (await sync_once(pipeline)).inserted == 0, "a sync cannot see any of these"
    result = await reconcile_once(pipeline)
    assert (result.counts.inserted, result.counts.updated, result.deleted) == (1, 2, 0)
    odd = "SELECT favorite IS NULL AND unreadable = '{favorite}' FROM partner_center.referrals WHERE id = $1"
    assert await db.fetchval(odd, known[2]), "favorite is no boolean any more"
    await simulator.update(known[2], {"favorite": True}, silent=True)
    assert (await reconcile_once(pipeline)).counts.updated == 1
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_a_member_that_was_taken_away_without_a_new_time_is_deleted_from_the_copy(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(50)
    await backfill_all(pipeline)
    changed = (await ids(simulator))[0]
    await simulator.update(changed, {}, silent=True, remove=["name", "details/notes"])
    assert [one async for one in preview_reconcile(pipeline)] == [Preview(changed, "update")]
    result = await reconcile_once(pipeline)
    assert (result.counts.inserted, result.counts.updated, result.unverified) == (0, 1, "")
    assert await db.fetchval("SELECT name IS NULL FROM partner_center.referrals WHERE id = $1", changed)
    await assert_same_as_source(db, simulator)
    assert [one async for one in preview_reconcile(pipeline)] == []


async def test_a_level_copy_is_not_written(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(300)
    await backfill_all(pipeline)
    await reconcile_once(pipeline)
    faces = await db.fetch(FACES)
    first = await db.fetchval("SELECT verified_at FROM sync.watermarks")
    result = await reconcile_once(pipeline)
    assert (result.counts.inserted, result.counts.updated, result.deleted) == (0, 0, 0)
    assert await db.fetch(FACES) == faces
    assert await db.fetchval("SELECT verified_at FROM sync.watermarks") > first


@pytest.mark.parametrize("order", ["honour", "ignore"])
async def test_deleted_and_back(order: str, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(120)
    await simulator.behaviour(order=order)
    await backfill_all(pipeline)
    known = await ids(simulator)
    await simulator.behaviour(visible_ids=known[2:])
    assert (await reconcile_once(pipeline)).deleted == 2
    assert await db.fetchval(MARKED_DELETED) == 2
    assert (await reconcile_once(pipeline)).deleted == 0, "marked once"
    await simulator.behaviour(visible_ids=None)
    await simulator.update(known[1], {"salesStage": "Propose"})
    await reconcile_once(pipeline)
    assert await db.fetchval(MARKED_DELETED) == 0
    changes = await db.fetch(
        "SELECT change FROM partner_center.referral_history WHERE referral_id = $1 ORDER BY valid_from", known[0]
    )
    assert [row["change"] for row in changes] == ["first", "deleted", "back"]
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_a_lost_role_marks_nothing_until_it_is_accepted(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(200)
    await backfill_all(pipeline)
    await reconcile_once(pipeline)
    verified = await db.fetchval("SELECT verified_at FROM sync.watermarks")
    await simulator.behaviour(visible_fraction=0.5)
    with pytest.raises(DeletionCapError, match="at most 20 may be marked as deleted"):
        await reconcile_once(pipeline)
    assert await db.fetchval(MARKED_DELETED) == 0
    assert await db.fetchval("SELECT verified_at FROM sync.watermarks") == verified, "nothing was verified"
    (status,) = await queries.status(pipeline.database)
    assert (status["health"], status["last_reconcile_outcome"]) == ("action required", "refused")
    await sync_once(pipeline)
    (status,) = await queries.status(pipeline.database)
    assert status["health"] == "action required", "a good sync does not hide it"
    assert (await reconcile_once(pipeline, accept_vanished=True)).deleted > 20
    (status,) = await queries.status(pipeline.database)
    assert status["health"] == "ok"


async def test_five_rows_may_go_however_small_the_copy(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.reset(10)
    await backfill_all(pipeline)
    await simulator.behaviour(visible_ids=(await ids(simulator))[5:])
    assert (await reconcile_once(pipeline)).deleted == 5


@pytest.mark.parametrize("kind", ["truncate", "status", "repeat_link", "garbage_link"])
async def test_a_listing_that_breaks_half_way_marks_nothing(
    kind: str, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(500)
    await simulator.behaviour(filter_updated="reject", filter_created="reject")
    await backfill_all(pipeline)
    for key in (await ids(simulator))[:3]:
        await simulator.delete(key)
    await simulator.faults({"kind": kind, "status": 400, "times": 50, "path": "skiptoken"})
    try:
        await reconcile_once(pipeline)
    except SyncError:
        pass
    assert await db.fetchval(MARKED_DELETED) == 0
    await simulator.clear_faults()
    assert (await reconcile_once(pipeline)).deleted == 3


async def test_a_listing_with_less_and_200_marks_nothing(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Every second row is left out of some pages; by id they are still there."""
    await simulator.reset(300)
    await backfill_all(pipeline)
    await simulator.faults({"kind": "drop_rows", "times": 8, "skip": 2, "path": "orderby=createdDateTime"})
    try:
        await reconcile_once(pipeline)
    except SourceError:
        pass
    await simulator.clear_faults()
    assert await db.fetchval(MARKED_DELETED) == 0
    await assert_same_as_source(db, simulator)


@pytest.mark.parametrize(
    ("order", "listing"), [("honour", "filter=createdDateTime"), ("ignore", r"referrals(\?.*skiptoken.*)?$")]
)
async def test_what_a_doubtful_listing_lacked_is_not_marked(
    order: str, listing: str, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """A listing verifies an absence only with its checks, or when two passes agree.

    Rows that answer by id show that their window's listing left something out, so that window is read again. Another
    row of it, which a request by id wrongly did not find, is then seen to be there.
    """
    await simulator.reset(60)
    await simulator.behaviour(order=order)
    pipeline = replace(pipeline, concurrency=1)
    await backfill_all(pipeline)
    await simulator.faults(
        {"kind": "drop_rows", "times": 8 if order == "honour" else 1, "path": listing},
        {"kind": "status", "status": 404, "times": 1, "path": "/referrals/[0-9a-f-]{36}$"},
    )
    assert (await reconcile_once(pipeline)).deleted == 0
    assert await db.fetchval(MARKED_DELETED) == 0
    await assert_same_as_source(db, simulator)


async def test_a_referral_that_this_sign_in_may_not_see_counts_as_deleted(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(50)
    await backfill_all(pipeline)
    key = (await ids(simulator))[7]
    await simulator.behaviour(visible_ids=[other for other in await ids(simulator) if other != key])
    await simulator.faults({"kind": "status", "status": 403, "times": 1, "path": f"{key}$"})
    assert (await reconcile_once(pipeline)).deleted == 1
    assert await db.fetchval("SELECT deleted_at IS NOT NULL FROM partner_center.referrals WHERE id = $1", key)


async def test_what_syncs_missed_is_counted(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """A row that appears later than the overlap below the watermark comes with the reconcile, which says so."""
    await simulator.reset(100)
    await backfill_all(pipeline)
    await reconcile_once(pipeline)
    await simulator.create([{"updatedDateTime": "2099-01-01T00:00:00.0000000Z"}])
    newest = await db.fetchval("SELECT checkpoint_at FROM sync.watermarks")
    assert newest.year < 2099, "a record from the future moves nothing"
    await db.execute("UPDATE sync.watermarks SET checkpoint = checkpoint + 36000000000")
    await simulator.create([{}])
    assert (await sync_once(pipeline)).inserted == 1, "only the one from the future lies above the overlap"
    assert (await reconcile_once(pipeline)).counts.inserted == 1
    assert await db.fetchval("SELECT missed FROM sync.runs WHERE kind = 'reconcile' ORDER BY id DESC LIMIT 1") == 1
    (status,) = await queries.status(pipeline.database)
    assert status["overlap_too_small"]
