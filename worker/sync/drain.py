"""The heart: read a window page by page, and save each page with how far it is complete."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from worker.model.counts import Checkpoint, Counts
from worker.model.mapping import Mapped, MappedPage
from worker.model.record import Page
from worker.store.database import Database
from worker.sync.run import Run, store

GROUP_ROWS = 1_000
"""So many records go into one transaction at most, unless a single page has more; so many may wait for the next."""

Observe = Callable[[Mapped, Counts], None]
"""Called with what was stored together, and its counts."""


async def drain(pages: AsyncGenerator[MappedPage], writer: Writer, checkpoint: Callable[[Page], Checkpoint]) -> None:
    """Hand every page of a window to a writer; while it writes, the next page is being fetched.

    `checkpoint` returns what a page moves, in the page's own transaction. After any failure everything up to the last
    saved page stands, and the checkpoint says so: the next run goes on there.
    """
    async with aclosing(pages):
        async for one in pages:
            await writer.put(one.mapped, checkpoint(one.page))


class Writer:
    """Saves pages in the order in which they come; make it with `writing`.

    What has come while it wrote goes together into the next transaction: few and large ones when it is busy, else each
    page at once. All pages of a window go through one writer, for none may be stored before the one before.
    """

    def __init__(self, database: Database, run: Run, observe: Observe) -> None:
        self._database = database
        self._run = run
        self._observe = observe
        self._waiting = deque[tuple[Mapped, int, Checkpoint]]()
        self._closed = False
        lock = asyncio.Lock()
        self._came = asyncio.Condition(lock)
        self._left = asyncio.Condition(lock)

    @property
    def waiting(self) -> int:
        """How many records wait to be saved."""
        return sum(mapped.records for mapped, _, _ in self._waiting)

    async def put(self, mapped: Mapped, checkpoint: Checkpoint) -> None:
        """Take a page, and wait while as much waits already as one transaction takes."""
        await self._put(mapped, 1, checkpoint)

    async def move(self, checkpoint: Checkpoint) -> None:
        """Move a checkpoint once everything before is stored."""
        await self._put(Mapped(), 0, checkpoint)

    async def close(self) -> None:
        """Let it end when nothing waits any more."""
        async with self._came:
            self._closed = True
            self._came.notify_all()

    async def work(self) -> None:
        """Save until closed and nothing waits."""
        while True:
            async with self._came:
                await self._came.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                mapped, pages, checkpoints = self._group()
                self._left.notify_all()
            saved = await store(self._database, self._run, mapped, pages=pages, checkpoints=checkpoints)
            self._observe(mapped, saved)

    async def _put(self, mapped: Mapped, pages: int, checkpoint: Checkpoint) -> None:
        async with self._left:
            await self._left.wait_for(lambda: self.waiting < GROUP_ROWS)
            self._waiting.append((mapped, pages, checkpoint))
            self._came.notify()

    def _group(self) -> tuple[Mapped, int, list[Checkpoint]]:
        """Take what waits, in its order, up to what one transaction takes."""
        group, pages, checkpoint = self._waiting.popleft()
        checkpoints = [checkpoint]
        while self._waiting and group.records + self._waiting[0][0].records <= GROUP_ROWS:
            mapped, more, checkpoint = self._waiting.popleft()
            group.rows += mapped.rows
            group.rejects += mapped.rejects
            pages += more
            checkpoints.append(checkpoint)
        return group, pages, checkpoints


@asynccontextmanager
async def writing(database: Database, run: Run, observe: Observe) -> AsyncIterator[Writer]:
    """Open a writer; at the end everything that came is saved, also when the listing failed.

    When the writer fails, whoever reads for it is stopped at once. Raises what either raised first.
    """
    writer = Writer(database, run, observe)
    try:
        async with asyncio.TaskGroup() as group:
            saving = group.create_task(writer.work())
            try:
                yield writer
            except Exception:
                await writer.close()
                await asyncio.wait([saving])
                raise
            await writer.close()
            await saving
    except BaseExceptionGroup as failures:
        raise _first_of(failures) from None


def _first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what failed first in a group of tasks."""
    first = failures.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
