"""From the API to the database and back level with it, by each way of reading."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from worker.core.outcome import Counts
from worker.demo.control import Control
from worker.store import leases, ledger
from worker.sync.backfill import backfill
from worker.sync.incremental import incremental
from worker.sync.pipeline import Pipeline
from worker.sync.reconcile import reconcile

ACCOUNT = "contoso"


async def load(pipeline: Pipeline) -> Counts:
    async with leases.run(pipeline.database, ACCOUNT, "backfill") as run:
        return await backfill(pipeline, run, None, None)


async def tick(pipeline: Pipeline) -> Counts:
    watermark = await ledger.watermark(pipeline.database, ACCOUNT)
    assert watermark is not None
    async with leases.run(pipeline.database, ACCOUNT, "incremental") as run:
        return await incremental(pipeline, run, watermark)


async def listing_requests(simulator: Control) -> int:
    return len([r for r in await simulator.requests() if r["path"].startswith("/v1.0/engagements/referrals")])


async def assert_level(db: asyncpg.Connection, simulator: Control) -> None:
    """The copy's live rows are the source's, id by id and version by version."""
    rows = await db.fetch(
        "SELECT id, payload ->> 'updatedDateTime' AS updated FROM partner_center.referrals WHERE deleted_at IS NULL"
    )
    source = (await simulator.state())["referrals"]
    assert {row["id"]: row["updated"] for row in rows} == source


async def test_backfill_then_idle_tick(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(1500)
    counts = await load(pipeline)
    assert counts.inserted == 1500
    await assert_level(db, simulator)
    await simulator.clear_requests()
    counts = await tick(pipeline)
    assert (counts.inserted, counts.updated) == (0, 0)
    assert await listing_requests(simulator) == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"filter_updated": "reject", "filter_created": "reject"},
        {"filter_updated": "ignore", "filter_created": "ignore"},
        {"order": "ignore"},
        {"order": "reject"},
        {"paging": "keyset"},
        {"filter_created": "reject"},
        {"link": "relative"},
        {"link": "full"},
        {"literal_rounding": "second"},
        {"literal_rounding": "string"},
        {"thin_list": True},
        {"date_literal": "quoted"},
    ],
    ids=str,
)
async def test_level_after_changes(
    behaviour: dict[str, Any], pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(700)
    await simulator.behaviour(**behaviour)
    await load(pipeline)
    await assert_level(db, simulator)
    state = list((await simulator.state())["referrals"])
    await simulator.create([{} for _ in range(3)])
    for key in state[:5]:
        await simulator.update(key, {"status": "Closed", "substatus": "Won"})
    await simulator.delete(state[10])
    counts = await tick(pipeline)
    assert (counts.inserted, counts.updated) == (3, 5)
    async with leases.run(pipeline.database, ACCOUNT, "reconcile") as run:
        result = await reconcile(pipeline, run)
    assert result.vanished == 1
    await assert_level(db, simulator)
    async with leases.run(pipeline.database, ACCOUNT, "reconcile") as run:
        again = await reconcile(pipeline, run)
    assert (again.counts.inserted, again.counts.updated, again.vanished) == (0, 0, 0)
