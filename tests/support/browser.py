"""A real browser that shows a page."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

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
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return output.decode()
