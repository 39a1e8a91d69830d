"""Work that another process has, or had when it died: waited for, taken over, or named."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import Command, start_command
from tests.support.conditions import at_least, until
from tests.support.runs import leased
from worker.demo.control import Control
from worker.store import leases
from worker.store.database import open_database

pytestmark = pytest.mark.long

ELSEWHERE = "elsewhere:17:0123abcd.9f"


async def in_hand(db: asyncpg.Connection, kind: str) -> bool:
    return bool(await db.fetchval("SELECT 1 FROM sync.leases WHERE kind = $1 AND expires_at > now()", kind))


async def killed(environment: dict[str, str], folder: Path, db: asyncpg.Connection, kind: str, *arguments: str) -> None:
    """Start a command, and kill it when it holds the lease of a kind of work."""
    process = await start_command(environment, folder, *arguments)

    async def holds() -> bool:
        assert process.returncode is None, "it ended before it could be killed"
        return await in_hand(db, kind)

    await until(holds, f"at work: {kind}")
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await in_hand(db, kind), "the lease of the dead one is still there"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("backfill",), "backfill"),
        (("backfill", "--verify"), "reconcile"),
        (("reconcile",), "reconcile"),
        (("sync",), "incremental"),
        (("refresh", "ID"), "refresh"),
        (("account", "remove", "contoso"), "incremental"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else one,
)
async def test_the_same_command_again_after_a_kill(
    arguments: tuple[str, ...],
    kind: str,
    environment: dict[str, str],
    command: Command,
    simulator: Control,
    db: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    await simulator.reset(200)
    key = min((await simulator.state())["referrals"])
    again = [key if one == "ID" else one for one in arguments]
    if kind != "backfill":
        assert command("backfill").returncode == 0
    await simulator.behaviour(page_size=10, latency=0.3)
    await killed(environment, tmp_path, db, kind, *(["sync"] if arguments[0] == "account" else again))
    await simulator.behaviour(page_size=100, latency=0)
    began = asyncio.get_running_loop().time()
    result = await asyncio.to_thread(command, *again)
    assert result.returncode == 0, result.stderr
    assert asyncio.get_running_loop().time() - began < leases.LEASE_SECONDS / 2, "the dead one was of this machine"
    rows = await db.fetchval("SELECT count(*) FROM partner_center.referrals")
    assert rows == (0 if arguments[0] == "account" else 200)


@pytest.mark.parametrize("work", [("sync",), ("account", "remove", "contoso")], ids=" ".join)
async def test_the_lease_of_a_dead_process_elsewhere_is_waited_for(
    work: tuple[str, ...], command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(20)
    assert command("backfill").returncode == 0
    await db.execute(
        "INSERT INTO sync.leases (account, kind, owner, fence, acquired_at, expires_at)"
        " VALUES ('contoso', 'incremental', $1, 7, now(), now() + interval '6 seconds')",
        ELSEWHERE,
    )
    result = await asyncio.to_thread(command, *work)
    assert result.returncode == 0, result.stderr
    assert "lease_waiting" in result.stderr
    assert ELSEWHERE in result.stderr


async def test_work_of_a_living_process_is_named(
    command: Command, simulator: Control, database_url: str, db: asyncpg.Connection
) -> None:
    await simulator.reset(20)
    assert command("backfill").returncode == 0
    key = min((await simulator.state())["referrals"])
    async with open_database(database_url, connections=2) as database, leased(database, "contoso", "refresh"):
        result = await asyncio.to_thread(command, "refresh", key)
    assert result.returncode == 1
    assert database.owner in result.stderr
    assert "does not show" not in result.stderr, "nothing is said of what was not asked"
    assert await at_least(db, 20)()


async def test_a_first_backfill_shows_how_far_it_is(
    environment: dict[str, str], command: Command, simulator: Control, tmp_path: Path, db: asyncpg.Connection
) -> None:
    await simulator.reset(900)
    await simulator.behaviour(page_size=20, latency=0.2)
    process = await start_command(environment, tmp_path, "backfill")
    try:

        async def begun() -> bool:
            return bool(await db.fetchval("SELECT count(done_at) > 0 FROM sync.backfill_windows"))

        await until(begun, "through a window")
        shown = await asyncio.to_thread(command, "status")
        assert "contoso: loading" in shown.stdout
        assert re.search(
            r"loading  +[1-9]\d* of \d+ windows, [1-9][\d,]* records since [\d:]+ UTC; ready in about \d+ (s|min)",
            shown.stdout,
        )
    finally:
        process.kill()
        await process.wait()
