"""Stages are derived for referrals that changed: what comes of that is what all of history says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg

from tests.support.steps import backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.store.analysis import refresh_history
from worker.store.erase import forget, remove_account
from worker.sync.pipeline import Pipeline

PAIRS = {"sync.stages": "sync.stages_of", "sync.estimated_stages": "sync.estimates"}
"""What is stored, and the view over all of history that says what it should be."""


async def differences(db: asyncpg.Connection) -> dict[str, int]:
    """Count the rows in which what is stored differs from what it should be."""
    return {
        stored: await db.fetchval(
            f"""
            WITH stored AS (SELECT to_jsonb(s) AS row FROM {stored} s), due AS (SELECT to_jsonb(d) AS row FROM {due} d)
            SELECT count(*) FROM (TABLE stored EXCEPT TABLE due UNION ALL (TABLE due EXCEPT TABLE stored)) d
            """  # noqa: S608 - names of this module
        )
        for stored, due in PAIRS.items()
    }


SAME = dict.fromkeys(PAIRS, 0)


async def test_after_changes_of_every_kind(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(200)
    await backfill_all(pipeline)
    assert await differences(db) != SAME
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME
    first = await db.fetchval("SELECT count(*) FROM bi.stage_durations")
    listed = (await simulator.state(full=True))["records"]
    keys = sorted(key for key, record in listed.items() if record["status"] == "Active")
    await simulator.update(keys[0], {"status": "Closed", "substatus": "Won"})
    await simulator.update(keys[1], {"details": {"dealValue": 5}})
    await simulator.create([{"status": "New", "substatus": "Pending"}])
    await simulator.delete(keys[2])
    await sync_once(pipeline)
    await reconcile_once(pipeline)
    assert await differences(db) != SAME
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME
    assert await db.fetchval("SELECT count(*) FROM bi.stage_durations") > first
    await simulator.update(keys[0], {"status": "Active", "substatus": "Accepted"})
    await sync_once(pipeline)
    await forget(pipeline.database, pipeline.account, keys[3])
    await db.execute("DELETE FROM partner_center.referrals WHERE id = $1", keys[4])
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME
    assert await db.fetchval("SELECT count(*) FROM bi.stage_durations WHERE id = $1", keys[3]) == 0
    assert await db.fetchval("SELECT count(*) FROM bi.stage_durations WHERE id = $1", keys[4]) > 0, "history is left"


async def test_what_commits_after_a_refresh_that_it_began_before(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Its row has a time from before the refresh: the time of a change could not tell."""
    await simulator.reset(20)
    await backfill_all(pipeline)
    async with db.transaction():
        await db.execute(
            "UPDATE partner_center.referrals SET changed_at = now(), status = 'Active', substatus = 'Late',"
            " valid_from = now(), change = 'changed', changed_columns = '{status,substatus}' WHERE status = 'Closed'"
        )
        await refresh_history(pipeline.database)
    assert await differences(db) != SAME
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME


async def test_an_erased_account_leaves_nothing(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """A refresh between its referrals and its history, which go in batches, derives stages from what is left."""
    await simulator.reset(20)
    await backfill_all(pipeline)
    await backfill_all(replace(pipeline, account="fabrikam"))
    await refresh_history(pipeline.database)
    await db.execute("DELETE FROM partner_center.referrals WHERE account = 'fabrikam'")
    await refresh_history(pipeline.database)
    assert await db.fetchval("SELECT count(*) FROM sync.stages WHERE account = 'fabrikam'") > 0
    await remove_account(pipeline.database, "fabrikam")
    for table in PAIRS:
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE account = 'fabrikam'") == 0  # noqa: S608
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE account = 'contoso'") > 0  # noqa: S608
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME


async def test_refreshes_at_once_are_one_after_the_other(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(100)
    await backfill_all(pipeline)
    await asyncio.gather(*(refresh_history(pipeline.database) for _ in range(3)))
    assert await differences(db) == SAME
