"""What the suite shortens, at its real length: a daemon paused beyond its lease, and one that takes over."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import asyncpg

from tests.support.conditions import at_least, until
from tests.support.daemon import daemon
from tests.support.steps import TALLY, assert_chain, assert_same_as_source
from worker.demo.control import Control


async def test_taken_over_within_a_minute_and_refused_afterwards(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(3000)
    await simulator.behaviour(page_size=20, latency=0.05)
    hourly = {"REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1h"}

    async def taken_over() -> bool:
        return bool(await db.fetchval("SELECT count(*) FROM sync.runs WHERE kind = 'backfill'") == 2)

    async with daemon(environment, tmp_path, **hourly) as first:
        await until(at_least(db, 101), "loading")
        async with daemon(environment, tmp_path, **hourly) as second:
            os.kill(first.process.pid, signal.SIGSTOP)
            paused = time.monotonic()
            await until(taken_over, "taken over", patience=90)
            seconds = time.monotonic() - paused
            TALLY[f"seconds until taken over: {seconds:.0f};"] += 1
            assert seconds < 60, "the contract's minute"
            await simulator.behaviour(latency=0)

            async def loaded() -> bool:
                return bool(await db.fetchval("SELECT count(*) = 3000 FROM partner_center.referrals"))

            await until(loaded, "loaded", patience=90)
            stored = await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id")
            os.kill(first.process.pid, signal.SIGCONT)

            async def refused() -> bool:
                return bool(first.events("lease_waiting") or first.events("run_failed"))

            await until(refused, "refused")
            assert await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id") == stored
            assert await second.stop() == 0
            assert await first.stop() == 0
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
