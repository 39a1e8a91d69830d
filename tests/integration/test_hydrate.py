"""Where the list is thinner than an answer by id, what changed is fetched by id before it is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from tests.support.steps import (
    assert_chain,
    assert_same_as_source,
    backfill_all,
    listing_requests,
    reconcile_once,
    sync_once,
)
from worker.demo.control import Control
from worker.store import capabilities
from worker.sync.hydrate import only_by_id
from worker.sync.pipeline import Pipeline
from worker.sync.preview import Preview, preview_incremental, preview_reconcile

CONTACTS = "SELECT count(*) FROM partner_center.referral_customer_contacts"


async def by_id(simulator: Control) -> list[str]:
    paths = [request["path"] for request in await simulator.requests()]
    return [path for path in paths if path.startswith("/v1.0/engagements/referrals/")]


async def test_what_a_partial_list_lacks_is_stored(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(60)
    await simulator.behaviour(thin_list=True)
    await backfill_all(pipeline)
    assert await db.fetchval(CONTACTS) > 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE etag IS NULL") == 0
    await assert_same_as_source(db, simulator)
    await simulator.clear_requests()
    await sync_once(pipeline)
    assert await by_id(simulator) == [], "what did not change is not fetched again"
    assert await listing_requests(simulator) == 1
    key = next(iter((await simulator.state())["referrals"]))
    await simulator.update(key, {"customerProfile": {"team": [{"firstName": "New"}]}})
    await simulator.clear_requests()
    assert (await sync_once(pipeline)).updated == 1
    assert len(await by_id(simulator)) == 1
    await reconcile_once(pipeline)
    await assert_same_as_source(db, simulator)


async def test_a_whole_list_is_taken_as_it_is(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(60)
    await backfill_all(pipeline)
    assert len(await by_id(simulator)) == 3, "three records were compared"
    assert await capabilities.parity(pipeline.database, pipeline.account) == {"eTag"}


async def test_what_by_id_refuses_is_taken_from_the_list(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(30)
    await simulator.behaviour(thin_list=True)
    await capabilities.put_parity(pipeline.database, pipeline.account, {"registrations"})
    await simulator.faults({"kind": "status", "status": 403, "times": -1, "path": "/referrals/[0-9a-f-]{36}$"})
    assert (await backfill_all(pipeline)).inserted == 30


@pytest.mark.parametrize("known", [False, True], ids=["not compared yet", "known to be partial"])
async def test_what_could_not_be_had_by_id_is_made_whole_by_the_next_proof(
    known: bool, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """The list agrees with what was stored from it, so only the missing eTag tells."""
    await simulator.reset(30)
    await simulator.behaviour(thin_list=True)
    if known:
        await capabilities.put_parity(pipeline.database, pipeline.account, {"eTag", "registrations"})
    await simulator.faults({"kind": "status", "status": 404, "times": -1, "path": "/referrals/[0-9a-f-]{36}$"})
    await backfill_all(pipeline)
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE etag IS NULL") == 30
    await simulator.clear_faults()
    await reconcile_once(pipeline)
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    await simulator.clear_requests()
    result = await reconcile_once(pipeline)
    assert (result.counts.inserted, result.counts.updated) == (0, 0)
    assert len(await by_id(simulator)) == known, "that the list lacks the team as well is learned from one record"
    await simulator.clear_requests()
    await reconcile_once(pipeline)
    assert await by_id(simulator) == []


async def test_parity_names_what_is_missing(pipeline: Pipeline, simulator: Control) -> None:
    assert await only_by_id(pipeline.client) is None, "nothing to compare"
    await simulator.reset(20)
    assert await only_by_id(pipeline.client) == {"eTag"}
    await simulator.behaviour(list_etag=True)
    assert await only_by_id(pipeline.client) == set()
    await simulator.behaviour(thin_list=True)
    assert "customerProfile.team" in (await only_by_id(pipeline.client) or set())


async def test_an_answer_by_id_may_be_newer_than_its_page(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """It is stored at once, and moves no checkpoint: the next sync reads from where the list had come to."""
    await simulator.reset(40)
    await simulator.behaviour(thin_list=True)
    await backfill_all(replace(pipeline, overlap=timedelta(0)))
    before = await db.fetchval("SELECT checkpoint FROM sync.watermarks")
    key = next(iter((await simulator.state())["referrals"]))
    await simulator.update(key, {"salesStage": "Close"})
    await sync_once(pipeline)
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") > before
    await assert_same_as_source(db, simulator)


async def test_a_dry_run_judges_what_a_run_would_store(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Rows that were stored from the list agree with it: only their answers by id show what a run would change."""
    await simulator.reset(30)
    await simulator.behaviour(thin_list=True)
    await capabilities.put_parity(pipeline.database, pipeline.account, {"eTag", "registrations"})
    await simulator.faults({"kind": "status", "status": 404, "times": -1, "path": "/referrals/[0-9a-f-]{36}$"})
    await backfill_all(pipeline)
    await simulator.clear_faults()
    foretold = {one.id: one.verdict async for one in preview_reconcile(pipeline)}
    assert foretold.keys() == (await simulator.state())["referrals"].keys()
    assert set(foretold.values()) <= {"update", "etag"}
    updated = sum(verdict == "update" for verdict in foretold.values())
    assert updated > 0
    assert (await reconcile_once(pipeline)).counts.updated == updated
    assert [one async for one in preview_reconcile(pipeline)] == []


async def test_a_dry_run_writes_down_nothing_of_a_comparison(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(40)
    await simulator.behaviour(thin_list=True)
    await backfill_all(pipeline)
    await db.execute("DELETE FROM sync.parity")
    (created,) = await simulator.create([{}])
    await simulator.clear_requests()
    assert [one async for one in preview_incremental(pipeline)] == [Preview(created["id"], "insert")]
    assert f"/v1.0/engagements/referrals/{created['id']}" in await by_id(simulator)
    assert await capabilities.parity(pipeline.database, pipeline.account) is None
