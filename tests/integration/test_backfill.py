"""Loading: in parallel windows, stopped anywhere and resumed, extended rather than repeated."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import asyncpg
import pytest

from tests.support.runs import leased
from tests.support.steps import assert_chain, assert_same_as_source, backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.errors import LeaseError, SyncError
from worker.model import instant
from worker.model.counts import WindowCheckpoint
from worker.model.instant import Instant
from worker.model.mapping import Mapped
from worker.model.window import TimeField, Window
from worker.store import backfills, checkpoints
from worker.store.save import save
from worker.sync.pipeline import Pipeline

PENDING = "SELECT count(*) FROM sync.backfill_windows WHERE done_at IS NULL"


async def middle(db: asyncpg.Connection) -> Instant:
    """A time with about half of the referrals before it."""
    at = await db.fetchval(
        "SELECT date_trunc('second', percentile_disc(0.5) WITHIN GROUP (ORDER BY created_at))"
        " FROM partner_center.referrals"
    )
    return instant.from_datetime(at)


async def stored_rows(db: asyncpg.Connection) -> int:
    return int(await db.fetchval("SELECT count(*) FROM partner_center.referrals"))


@pytest.mark.parametrize("concurrency", [1, 2, 6])
async def test_every_page_is_read_once(
    concurrency: int, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(900)
    await simulator.behaviour(page_size=20)
    counts = await backfill_all(replace(pipeline, concurrency=concurrency))
    assert counts.inserted == 900
    assert counts.unchanged == 0, "a page begins with the last record of the one before, which counts once"
    # Each window has a last page that is not full.
    assert counts.pages <= 900 / 19 + 8 * concurrency
    assert await db.fetchval("SELECT loaded_at IS NOT NULL FROM sync.backfills")
    await assert_same_as_source(db, simulator)


async def test_what_a_probe_has_seen_is_not_asked_again_for_the_plan(pipeline: Pipeline, simulator: Control) -> None:
    """Many first backfills at once would else ask four times as often for both ends of each listing."""
    await simulator.reset(900)
    await simulator.behaviour(page_size=20)
    await simulator.clear_requests()
    await backfill_all(pipeline)
    asked = Counter(unquote(request["path"].partition("?")[2]) for request in await simulator.requests())
    assert asked["$orderby=updatedDateTime asc"] == asked["$orderby=updatedDateTime desc"] == 1


async def test_stopped_anywhere_it_goes_on_there(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Of what was read before a stop at most the page in hand of each reader is read again."""
    await simulator.reset(800)
    await simulator.behaviour(page_size=10, latency=0.05)
    dice, stops, pages = random.Random(7), 0, 0
    for _ in range(40):
        running = asyncio.create_task(backfill_all(pipeline))
        mark = await stored_rows(db) + dice.randrange(120)
        while not running.done() and await stored_rows(db) <= mark:
            await asyncio.wait({running}, timeout=dice.uniform(0, 0.05))
        if running.done():
            break
        running.cancel()
        await asyncio.wait({running})
        stops += 1
        assert await checkpoints.watermark(pipeline.database, "contoso") is None, "not loaded, so not known"
    else:
        await backfill_all(pipeline)
    pages = await db.fetchval("SELECT sum(pages) FROM sync.runs")
    windows = await db.fetchval("SELECT count(*) FROM sync.backfill_windows")
    assert stops >= 3
    assert await db.fetchval("SELECT count(*) FROM sync.backfills") == 1, "one plan, resumed"
    assert pages <= 800 / 9 + windows + stops * pipeline.concurrency
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_a_changed_range_extends_rather_than_repeats(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(600)
    await backfill_all(pipeline)
    half = await middle(db)
    await db.execute(
        "TRUNCATE partner_center.referrals CASCADE; TRUNCATE sync.backfills CASCADE; DELETE FROM sync.watermarks"
    )
    first = await backfill_all(pipeline, since=half)
    assert await checkpoints.watermark(pipeline.database, "contoso") is None, "a partial load says nothing of the rest"
    rest = await backfill_all(pipeline)
    assert first.inserted + rest.inserted == 600
    assert rest.unchanged <= 20, "what was loaded is not read again"
    assert await checkpoints.watermark(pipeline.database, "contoso") is not None
    again = await backfill_all(pipeline)
    assert again.inserted == 0
    assert again.pages <= 2
    await assert_same_as_source(db, simulator)


async def test_an_unfinished_part_of_another_range_is_not_taken_for_loaded(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(600)
    await simulator.behaviour(page_size=10)
    await simulator.faults({"kind": "status", "status": 400, "times": -1, "skip": 20})
    with pytest.raises(SyncError):
        await backfill_all(pipeline, until=instant.parse("2100-01-01T00:00:00Z"))
    await simulator.clear_faults()
    assert await db.fetchval(PENDING) > 0
    await backfill_all(pipeline)
    await assert_same_as_source(db, simulator)


async def test_it_is_loaded_when_every_window_is_and_not_before(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    """That is derived from the windows, and not from having come to an end."""
    database = pipeline.database
    whole, half = Window(TimeField.CREATED), instant.parse("2024-01-01T00:00:00Z")
    parts = [Window(TimeField.CREATED, None, half), Window(TimeField.CREATED, half, None)]
    async with leased(database, "contoso", "backfill") as run:
        plan = await backfills.plan_backfill(database, run, whole, parts, half)
        for _ in plan.pending:
            assert not await backfills.finish_backfill(database, run, plan, sets_watermark=True)
            assert await checkpoints.watermark(database, "contoso") is None
            part = await backfills.claim_window(database, run, plan)
            assert part is not None
            await save(database, run, Mapped(), checkpoints=[WindowCheckpoint(part.id, None, 0, done=True)])
        assert await backfills.finish_backfill(database, run, plan, sets_watermark=True)
    assert await checkpoints.watermark(database, "contoso") == half


async def test_it_runs_beside_syncs_and_edits(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(500)
    await backfill_all(pipeline)
    await db.execute("DELETE FROM sync.backfills")
    await simulator.behaviour(page_size=10)
    known = list((await simulator.state())["referrals"])
    dice = random.Random(3)

    async def edits() -> None:
        for _ in range(30):
            await simulator.update(dice.choice(known), {"salesStage": str(dice.random())})
            await sync_once(pipeline)

    await asyncio.gather(backfill_all(pipeline), edits(), reconcile_once(replace(pipeline, max_vanished_percent=100)))
    await sync_once(pipeline)
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_a_second_one_learns_who_runs(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.reset(5)
    async with leased(pipeline.database, "contoso", "backfill"):
        with pytest.raises(LeaseError, match=pipeline.database.owner):
            await backfill_all(pipeline)


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"filter_created": "reject"},
        {"filter_created": "reject", "filter_updated": "reject"},
        {"order": "reject"},
    ],
    ids=str,
)
async def test_edits_during_a_backfill_come_with_the_first_sync(
    behaviour: dict[str, Any], pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """The first watermark is what the source showed when the load was planned, not when it ended."""
    await simulator.reset(300)
    await simulator.behaviour(page_size=20, latency=0.05, **behaviour)
    pipeline = replace(pipeline, overlap=timedelta(0))
    known = set((await simulator.state())["referrals"])
    loading = asyncio.create_task(backfill_all(pipeline))
    stored = set[str]()
    while len(stored) < 40:
        stored = {row["id"] for row in await db.fetch("SELECT id FROM partner_center.referrals")}
    # First what was loaded already, then what is still to come: the newest that is stored is then no safe checkpoint.
    for key in (*sorted(stored)[:5], *sorted(known - stored)[-5:]):
        await simulator.update(key, {"salesStage": "Propose"})
    await loading
    await sync_once(pipeline)
    await assert_same_as_source(db, simulator)


async def test_429_halves_the_readers(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(400)
    await simulator.behaviour(page_size=10, latency=0.01, max_concurrent=2)
    await backfill_all(replace(pipeline, concurrency=6))
    refused = [request for request in await simulator.requests() if request["status"] == 429]
    assert 0 < len(refused) < 30, "each is an order to ask less at once"
    await assert_same_as_source(db, simulator)
