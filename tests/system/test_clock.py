"""A wall clock that is set while the daemon runs: its schedule goes on."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from tests.support.conditions import until
from tests.support.daemon import daemon
from worker.demo.control import Control

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("missing"))


@pytest.mark.parametrize("step", ["-1d", "+1d"])
async def test_the_schedule_goes_on_when_the_clock_is_set(
    step: str, environment: dict[str, str], tmp_path: Path, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(20)
    offset = tmp_path / "offset"
    offset.write_text("+0", encoding="ascii")
    clock = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with daemon(environment | clock, tmp_path, REFERRAL_SYNC_SCHEDULE__INCREMENTAL="2s") as worker:

        async def ran(more_than: int) -> bool:
            runs = await db.fetchval("SELECT count(*) FROM sync.runs WHERE outcome = 'done'")
            return bool(runs > more_than)

        async def migrated() -> bool:
            return bool(await db.fetchval("SELECT to_regclass('sync.runs') IS NOT NULL"))

        await until(migrated, "migrated")
        await until(lambda: ran(2), "run on its schedule")
        before = await db.fetchval("SELECT count(*) FROM sync.runs")
        offset.write_text(step, encoding="ascii")
        await until(lambda: ran(before + 2), "run again after the clock was set", 60)
        assert await worker.status("/healthz") == 200
