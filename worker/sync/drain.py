"""The heart: read a window page by page, and save each page with how far it is complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Self

from worker.core.mapping import map_pages
from worker.core.outcome import Advance, Counts
from worker.core.page import Page
from worker.store.leases import Run
from worker.store.pool import Database
from worker.store.save import save

Observe = Callable[[Page, Counts], Awaitable[None]]
"""Told of each page once it is stored, with what came of it."""


async def drain(
    pages: AsyncGenerator[Page],
    database: Database,
    run: Run,
    advance: Callable[[Page], Advance],
    observe: Observe,
) -> Counts:
    """Save every page of a window; while one is written, the next is being fetched, and no more are held.

    `advance` says which position a page moves, in the page's own transaction. After any failure everything up to the
    last saved page stands, and the position says so: the next run goes on there.
    """
    counts = Counts()
    async with aclosing(pages), _Next(pages) as upcoming:
        while (page := await upcoming.get()) is not None:
            began = time.perf_counter()
            mapped = map_pages([page])
            run.unknown_fields |= mapped.unknown_fields
            run.map_seconds += (sent := time.perf_counter()) - began
            saved = await save(database, run, mapped, pages=1, advance=advance(page))
            run.store_seconds += time.perf_counter() - sent
            counts += saved
            await observe(page, saved)
    return counts


class _Next:
    """The page after the one in hand, being fetched already."""

    def __init__(self, pages: AsyncGenerator[Page]) -> None:
        self._pages = pages
        self._task = asyncio.create_task(self._fetch())

    async def _fetch(self) -> Page | None:
        return await anext(self._pages, None)

    async def get(self) -> Page | None:
        page = await self._task
        if page is not None:
            self._task = asyncio.create_task(self._fetch())
        return page

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
