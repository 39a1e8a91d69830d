"""How workers share work: a due sync is one job, a job has one worker, a window one reader, whatever happens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest

from tests.support.conditions import until
from tests.support.pages import page, referral
from tests.support.runs import leased
from worker.daemon.kinds import kinds_of_all, put
from worker.daemon.planner import next_due
from worker.errors import LeaseError, StoreError
from worker.model.counts import Facts, WindowCheckpoint
from worker.model.instant import Instant
from worker.model.mapping import map_pages
from worker.model.window import TimeField, Window
from worker.store import analysis, backfills, queue, retention, runs, schedules, stages
from worker.store.database import Database
from worker.store.queue import Job, PoolDriver
from worker.store.save import save
from worker.store.schedules import WorkKind

MINUTE = timedelta(minutes=1)
SYNC = {"incremental": WorkKind("incremental", "1m", next_due(MINUTE, "UTC"), priority=10, at_once=True)}
NAMES = [f"a{number:02}" for number in range(40)]
JOBS = "SELECT count(*) FROM queue.pgqueuer"


@pytest.fixture
async def history(database: Database, db: asyncpg.Connection) -> dict[str, WorkKind]:
    """The kinds of work of the whole database, with nothing asked for."""
    kinds = kinds_of_all()
    await schedules.ensure(database, [], kinds, of_all=True)
    await db.execute("UPDATE sync.schedules SET due_at = 'infinity', not_before = NULL")
    return {schedules.HISTORY: kinds[schedules.HISTORY]}


async def test_what_is_due_becomes_one_job_however_many_look(database: Database, db: asyncpg.Connection) -> None:
    await schedules.ensure(database, NAMES, SYNC, of_all=False)
    looked = [schedules.move_due(database, NAMES, SYNC, partial(put, SYNC)) for _ in range(6)]
    moved = await asyncio.gather(*looked)
    assert sum(one.jobs for one in moved) == len(NAMES)
    assert await db.fetchval("SELECT count(DISTINCT dedupe_key) FROM queue.pgqueuer") == len(NAMES)
    assert await db.fetchval(JOBS) == len(NAMES)
    due = [
        row["due_at"]
        for row in await db.fetch("SELECT due_at FROM sync.schedules WHERE kind = 'incremental' ORDER BY 1")
    ]
    assert due[0] > datetime.now(UTC) - MINUTE
    assert (due[-1] - due[0]).total_seconds() > 50, "spread over the minute"


async def test_many_missed_are_one_job(database: Database, db: asyncpg.Connection) -> None:
    await schedules.ensure(database, NAMES[:1], SYNC, of_all=False)
    await db.execute("UPDATE sync.schedules SET due_at = now() - interval '3 hours'")
    for _ in range(3):
        await schedules.move_due(database, NAMES, SYNC, partial(put, SYNC))
    assert await db.fetchval(JOBS) == 1


async def test_a_job_and_its_due_time_are_one_transaction(database: Database, db: asyncpg.Connection) -> None:
    await schedules.ensure(database, NAMES, SYNC, of_all=False)
    before = await db.fetch("SELECT account, due_at FROM sync.schedules ORDER BY 1")

    def fails(_: datetime, __: float) -> datetime:
        raise OverflowError

    broken = {"incremental": replace(SYNC["incremental"], next_due=fails)}
    with pytest.raises(OverflowError):
        await schedules.move_due(database, NAMES, broken, partial(put, broken))
    assert await db.fetchval(JOBS) == 0
    assert await db.fetch("SELECT account, due_at FROM sync.schedules ORDER BY 1") == before


async def test_a_changed_schedule_is_taken_over_and_an_unchanged_one_stays(
    database: Database, db: asyncpg.Connection
) -> None:
    due = "SELECT due_at FROM sync.schedules WHERE kind = 'incremental' ORDER BY account"
    await schedules.ensure(database, NAMES, SYNC, of_all=False)
    await schedules.move_due(database, NAMES, SYNC, partial(put, SYNC))
    before = await db.fetch(due)
    await schedules.ensure(database, NAMES, SYNC, of_all=False)
    assert await db.fetch(due) == before
    hourly = {"incremental": WorkKind("incremental", "1h", next_due(60 * MINUTE, "UTC"), priority=10, at_once=True)}
    await schedules.ensure(database, NAMES, hourly, of_all=False)
    after = [row["due_at"] for row in await db.fetch(due)]
    assert max(after) - min(after) > 50 * MINUTE


async def test_who_backs_off_is_not_due_for_any_worker(database: Database, db: asyncpg.Connection) -> None:
    await schedules.ensure(database, NAMES[:2], SYNC, of_all=False)
    await schedules.put_backoff(database, NAMES[0], 3600, "HTTP 429")
    await schedules.move_due(database, NAMES, SYNC, partial(put, SYNC))
    assert await db.fetchval("SELECT dedupe_key FROM queue.pgqueuer") == f"incremental:{NAMES[1]}"
    assert await schedules.backing_off(database, NAMES[0]) > 3500
    status = await db.fetchrow("SELECT * FROM sync.status WHERE account = $1", NAMES[0])
    assert status is not None
    assert status["backing_off_because"] == "HTTP 429"


async def test_history_is_refreshed_once_for_many_runs_and_once_a_minute_at_most(
    database: Database, db: asyncpg.Connection, history: dict[str, WorkKind]
) -> None:
    for _ in range(5):
        for name in NAMES[:5]:
            async with runs.recorded(database, name, "reconcile") as record:
                record.facts = Facts(deleted=1)
        await schedules.move_due(database, [], history, partial(put, history))
    assert await db.fetchval(JOBS) == 1
    assert await db.fetchval("SELECT due_at < 'infinity' FROM sync.schedules WHERE kind = 'history'"), "asked for again"
    await db.execute("DELETE FROM queue.pgqueuer")
    await schedules.move_due(database, [], history, partial(put, history))
    assert await db.fetchval(JOBS) == 0, "not yet"
    await db.execute("UPDATE sync.schedules SET not_before = now() WHERE kind = 'history'")
    await schedules.move_due(database, [], history, partial(put, history))
    assert await db.fetchval(JOBS) == 1


WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
NOT_BEFORE = "SELECT extract(epoch FROM not_before - now())::float8 FROM sync.schedules WHERE kind = 'history'"


async def test_a_refresh_of_history_that_takes_long_rests_ten_times_as_long(
    database: Database, db: asyncpg.Connection, history: dict[str, WorkKind]
) -> None:
    await schedules.seen(database, "somebody", "1", "same")
    await schedules.ask_for_history(database)
    assert await schedules.take_history(database)
    await schedules.rest_after_history(database, 5)
    await schedules.ask_for_history(database)
    assert await schedules.take_history(database), "a command does not wait for the minute: nobody may come after it"
    await schedules.rest_after_history(database, 21)
    await schedules.rest_after_history(database, 7)
    assert 200 < await db.fetchval(NOT_BEFORE) <= 210
    await schedules.ask_for_history(database)
    assert not await schedules.take_history(database)
    assert (await schedules.move_due(database, [], history, partial(put, history))).jobs == 0
    assert await schedules.take_history(database, force=True)
    await schedules.rest_after_history(database, 500)
    assert 890 < await db.fetchval(NOT_BEFORE) <= 900, "one that took very long says little of the next"
    await schedules.ask_for_history(database)
    await db.execute("UPDATE sync.workers SET seen_at = now() - interval '1 minute'")
    assert await schedules.take_history(database), "nobody else would do it"


async def test_what_a_refresh_works_counts_and_not_what_it_waits(
    database: Database, db: asyncpg.Connection, history: dict[str, WorkKind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it fails: a statement that takes too long would else be tried again at once."""
    del history
    await schedules.ask_for_history(database)
    await schedules.take_history(database)
    monkeypatch.setattr(schedules, "HISTORY_RESTS", 100)
    async with db.transaction():
        await db.execute(stages.LOCK_STAGES)
        refresh = asyncio.create_task(analysis.refresh_history(database))
        await until(lambda: db.fetchval(WAITING), "waiting for its turn")
        await asyncio.sleep(1)  # the wait that must not count
    await refresh
    assert await db.fetchval(NOT_BEFORE) <= 60
    monkeypatch.setattr(stages, "_REPLACE_SPANS", "SELECT 1 / length(pg_sleep(1)::text)")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await analysis.refresh_history(database)
    assert await db.fetchval(NOT_BEFORE) > 60


async def test_a_change_while_history_is_refreshed_is_not_forgotten(
    database: Database, db: asyncpg.Connection, history: dict[str, WorkKind]
) -> None:
    """Its refresh may have begun before, and takes longer than a minute."""
    await schedules.ask_for_history(database)
    await schedules.move_due(database, [], history, partial(put, history))
    await schedules.ask_for_history(database)
    await db.execute("UPDATE sync.schedules SET not_before = NULL WHERE kind = 'history'")
    moved = await schedules.move_due(database, [], history, partial(put, history))
    assert moved.jobs == 0
    await db.execute("DELETE FROM queue.pgqueuer")
    await db.execute("UPDATE sync.schedules SET due_at = now() WHERE kind = 'history' AND due_at < 'infinity'")
    assert (await schedules.move_due(database, [], history, partial(put, history))).jobs == 1


async def test_a_run_that_died_has_its_changes_refreshed_too(database: Database, history: dict[str, WorkKind]) -> None:
    async with leased(database, "contoso", "incremental"):
        async with database.transaction() as connection:
            await connection.execute("UPDATE sync.leases SET expires_at = now()")
        async with leased(database, "contoso", "incremental"):
            pass
    assert (await schedules.move_due(database, [], history, partial(put, history))).jobs == 1


async def test_the_engine_has_nothing_to_upgrade(database: Database, db: asyncpg.Connection) -> None:
    """Its pinned release finds the tables as it makes them, its trigger off or not."""
    plan = await queue.queries(PoolDriver(database)).plan_upgrade()
    assert plan.statements == ()
    await queue.require_tables(database)
    await db.execute("DROP INDEX queue.pgqueuer_unique_dedupe_key")
    with pytest.raises(StoreError, match="are not those of PgQueuer"):
        await queue.require_tables(database)
    await db.execute("DROP SCHEMA queue CASCADE")
    with pytest.raises(StoreError, match="are not those of PgQueuer"):
        await queue.require_tables(database)


def test_variables_of_the_environment_do_not_rename_the_engines_tables() -> None:
    names = ("TRIGGER", "FUNCTION", "CHANNEL", "QUEUE_TABLE", "PGQUEUER_PREFIX", "PGQUEUER_SCHEMA", "SCHEDULES_TABLE")
    code = "from worker.store.queue import install_sql; print(install_sql())"
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(names, "elsewhere")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "CREATE TABLE queue.pgqueuer (" in done.stdout
    assert "elsewhere" not in done.stdout


async def test_a_job_of_a_kind_that_nobody_knows_stays_for_who_does_and_goes_in_the_end(
    database: Database, db: asyncpg.Connection
) -> None:
    async with database.transaction() as connection:
        assert await queue.enqueue(connection, [Job("later", "contoso", "later:contoso")]) == [True]
        assert await queue.enqueue(connection, [Job("later", "contoso", "later:contoso")]) == [False]
    assert await queue.delete_unknown(database, ["incremental"], "1 day") == 0
    await db.execute("UPDATE queue.pgqueuer SET created = now() - interval '2 days'")
    assert await queue.delete_unknown(database, ["incremental", "later"], "1 day") == 0
    assert await queue.delete_unknown(database, ["incremental"], "1 day") == 1


async def windows(database: Database, count: int) -> backfills.Backfill:
    cut = [Window(TimeField.CREATED, Instant(lower), Instant(lower + 1)) for lower in range(count)]
    async with leased(database, "contoso", "backfill") as run:
        return await backfills.plan_backfill(database, run, Window(TimeField.CREATED), cut, None)


async def test_each_window_has_one_reader(database: Database) -> None:
    plan = await windows(database, 12)
    taken: list[int] = []

    async def reader(number: int) -> None:
        async with leased(database, "contoso", "backfill", slot=str(number)) as run:
            while (found := await backfills.claim_window(database, run, plan)) is not None:
                taken.append(found.id)
                await save(database, run, map_pages([]), checkpoints=[WindowCheckpoint(found.id, None, 0, done=True)])

    await asyncio.gather(*(reader(number) for number in range(4)))
    assert sorted(taken) == sorted(one.id for one in plan.pending)
    assert (await backfills.backfill_progress(database, plan.id)).done == 12


@pytest.mark.parametrize("end", ["finished", "lease over"])
async def test_a_window_is_free_again_when_its_run_is_over(
    database: Database, db: asyncpg.Connection, end: str
) -> None:
    plan = await windows(database, 1)
    async with leased(database, "contoso", "backfill", slot="1") as first:
        assert await backfills.claim_window(database, first, plan) is not None
        async with leased(database, "contoso", "backfill", slot="2") as second:
            assert await backfills.claim_window(database, second, plan) is None
            if end == "lease over":
                await db.execute("UPDATE sync.leases SET expires_at = now() WHERE kind = 'backfill#1'")
                assert await backfills.claim_window(database, second, plan) is not None
                with pytest.raises(LeaseError, match="took over a window"):
                    await save(
                        database,
                        first,
                        map_pages([page(referral(1))]),
                        checkpoints=[WindowCheckpoint(plan.pending[0].id, None, 1)],
                    )
    if end == "finished":
        async with leased(database, "contoso", "backfill", slot="3") as third:
            assert await backfills.claim_window(database, third, plan) is not None
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0


async def test_readers_of_one_backfill_do_not_abandon_one_anothers_runs(
    database: Database, db: asyncpg.Connection
) -> None:
    async with leased(database, "contoso", "backfill"), leased(database, "contoso", "backfill", slot="1"):
        assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE outcome = 'running'") == 2


@pytest.mark.parametrize("view", ["sync.status", "bi.data_quality"])
async def test_status_needs_no_look_at_all_runs(view: str, database: Database, db: asyncpg.Connection) -> None:
    """However many there are: it reads the runs that the summary names, by their ids, and those with unknown fields."""
    async with leased(database, "contoso", "incremental"):
        pass
    await db.execute(
        """
        INSERT INTO sync.runs (account, kind, owner, fence, outcome, finished_at)
        SELECT 'contoso', 'incremental', 'x', 1, 'done', now() FROM generate_series(1, 5000)
        """
    )
    await db.execute("ANALYZE")
    plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN (ANALYZE) SELECT * FROM {view}"))  # noqa: S608 - a constant
    assert "runs_recent" not in plan
    assert "Seq Scan on runs" not in plan


async def test_old_runs_go_and_those_that_the_status_speaks_of_stay(database: Database, db: asyncpg.Connection) -> None:
    async with leased(database, "contoso", "reconcile"):
        pass
    await db.execute(
        """
        INSERT INTO sync.runs (account, kind, owner, fence, outcome, finished_at, inserted)
        SELECT 'contoso', 'incremental', 'x', 1, 'done', now() - age, changes
        FROM unnest('{1 day,3 days,3 days,99 days,99 days}'::interval[], '{0,0,1,1,0}'::bigint[]) AS r(age, changes)
        """
    )
    await db.execute("UPDATE sync.runs SET finished_at = now() - interval '99 days' WHERE kind = 'reconcile'")
    while await retention.delete_old_runs(database, "90 days", "2 days", batch=1):
        pass
    left = await db.fetch("SELECT kind, now() - finished_at > interval '90 days' AS old FROM sync.runs ORDER BY id")
    assert [(row["kind"], row["old"]) for row in left] == [
        ("reconcile", True),
        ("incremental", False),
        ("incremental", False),
        ("incremental", True),
    ]
