"""`backfill --processes`: windows of one load are read by several processes with the same claims and fencing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import PIPE, Command, start_command
from tests.support.conditions import at_least, until
from tests.support.steps import assert_chain, assert_same_as_source
from worker.demo.control import Control

pytestmark = pytest.mark.long

OWNERS = "SELECT DISTINCT split_part(owner, ':', 2)::int AS pid FROM sync.runs WHERE kind = 'backfill'"


async def test_several_processes_read_one_backfill_and_each_record_once(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1200)
    await simulator.behaviour(page_size=20, latency=0.3)
    process = await start_command(
        environment, tmp_path, "backfill", "--concurrency", "3", "--processes", "3", stdout=PIPE, stderr=PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert output.startswith(b"contoso: 1200 inserted, 0 updated, "), "of all processes"
    assert len(await db.fetch(OWNERS)) == 3
    assert await db.fetchval("SELECT sum(inserted) FROM sync.runs") == 1200
    assert await db.fetchval("SELECT count(*) FROM sync.watermarks") == 1
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    scans = await db.fetchval("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'estimated_stages'")
    assert scans == 1, "what dashboards read is refreshed by the one that was helped, once"


async def test_a_slow_source_is_read_by_one_process(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """A second one would wait as well, for the same few answers at once."""
    await simulator.reset(1200)
    await simulator.behaviour(page_size=20, latency=0.1)
    process = await start_command(environment, tmp_path, "backfill", stdout=PIPE, stderr=PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert await db.fetchval("SELECT count(*) FROM sync.runs") == 1
    await assert_same_as_source(db, simulator)


async def test_one_that_helps_is_killed(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1000)
    await simulator.behaviour(page_size=20, latency=0.3)
    process = await start_command(
        environment, tmp_path, "backfill", "--concurrency", "2", "--processes", "2", stdout=PIPE, stderr=PIPE
    )

    async def helped() -> bool:
        return len(await db.fetch(OWNERS)) == 2

    await until(helped, "helped")
    (helper,) = [row["pid"] for row in await db.fetch(OWNERS) if row["pid"] != process.pid]
    os.kill(helper, signal.SIGKILL)
    await db.execute("UPDATE sync.leases SET expires_at = now() WHERE kind LIKE 'backfill#%'")  # what 30 s would do
    await simulator.behaviour(latency=0)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors
    await assert_same_as_source(db, simulator)


async def test_they_end_with_the_one_that_they_help(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path, command: Command
) -> None:
    await simulator.reset(1000)
    await simulator.behaviour(page_size=20, latency=0.3)
    process = await start_command(
        environment, tmp_path, "backfill", "--concurrency", "2", "--processes", "2", stdout=PIPE, stderr=PIPE
    )

    async def helped() -> bool:
        return len(await db.fetch(OWNERS)) == 2 and await at_least(db, 60)()

    await until(helped, "helped")
    helpers = [row["pid"] for row in await db.fetch(OWNERS) if row["pid"] != process.pid]
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 1
    assert re.search(rb"Stopped. What was saved stands", errors)
    assert not [pid for pid in helpers if Path(f"/proc/{pid}").exists()]
    await simulator.behaviour(latency=0)
    assert command("backfill").returncode == 0
    await assert_same_as_source(db, simulator)
