"""Several `run` processes on one database share its work: killed, paused, stopped, or with their queue emptied."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.support.conditions import at_least, rows, until
from tests.support.daemon import Daemon, daemon
from tests.support.steps import assert_chain, assert_same_as_source
from worker.demo.control import Control

pytestmark = pytest.mark.long

SLOW = {"REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1h"}
TIME_PASSES = (
    "UPDATE sync.leases SET expires_at = now()",
    "UPDATE queue.pgqueuer SET heartbeat = now() - interval '1 minute' WHERE status = 'picked'",
)


def said(running: Daemon, event: str, **keys: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return any(keys.items() <= one.items() for one in running.events(event))

    return found


def runs_of(db: asyncpg.Connection, running: Daemon) -> Callable[[], Awaitable[bool]]:
    """Whether a process has a run under way."""

    async def found() -> bool:
        return bool(
            await db.fetchval(
                "SELECT count(*) FROM sync.runs WHERE outcome = 'running' AND owner LIKE '%:' || $1 || ':%'",
                str(running.process.pid),
            )
        )

    return found


def paused(db: asyncpg.Connection, running: Daemon) -> Callable[[], Awaitable[bool]]:
    """Pause a process with nothing begun in the database, where only the fence can hold it off when it wakes."""

    async def tried() -> bool:
        os.kill(running.process.pid, signal.SIGSTOP)
        busy = await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'referral-sync' AND state <> 'idle'"
        )
        if busy:
            os.kill(running.process.pid, signal.SIGCONT)
        return not busy

    return tried


def refused(running: Daemon) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        refusals = [
            str(one.get("error", one.get("why")))
            for name in ("run_failed", "lease_waiting")
            for one in running.events(name)
        ]
        return any("took over" in one for one in refusals)

    return found


async def test_one_is_killed_in_the_middle_of_a_backfill(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Its work is free again when its leases and its jobs end by themselves, and nobody asks for it."""
    await simulator.reset(1500)
    await simulator.behaviour(page_size=20, latency=0.3)
    async with daemon(environment, tmp_path, **SLOW) as first:
        await until(at_least(db, 100), "loading")
        async with daemon(environment, tmp_path, **SLOW) as second:
            await until(said(second, "worker_started"), "started")
            await simulator.behaviour(latency=0)
            os.kill(first.process.pid, signal.SIGKILL)
            began = time.monotonic()
            await until(rows(db, 1500), "taken over")
            assert time.monotonic() - began < 60, "a minute is promised"
            assert await second.stop() == 0
    await assert_same_as_source(db, simulator)


@pytest.mark.timeout(600)
async def test_three_read_one_backfill_and_one_of_them_is_killed(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Each has places for all six readers, and takes only its share of them."""
    await simulator.reset(4000)
    await simulator.behaviour(page_size=20, latency=0.5)
    roomy = SLOW | {"REFERRAL_SYNC_API__CONCURRENCY": "6", "REFERRAL_SYNC_SCALE__JOBS_AT_ONCE": "20"}
    async with (
        daemon(environment, tmp_path, **roomy) as first,
        daemon(environment, tmp_path, **roomy) as second,
        daemon(environment, tmp_path, **roomy) as third,
    ):

        async def all_read() -> bool:
            reading = "SELECT count(DISTINCT owner) FROM sync.runs WHERE kind = 'backfill' AND outcome = 'running'"
            return bool(await db.fetchval(reading) == 3)

        await until(all_read, "read by three")
        os.kill(third.process.pid, signal.SIGKILL)
        await simulator.behaviour(latency=0)
        its = f"%:{third.process.pid}:%"
        await db.execute("UPDATE sync.leases SET expires_at = now() WHERE owner LIKE $1", its)

        async def loaded() -> bool:
            return bool(await db.fetchval("SELECT count(*) FROM sync.watermarks"))

        await until(loaded, "loaded")
        assert await db.fetchval("SELECT sum(inserted) FROM sync.runs") == 4000, "each record once"
        assert await db.fetchval("SELECT count(*) FROM partner_center.referral_history") == 4000, "and each version"
        for running in (first, second):
            assert await running.stop() == 0
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_the_queue_is_truncated(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """What is lost is put in again when it is due, and a backfill lost with it is begun again by the next sync."""
    await simulator.reset(900)
    await simulator.behaviour(page_size=20, latency=0.1)
    async with daemon(environment, tmp_path) as running:
        await until(at_least(db, 100), "loading")
        running.process.kill()
    await db.execute("TRUNCATE queue.pgqueuer")
    await db.execute("UPDATE sync.leases SET expires_at = now()")
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 900), "loaded")
        await simulator.behaviour(latency=0)
        for number in range(3):
            await db.execute("TRUNCATE queue.pgqueuer")
            await simulator.create([{}])
            await until(rows(db, 901 + number), "followed", patience=20)
        assert await running.stop() == 0
    await assert_same_as_source(db, simulator)


async def test_one_is_paused_beyond_its_leases_and_writes_nothing_when_it_wakes(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Everything was erased meanwhile, so that whatever it has in hand would show."""
    await simulator.reset(1000)
    await simulator.behaviour(page_size=20, latency=0.2)
    async with daemon(environment, tmp_path, **SLOW) as first:
        await until(at_least(db, 100), "loading")
        await until(paused(db, first), "paused between two transactions")
        for statement in TIME_PASSES:
            await db.execute(statement)
        await simulator.behaviour(latency=0)
        async with daemon(environment, tmp_path, **SLOW) as second:
            await until(rows(db, 1000), "taken over")

            async def loaded() -> bool:
                return bool(await db.fetchval("SELECT count(*) FROM sync.watermarks"))

            await until(loaded, "loaded")
            await assert_same_as_source(db, simulator)
            await assert_chain(db)
            assert await second.stop() == 0
        await db.execute("DELETE FROM partner_center.referrals")
        ledger = "SELECT id, xmin::text FROM sync.backfill_windows ORDER BY id"
        windows = await db.fetch(ledger)
        os.kill(first.process.pid, signal.SIGCONT)

        async def refused_or_not() -> bool:
            written: int = await db.fetchval("SELECT count(*) FROM partner_center.referrals")
            assert written == 0
            return await refused(first)()

        await until(refused_or_not, "refused")
        assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0
        assert await db.fetch(ledger) == windows
        assert await first.stop() == 0


async def test_asked_to_stop_it_hands_back_what_it_has_in_hand(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1500)
    await simulator.behaviour(page_size=20, latency=0.2)
    async with daemon(environment, tmp_path, **SLOW) as first:
        await until(at_least(db, 100), "loading")
        began = time.monotonic()
        assert await first.stop() == 0
        assert time.monotonic() - began < 10, "the ten seconds that are promised"
    assert await db.fetchval("SELECT outcome FROM sync.runs ORDER BY id DESC LIMIT 1") == "stopped"
    waiting = await db.fetch("SELECT entrypoint, status::text FROM queue.pgqueuer WHERE entrypoint <> 'history'")
    assert {tuple(row) for row in waiting} >= {("backfill", "queued")}
    assert "picked" not in {row["status"] for row in waiting}
    async with daemon(environment, tmp_path, **SLOW) as second:
        began = time.monotonic()
        await until(runs_of(db, second), "gone on")
        assert time.monotonic() - began < 20, "at once, not when a lease or a heartbeat is over"
        await simulator.behaviour(latency=0)
        await until(rows(db, 1500), "loaded")
        assert await second.stop() == 0
    await assert_same_as_source(db, simulator)


async def test_jobs_that_nobody_here_can_do_keep_nobody_waiting(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Of a kind that a newer release knows, of an account that was taken out of the configuration, and nonsense."""
    await simulator.reset(20)
    await db.execute(
        """
        INSERT INTO queue.pgqueuer (priority, status, entrypoint, payload, attempts) VALUES
            (99, 'queued', 'later', '{"account": "contoso"}', 0),
            (99, 'queued', 'incremental', '{"account": "adatum"}', 5),
            (99, 'queued', 'incremental', 'nonsense', 0)
        """
    )
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 20), "loaded")
        await until(said(running, "job_dropped", account="adatum"), "said whose it was")
        await until(said(running, "job_rejected"), "said that it is nonsense")
        await simulator.create([{}])
        await until(rows(db, 21), "followed")
        assert await running.stop() == 0
    left = await db.fetch("SELECT entrypoint FROM queue.pgqueuer WHERE priority = 99")
    assert [row["entrypoint"] for row in left] == ["later"], "for who knows it"


async def test_two_configurations_on_one_database_are_said(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(20)
    other = {
        "REFERRAL_SYNC_ACCOUNTS__ADATUM__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__ADATUM__ACCESS_TOKEN": "simulator",
    }
    async with daemon(environment, tmp_path, **SLOW) as first, daemon(environment, tmp_path, **SLOW, **other) as second:
        await until(rows(db, 40), "both accounts loaded")
        await until(said(first, "configuration_diverged"), "said by the first")
        await until(said(second, "configuration_diverged"), "said by the second")
        await simulator.create([{}])
        await db.execute("UPDATE sync.schedules SET due_at = now() WHERE kind = 'incremental'")
        await until(rows(db, 42), "both accounts followed")
        os.kill(second.process.pid, signal.SIGSTOP)
        await simulator.create([{}])
        await db.execute(
            "INSERT INTO queue.pgqueuer (priority, status, entrypoint, payload, attempts)"
            " VALUES (10, 'queued', 'incremental', '{\"account\": \"adatum\"}', 0)"
        )

        async def left() -> bool:
            return bool(await db.fetchval("SELECT count(*) FROM queue.pgqueuer WHERE priority = 10 AND attempts > 0"))

        await until(left, "left by the first to who knows the account")
        os.kill(first.process.pid, signal.SIGSTOP)  # which could else be the faster one each time, and drop it
        os.kill(second.process.pid, signal.SIGCONT)
        await until(rows(db, 43), "followed by the second")
        os.kill(first.process.pid, signal.SIGCONT)
        assert await second.stop() == 0
        assert await first.stop() == 0
    twice = await db.fetchval(
        "SELECT count(*) FROM (SELECT account, due_at FROM sync.runs WHERE due_at IS NOT NULL AND outcome = 'done'"
        " GROUP BY 1, 2 HAVING count(*) > 1) twice"
    )
    assert twice == 0, "what is due is done once"


@pytest.mark.parametrize("damage", ["DROP SCHEMA queue CASCADE", "ALTER TABLE queue.pgqueuer DROP COLUMN attempts"])
async def test_tables_of_the_queue_that_are_not_the_engines_are_said(
    damage: str, environment: dict[str, str], db: asyncpg.Connection, tmp_path: Path
) -> None:
    await db.execute(damage)
    async with daemon(environment, tmp_path) as running:

        async def ended() -> bool:
            return running.process.poll() is not None

        await until(ended, "ended")
        assert running.process.returncode == 1
        assert "are not those of PgQueuer 1.6.0" in running.output()
        assert "Traceback" not in running.output()
