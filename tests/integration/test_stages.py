"""Stages are derived for referrals that changed: what comes of that is what all of history says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg

from tests.support.steps import backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.store.analysis import refresh_history
from worker.store.erase import forget, remove_account
from worker.store.sql import END_VERSIONS
from worker.store.write import SHORTEST_VERSION
from worker.sync.pipeline import Pipeline

PAIRS = {"sync.stages": "sync.stages_of", "sync.estimated_stages": "sync.estimates", "sync.all_stages": "every_stage",
         "sync.pipeline_spans": "sync.pipeline_spans_of"}  # fmt: skip
"""What is stored, or shown, and what says what it should be: a view over history, or `EVERY_STAGE`."""

EVERY_STAGE = """
WITH first AS (
    SELECT h.*, r.created_at, r.accepted_at, r.closed_at FROM partner_center.referral_history h
    JOIN partner_center.referrals r ON r.referral_key = h.referral_key
    WHERE h.change = 'first' AND r.created_at < h.valid_from
),
dates AS (
    SELECT referral_key, 'New' AS status, created_at AS at FROM first
    UNION ALL SELECT referral_key, 'Active', greatest(accepted_at, created_at) FROM first
        WHERE accepted_at IS NOT NULL AND status IS DISTINCT FROM 'New'
    UNION ALL SELECT referral_key, 'Closed', greatest(closed_at, created_at) FROM first
        WHERE closed_at IS NOT NULL AND status = 'Closed'
),
-- A later stage that began no later than an earlier one leaves nothing of it.
standing AS (
    SELECT d.* FROM dates d JOIN first f USING (referral_key) WHERE d.at < f.valid_from AND NOT EXISTS (
        SELECT FROM dates l WHERE l.referral_key = d.referral_key AND l.at <= d.at
            AND array_position('{New,Active,Closed}', l.status) > array_position('{New,Active,Closed}', d.status)
    )
),
begun AS (
    SELECT f.referral_key, f.account, f.referral_id, s.at AS entered_at, s.status,
        CASE WHEN s.status = f.status OR s.status = 'Closed' THEN f.substatus
            WHEN s.status = 'New' THEN 'Pending' ELSE 'Accepted' END AS substatus,
        'first' AS change, true AS is_estimated
    FROM standing s JOIN first f USING (referral_key)
    UNION ALL
    SELECT h.referral_key, h.account, h.referral_id, h.valid_from, h.status, h.substatus, h.change, false
    FROM partner_center.referral_history h
    WHERE (h.change <> 'changed' OR h.changed_columns && '{status,substatus}'::text[])
        AND NOT (h.change = 'first' AND h.status IS NOT DISTINCT FROM (
            SELECT s.status FROM standing s WHERE s.referral_key = h.referral_key ORDER BY s.at DESC LIMIT 1
        ))
),
every_stage AS (
    SELECT referral_key, step, account, referral_id, status, substatus, entered_at, left_at, is_estimated FROM (
        SELECT *, row_number() OVER h AS step, lead(entered_at) OVER h AS left_at FROM begun
        WINDOW h AS (PARTITION BY referral_key ORDER BY entered_at)
    ) s WHERE change <> 'deleted'
)
"""
"""Every stage of every referral, found in all of history: the definition, in other words than the product's."""


async def differences(db: asyncpg.Connection) -> dict[str, int]:
    """Count the rows in which what is stored differs from what it should be."""
    return {
        stored: await db.fetchval(
            f"""
            {EVERY_STAGE},
            stored AS (SELECT to_jsonb(s) AS row FROM {stored} s), due AS (SELECT to_jsonb(d) AS row FROM {due} d)
            SELECT count(*) FROM (TABLE stored EXCEPT TABLE due UNION ALL (TABLE due EXCEPT TABLE stored)) d
            """  # noqa: S608 - names of this module
        )
        for stored, due in PAIRS.items()
    }


SAME = dict.fromkeys(PAIRS, 0)


async def test_after_changes_of_every_kind(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(200)
    await backfill_all(pipeline)
    kept = await differences(db)
    assert kept.pop("sync.pipeline_spans") > 0
    assert not any(kept.values()), "the stages of what has one version alone need no refresh"
    await refresh_history(pipeline.database)
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
    await reconcile_once(pipeline)
    assert await db.fetchval("SELECT change FROM partner_center.referrals WHERE id = $1", keys[4]) == "back"
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME


async def test_what_commits_after_a_refresh_that_it_began_before(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Its row has a time from before the refresh: the time of a change could not tell."""
    await simulator.reset(20)
    await backfill_all(pipeline)
    closed = await db.fetch("SELECT id, valid_from FROM partner_center.referrals WHERE status = 'Closed'")
    async with db.transaction():
        until = [(row["valid_from"] + SHORTEST_VERSION).isoformat() for row in closed]
        await db.execute(END_VERSIONS, pipeline.account, [row["id"] for row in closed], until)
        await db.execute(
            "UPDATE partner_center.referrals SET changed_at = now(), status = 'Active', substatus = 'Late',"
            " valid_from = valid_from + interval '1 microsecond', change = 'changed',"
            " changed_columns = '{status,substatus}' WHERE status = 'Closed'"
        )
        await refresh_history(pipeline.database)
    assert await differences(db) != SAME
    await refresh_history(pipeline.database)
    assert await differences(db) == SAME


async def test_a_refresh_writes_what_changed_and_nothing_else(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Also of what is unknown, which a refresh would take for new each time where it is null."""
    await simulator.reset(100)
    keys = sorted((await simulator.state())["referrals"])
    for key in keys[:10]:
        await simulator.update(key, {"status": None, "type": None, "direction": None, "details": {"currency": None}})
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    assert await db.fetchval("SELECT count(*) FROM bi.pipeline_daily WHERE currency IS NULL AND type IS NULL") > 0
    spans = "SELECT count(*), max(ctid), array_agg(DISTINCT xmin::text) FROM sync.pipeline_spans"
    before = await db.fetchrow(spans)
    await refresh_history(pipeline.database)
    assert await db.fetchrow(spans) == before
    await simulator.update(keys[20], {"status": "Active", "substatus": "Late"})
    await sync_once(pipeline)
    await refresh_history(pipeline.database)
    assert await db.fetchrow(spans) != before


async def test_an_erased_account_leaves_nothing(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """A refresh between its referrals and its history, which go in batches, derives stages from what is left."""
    await simulator.reset(20)
    fabrikam = replace(pipeline, account="fabrikam")
    await backfill_all(pipeline)
    await backfill_all(fabrikam)
    await simulator.update(min((await simulator.state())["referrals"]), {"status": "Closed", "substatus": "Error"})
    await sync_once(pipeline)
    await sync_once(fabrikam)
    await refresh_history(pipeline.database)
    await db.execute("DELETE FROM partner_center.referrals WHERE account = 'fabrikam'")
    await refresh_history(pipeline.database)
    assert await db.fetchval("SELECT count(*) FROM sync.stages WHERE account = 'fabrikam'") > 0
    await remove_account(pipeline.database, "fabrikam")
    for table in PAIRS.keys() - {"sync.pipeline_spans"}:
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
