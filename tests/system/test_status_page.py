"""The status page of a real daemon in a real browser: drawn, quiet, and readable in light, dark and on a phone."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest

from tests.support.browser import browse
from tests.support.conditions import until
from tests.support.daemon import daemon
from worker.demo.control import Control


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", ["--window-size=1100,1300"]),
        ("dark", ["--window-size=1100,1300", "--blink-settings=preferredColorScheme=0"]),
        ("narrow", ["--window-size=500,2000"]),
    ],
)
async def test_it_is_drawn(
    look: str,
    options: list[str],
    environment: dict[str, str],
    simulator: Control,
    db: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    await simulator.reset(300)
    second = {
        "REFERRAL_SYNC_ACCOUNTS__FABRIKAM__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__FABRIKAM__ACCESS_TOKEN": "never-issued",
    }
    async with daemon(environment, tmp_path, **second) as running:

        async def both() -> bool:
            counts = await db.fetch("SELECT outcome, count(*) AS runs FROM sync.runs GROUP BY 1")
            found = {row["outcome"]: row["runs"] for row in counts}
            return bool(found.get("done", 0) > 6 and found.get("refused", 0) > 1)

        await until(both, "one good, one refused")
        await db.execute("UPDATE sync.watermarks SET verified_through = checkpoint, verified_at = now()")
        dom = await browse(tmp_path, running.origin + "/", "--dump-dom")
        assert "Fresh, and verified complete." in dom
        assert "Action required." in dom
        assert "referral-sync check" in dom, "what to do stands beside it"
        assert "<script" not in dom
        kept = os.environ.get("PICTURES")
        picture = (Path(kept) if kept else tmp_path) / f"status-{look}.png"
        await browse(tmp_path, running.origin + "/", *options, f"--screenshot={picture}")
        assert picture.stat().st_size > 40_000, "an empty page is smaller"
        assert await running.stop() == 0
