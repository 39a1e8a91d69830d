"""Conditions that tests wait for: never a pause and a hope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

PATIENCE = 90.0
"""Seconds; the pauses between the attempts of a request alone can come to half a minute."""


async def until(condition: Callable[[], Awaitable[object]], what: str, patience: float = PATIENCE) -> None:
    """Wait for something to become true; fails when it does not."""
    deadline = asyncio.get_running_loop().time() + patience
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"in {patience} s not {what}"
        await asyncio.sleep(0.1)


def wait_for(reached: Callable[[], bool], otherwise: str) -> None:
    """Wait in a thread for something to become true; fails with `otherwise` when it does not."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def rows(db: asyncpg.Connection, expected: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return bool(await db.fetchval("SELECT count(*) = $1 FROM partner_center.referrals", expected))

    return reached


def at_least(db: asyncpg.Connection, number: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return bool(await db.fetchval("SELECT count(*) >= $1 FROM partner_center.referrals", number))

    return reached
