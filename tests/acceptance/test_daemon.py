"""The daemon as a process: it works by itself, shows it, outlives outages, and stops cleanly."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.support.conditions import at_least, rows, until
from tests.support.daemon import daemon, free_port
from worker.demo.control import Control


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_migrates_loads_follows_and_stops(
    number: int, environment: dict[str, str], simulator: Control, empty_database_url: str, tmp_path: Path
) -> None:
    await simulator.reset(120)
    db = await asyncpg.connect(empty_database_url)
    async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=empty_database_url) as running:

        async def ready() -> bool:
            return await running.status("/readyz") == 200

        await until(ready, "ready")
        assert await running.status("/healthz") == 200
        await until(rows(db, 120), "loaded")
        await simulator.create([{}, {}])
        await until(rows(db, 122), "followed")
        assert await running.status("/status") == 200
        started = datetime.now(UTC)
        assert await running.stop(number) == 0
        assert (datetime.now(UTC) - started).total_seconds() < 10, "the contract's limit"
        assert running.events("worker_stopped")
    assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE outcome = 'running'") == 0
    await db.close()


async def test_stopped_with_a_page_in_hand_it_leaves_a_whole_copy(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1500)
    await simulator.behaviour(latency=0.1)
    async with daemon(environment, tmp_path) as running:
        await until(at_least(db, 301), "loading")
        assert await running.stop() == 0
    assert await db.fetchval("SELECT outcome FROM sync.runs ORDER BY id DESC LIMIT 1") == "stopped"
    stored = await db.fetchval("SELECT count(*) FROM partner_center.referrals")
    assert await db.fetchval("SELECT sum(inserted) FROM sync.runs") == stored, "counts and rows are one transaction"
    await simulator.behaviour(latency=0)
    async with daemon(environment, tmp_path):
        await until(rows(db, 1500), "loaded after the stop")


async def test_it_outlives_an_outage_of_the_api(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(40)
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 40), "loaded")
        await simulator.faults({"kind": "status", "status": 503, "retry_after": "0", "times": 5})

        async def failed() -> bool:
            return bool(running.events("run_failed"))

        await until(failed, "failed")
        await simulator.create([{}])
        await until(rows(db, 41), "recovered")
        assert running.process.poll() is None


async def test_it_starts_before_the_database_and_outlives_its_loss(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(40)
    port = free_port()
    away = f"postgresql://postgres@127.0.0.1:{port}/x"
    async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=away) as running:

        async def said() -> bool:
            return bool(running.events("database_unreachable"))

        await until(said, "said that the database is away")
        assert await running.status("/healthz") == 200
        assert await running.status("/readyz") == 503
        assert await running.stop() == 0
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 40), "loaded")
        own = await db.fetchval("SELECT pg_backend_pid()")
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'referral-sync' AND datname = current_database() AND pid <> $1",
            own,
        )
        await simulator.create([{}])
        await until(rows(db, 41), "recovered")


async def test_it_starts_on_a_database_that_is_read_only_and_works_once_it_is_not(
    environment: dict[str, str], simulator: Control, tmp_path: Path, empty_database_url: str
) -> None:
    """As a standby that is promoted after a while."""
    await simulator.reset(40)
    admin = await asyncpg.connect(empty_database_url)
    name = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=empty_database_url) as running:

        async def said() -> bool:
            assert running.process.poll() is None, running.output()
            return bool(running.events("database_unreachable"))

        await until(said, "said that the database is read-only")
        assert await running.status("/readyz") == 503
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

        async def loaded() -> bool:
            if await admin.fetchval("SELECT to_regclass('partner_center.referrals') IS NULL"):
                return False
            return bool(await admin.fetchval("SELECT count(*) = 40 FROM partner_center.referrals"))

        await until(loaded, "loaded")
        assert await running.stop() == 0
    await admin.close()


async def test_two_accounts_and_one_is_refused(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(30)
    other = {
        "REFERRAL_SYNC_ACCOUNTS__ADATUM__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__ADATUM__ACCESS_TOKEN": "refused-token",
    }
    async with daemon(environment, tmp_path, **other) as running:
        await until(rows(db, 30), "loaded")
        await simulator.create([{}])
        await until(rows(db, 31), "followed")
        assert await running.stop() == 0
        assert {event["account"] for event in running.events("run_failed")} == {"adatum"}


async def test_two_daemons_and_one_killed(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(30)
    async with daemon(environment, tmp_path) as first, daemon(environment, tmp_path) as second:
        await until(rows(db, 30), "loaded")
        os.kill(first.process.pid, signal.SIGKILL)
        await simulator.create([{}])
        await db.execute(
            "UPDATE sync.leases SET expires_at = now() WHERE owner LIKE '%:' || $1 || ':%'", str(first.process.pid)
        )
        await until(rows(db, 31), "taken over")
        assert await second.stop() == 0
