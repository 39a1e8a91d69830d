"""From the API to the database and back level with it, by each way of reading."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.support.steps import assert_chain, assert_level, listing_requests, load, prove, tick
from worker.demo.control import Control
from worker.sync.pipeline import Pipeline


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
    result = await prove(pipeline)
    assert result.vanished == 1
    await assert_level(db, simulator)
    await assert_chain(db)
    again = await prove(pipeline)
    assert (again.counts.inserted, again.counts.updated, again.vanished) == (0, 0, 0)
