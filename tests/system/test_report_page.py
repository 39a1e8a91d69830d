"""The report in a real browser: nothing runs, nothing is fetched, and it is readable in light, dark and on a phone."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.test_pgbouncer import command
from worker.demo.control import Control

CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


async def browse(folder: Path, page: str, *options: str) -> str:
    """Open the page at an address in a browser with a profile of its own; what it prints."""
    process = await asyncio.create_subprocess_exec(
        shutil.which("chromium") or "/usr/bin/chromium",
        *CHROMIUM,
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    return told.decode()


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", ["--window-size=1100,1900"]),
        ("dark", ["--window-size=1100,1900", "--blink-settings=preferredColorScheme=0"]),
        ("narrow", ["--window-size=500,3000"]),
    ],
)
async def test_it_is_drawn(
    look: str, options: list[str], environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(300)
    await simulator.create(
        [{"name": "<script>document.title='owned'</script>", "status": "New", "substatus": "Pending"}]
    )
    assert (await command(environment, tmp_path, "sync"))[0] == 0
    page = tmp_path / "report.html"
    code, told = await command(environment, tmp_path, "report", "--out", str(page))
    assert code == 0, told
    dom = await browse(tmp_path, page.as_uri(), "--dump-dom")
    assert "<title>Referrals of contoso</title>" in dom, "no script has changed it"
    assert "<script" not in dom
    picture = tmp_path / f"{look}.png"
    await browse(tmp_path, page.as_uri(), *options, f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000, "an empty page is smaller"
