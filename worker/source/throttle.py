"""The limit on one account's concurrent requests: as many as there are readers, until the API says less."""

from __future__ import annotations

import asyncio
import time
from typing import Self

_EASE_AFTER = 100
"""So many answers without a 429 let one more request through at once."""


class Throttle:
    """Entered around each request. A 429 halves what may be under way, and holds everything back while it asks to."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._under_way = 0
        self._limit: int | None = None
        self._succeeded = 0
        self._closed_until = 0.0

    @property
    def limit(self) -> int | None:
        """How many requests may be under way; None while the API never asked for less."""
        return self._limit

    async def throttled(self, seconds: float) -> None:
        """Record a 429 that asks for a pause of some seconds, or of none."""
        async with self._changed:
            self._limit, self._succeeded = max(1, self._under_way // 2), 0
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    async def succeeded(self) -> None:
        """Record an answer that was no 429."""
        if self._limit is None:
            return
        async with self._changed:
            self._succeeded += 1
            if self._succeeded >= _EASE_AFTER:
                self._limit, self._succeeded = self._limit + 1, 0
                self._changed.notify_all()

    async def __aenter__(self) -> Self:
        async with self._changed:
            await self._changed.wait_for(lambda: self._limit is None or self._under_way < self._limit)
            self._under_way += 1
        try:
            await asyncio.sleep(max(0.0, self._closed_until - time.monotonic()))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
