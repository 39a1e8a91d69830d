"""Killed, stopped, paused: whatever happens to the process, the next run catches up with the source.

`--rounds` says how often dice are thrown: a few times here, many under `make torture`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import PIPE, start_command
from tests.support.conditions import at_least, until
from tests.support.proxy import Proxy
from tests.support.steps import TALLY, assert_chain, assert_same_as_source
from worker.demo.control import Control

PAUSE_FREE = "UPDATE sync.leases SET expires_at = now()"


async def killed_at(process: asyncio.subprocess.Process, moment: Awaitable[object]) -> bool:
    """Kill it when `moment` has come; whether it was still alive."""
    ending, coming = asyncio.create_task(process.wait()), asyncio.ensure_future(moment)
    done, _ = await asyncio.wait({ending, coming}, return_when=asyncio.FIRST_COMPLETED)
    coming.cancel()
    await asyncio.wait({coming})
    alive = ending not in done
    if alive:
        try:
            process.kill()
        except ProcessLookupError:  # it ended just now
            alive = False
    await ending
    TALLY["processes killed"] += alive
    return alive


async def free_leases(db: asyncpg.Connection) -> None:
    """Let time pass for the leases of the dead: they end by themselves after 45 seconds."""
    await db.execute(PAUSE_FREE)


async def assert_books(db: asyncpg.Connection) -> None:
    """The counts of the runs are what is stored: rows and counts are one transaction."""
    first_sights = await db.fetchval("SELECT count(*) FROM partner_center.referral_history WHERE change = 'first'")
    assert await db.fetchval("SELECT sum(inserted) FROM sync.runs") == first_sights
    read = await db.fetchval("SELECT sum(records) FROM sync.backfill_windows")
    counted = await db.fetchval(
        "SELECT sum(inserted + updated + unchanged + rejected) FROM sync.runs WHERE kind = 'backfill'"
    )
    assert read == counted


async def test_killed_at_any_moment_of_a_backfill(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path, rounds: int
) -> None:
    """Now and then before it has stored anything, mostly so many rows later than the one before it."""
    await simulator.reset(1500 * rounds)
    await simulator.behaviour(page_size=25, latency=0.1)
    kills = stored = 0
    for round_ in range(3 * rounds):
        dice = random.Random(round_)
        process = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
        enough = at_least(db, stored + dice.randrange(1, 250))
        early = dice.random() < 0.3
        if not await killed_at(process, asyncio.sleep(dice.random()) if early else until(enough, "loading")):
            break
        kills += 1
        stored = await db.fetchval("SELECT count(*) FROM partner_center.referrals")
        through = await db.fetchval("SELECT coalesce(sum(records), 0) FROM sync.backfill_windows")
        assert stored <= through, "nothing is stored that the ledger does not know"
        await free_leases(db)
    await simulator.behaviour(latency=0)
    process = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
    assert await process.wait() == 0
    assert kills >= 2
    windows = await db.fetchval("SELECT count(*) FROM sync.backfill_windows")
    pages = await db.fetchval("SELECT sum(pages) FROM sync.runs")
    assert pages <= 1500 * rounds / 24 + windows + 2 * kills, "at most the page in hand of each reader is read again"
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    await assert_books(db)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_each_commit(
    moment: str, environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path, rounds: int
) -> None:
    """Killed before a commit reaches PostgreSQL, or after it stands and before the worker hears of it."""
    await simulator.reset(120)
    await simulator.behaviour(page_size=20)
    kills = 0
    async with Proxy(environment["REFERRAL_SYNC_DATABASE__URL"]) as proxy:
        url = proxy.url_of(environment["REFERRAL_SYNC_DATABASE__URL"])
        commits = range(2, 40) if rounds > 1 else random.Random(moment).sample(range(3, 10), 3)
        for number in commits:
            process = await start_command(
                environment | {"REFERRAL_SYNC_DATABASE__URL": url}, tmp_path, "sync", stderr=PIPE
            )
            proxy.commits = 0

            def kill(count: int, when: str, *, process: asyncio.subprocess.Process = process, at: int = number) -> bool:
                if (count, when) != (at, moment):
                    return False
                TALLY["processes killed at a commit"] += 1
                process.kill()
                return True

            proxy.at_commit = kill
            code = await process.wait()
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            await free_leases(db)
            await simulator.create([{}])
        proxy.at_commit = None
        process = await start_command(environment | {"REFERRAL_SYNC_DATABASE__URL": url}, tmp_path, "sync", stderr=PIPE)
        assert await process.wait() == 0
        # A backfill that was killed after its last commit may have left the newest changes to the first sync.
        process = await start_command(environment | {"REFERRAL_SYNC_DATABASE__URL": url}, tmp_path, "sync", stderr=PIPE)
        assert await process.wait() == 0
    assert kills >= 2
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    await assert_books(db)


async def test_paused_beyond_its_lease_it_writes_no_more(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Another process takes the work over; the one that wakes up is refused, and says so."""
    await simulator.reset(1000)
    await simulator.behaviour(page_size=20, latency=0.1)
    process = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
    await until(at_least(db, 1), "loading")
    os.kill(process.pid, signal.SIGSTOP)
    # What a pause beyond the lease's life leaves: PostgreSQL has ended its idle transactions, and the lease is over.
    await db.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'referral-sync'"
    )
    await free_leases(db)
    await simulator.behaviour(latency=0)
    successor = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
    assert await successor.wait() == 0
    rows = await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id")
    os.kill(process.pid, signal.SIGCONT)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id") == rows
    outcomes = await db.fetch("SELECT outcome FROM sync.runs ORDER BY id")
    assert [row["outcome"] for row in outcomes] == ["abandoned", "done"]
    await assert_same_as_source(db, simulator)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_says_where_it_stands(
    number: int, environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(800)
    await simulator.behaviour(page_size=20, latency=0.1)
    process = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
    await until(at_least(db, 1), "loading")
    process.send_signal(number)
    _, errors = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert b"Stopped. What was saved stands" in errors
    assert await db.fetchval("SELECT outcome FROM sync.runs") == "stopped"
    await simulator.behaviour(latency=0)
    process = await start_command(environment, tmp_path, "backfill", stderr=PIPE)
    assert await process.wait() == 0
    await assert_same_as_source(db, simulator)
    await assert_books(db)
