"""Backfilling a range of creation time, in windows that a ledger remembers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial

from worker.errors import SourceContradicted
from worker.model.counts import Counts, WindowCheckpoint
from worker.model.instant import Instant
from worker.model.mapping import Mapped
from worker.model.odata import list_query
from worker.model.record import Ended, Page
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window, split, subtract
from worker.source.capabilities import bounds
from worker.source.paging import pages
from worker.source.scan import ends_after
from worker.store import backfills, checkpoints
from worker.store.backfills import Backfill, LedgerWindow
from worker.sync.drain import Writer, drain, writing
from worker.sync.hydrate import hydrated, list_is_partial
from worker.sync.pipeline import Pipeline, Step
from worker.sync.run import Run
from worker.sync.strategy import downgrade, ends_of, strategy_for
from worker.sync.untimed import elsewhere

WINDOWS_PER_READER = 8
"""Many more windows than readers, so that a dense one does not leave the others idle."""

FIRST_LOOK_SECONDS, OTHERS_SECONDS = 0.05, 1.0
"""How soon a run looks whether windows that others read are done or free again, and how often after a while."""

WRITERS = 2
"""So many transactions at once: one waits for the disk while the other sends. More were measured to add nothing."""


@dataclass(frozen=True, slots=True)
class Share:
    """What of a backfill one run does: with how many readers, and for how long until it gives way to other accounts.

    Reading stops at the end of a page whose checkpoint is stored; after `early` seconds already where it has read
    `enough` records by then to show that the account is a large one. With `busy` it goes on while this process mostly
    waits: for a source that is slow, more processes are of no use.
    """

    readers: int
    seconds: float = math.inf
    early: float = math.inf
    enough: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class _Clock:
    """When reading began, by the clock and by the CPU time of this process."""

    at: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)

    def is_over(self, share: Share, records: int) -> bool:
        """Say whether a share ends now, with so many records read."""
        passed = time.monotonic() - self.at
        late = passed >= share.seconds or (passed >= share.early and records >= share.enough)
        return late and (not share.busy or time.process_time() - self.cpu >= passed / 2)


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What a run of a backfill came to.

    `whole` says whether every window is done; if not, `free` says how many windows nobody reads at the moment.
    """

    counts: Counts
    whole: bool
    free: int = 0


async def backfill(
    pipeline: Pipeline, run: Run, since: Instant | None, until: Instant | None, share: Share | None = None
) -> BackfillResult:
    """Backfill every referral created in `[since, until)`; goes on where an earlier one of the same range stopped.

    A range that is done already costs a request for what is new. Only an unbounded backfill gives an account its
    first watermark. When the API contradicts itself, the rest is planned again with the next paging strategy. Windows
    that others read are waited for, unless `share` bounds the time.
    """
    share = share or Share(pipeline.concurrency)
    clock, pauses = None, looks()
    counts, unbounded = Counts(), since is None and until is None
    first = await checkpoints.watermark(pipeline.database, pipeline.account) is None
    while True:
        field, strategy = await choose_field(pipeline, run)
        asked = _asked(field, since, until)
        plan = await backfills.unfinished_backfill(pipeline.database, pipeline.account, field, asked)
        if plan is None:
            plan = await _plan(pipeline, run, asked, strategy)
        clock = clock or _Clock()
        try:
            counts += await _read(pipeline, run, plan, strategy, share, clock)
            left = await backfills.backfill_progress(pipeline.database, plan.id)
            if not left.whole:
                if share.seconds < math.inf:
                    return BackfillResult(counts, whole=False, free=left.free)
                pipeline.progress(Step(pipeline.account, "backfill", counts, left.done, left.windows))
                await asyncio.sleep(next(pauses))
                continue
            if unbounded and strategy.paging is Paging.KEYSET:
                sure = not first or await _order_hides_nothing(pipeline, field)
                if not sure or (await bounds(pipeline.client, field)).untimed:
                    counts += await _read_untimed(pipeline, run, field)
        except SourceContradicted as why:
            await downgrade(pipeline, field, strategy, why)
            await backfills.release_windows(pipeline.database, run.lease)
        else:
            whole = await backfills.finish_backfill(pipeline.database, run.lease, plan, sets_watermark=unbounded)
            return BackfillResult(counts, whole=whole)


def looks() -> Iterator[float]:
    """Yield how long to wait before each look at the windows that others read, most of which are nearly done."""
    pause = FIRST_LOOK_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, OTHERS_SECONDS)


async def help_backfill(
    pipeline: Pipeline, run: Run, plan: Backfill, strategy: Strategy, share: Share
) -> BackfillResult:
    """Read windows of a backfill that another run has planned, as long as some are free and the share lasts.

    `whole` says that no window is left; declaring the backfill complete is for the run that has its lease.
    """
    try:
        counts = await _read(pipeline, run, plan, strategy, share, _Clock())
    except SourceContradicted as why:
        await downgrade(pipeline, plan.field, strategy, why)
        counts = Counts()
    left = await backfills.backfill_progress(pipeline.database, plan.id)
    return BackfillResult(counts, whole=left.whole, free=left.free)


async def planned(pipeline: Pipeline, since: Instant | None, until: Instant | None) -> tuple[Backfill, Strategy] | None:
    """Return the backfill of this range that is under way and has windows that nobody reads, and how it is read."""
    field, strategy = await choose_field(pipeline, None)
    plan = await backfills.unfinished_backfill(pipeline.database, pipeline.account, field, _asked(field, since, until))
    if plan is None or strategy.paging is not Paging.KEYSET:
        return None
    left = await backfills.backfill_progress(pipeline.database, plan.id)
    return (plan, strategy) if left.free else None


def _asked(field: TimeField, since: Instant | None, until: Instant | None) -> Window:
    return Window(field, since, until if field is TimeField.CREATED else None)


async def choose_field(pipeline: Pipeline, run: Run | None) -> tuple[TimeField, Strategy]:
    """Return the field whose windows can be asked for: creation time, which no edit moves, else update time.

    Where neither can be filtered, update time all the same: then there is one window, read as a whole.
    """
    created = await strategy_for(pipeline, run, TimeField.CREATED)
    if created.paging is Paging.KEYSET:
        return TimeField.CREATED, created
    return TimeField.UPDATED, await strategy_for(pipeline, run, TimeField.UPDATED)


async def windows_to_read(pipeline: Pipeline, asked: Window, strategy: Strategy) -> list[Window]:
    """Cut what is asked for into windows over the range that the source shows.

    Or not at all, where it cannot be cut or a page seems to hold all of it.
    """
    if strategy.paging is not Paging.KEYSET:
        return [asked]
    ends = await ends_of(pipeline, asked.field)
    if ends.oldest is None or ends.newest is None or ends.one_page:
        return [asked]
    first, last = max(ends.oldest, asked.lower or ends.oldest), min(ends.newest, asked.upper or ends.newest)
    return split(asked, first, last, WINDOWS_PER_READER * pipeline.concurrency)


async def newest_updated(pipeline: Pipeline, run: Run) -> Instant | None:
    """Return the newest `updatedDateTime` that the source shows now, or None where it keeps no order to ask for it."""
    strategy = await strategy_for(pipeline, run, TimeField.UPDATED)
    return (await ends_of(pipeline, TimeField.UPDATED)).newest if strategy.paging is not Paging.SWEEP else None


async def _plan(pipeline: Pipeline, run: Run, asked: Window, strategy: Strategy) -> Backfill:
    newest = await newest_updated(pipeline, run)
    covered = await backfills.covered(pipeline.database, pipeline.account, asked.field)
    missing = subtract(asked, covered) if strategy.paging is Paging.KEYSET else [asked]
    whole = await windows_to_read(pipeline, asked, strategy) if missing == [asked] else missing
    return await backfills.plan_backfill(pipeline.database, run.lease, asked, whole, newest)


async def _read(
    pipeline: Pipeline, run: Run, plan: Backfill, strategy: Strategy, share: Share, clock: _Clock
) -> Counts:
    """Let the readers take window after window until none is free, or the time is over; they share two writers.

    The newest window is taken first: there are the most records, and nobody has to wait for them at the end.
    """
    await list_is_partial(pipeline, run)  # before the readers start, so that not each of them looks
    counts, done, cuts = Counts(), plan.windows - len(plan.pending), 0

    def over() -> bool:
        return strategy.paging is Paging.KEYSET and clock.is_over(share, counts.records)

    def report() -> None:
        pipeline.progress(Step(pipeline.account, "backfill", counts, done, plan.windows))

    def observe(_: Mapped, saved: Counts) -> None:
        nonlocal counts
        counts += saved
        report()

    async def reader() -> None:
        nonlocal done, cuts
        while not over():
            part = await backfills.claim_window(pipeline.database, run.lease, plan)
            if part is None:
                return
            cut = Cut(pages(pipeline.client, part.window, strategy), over)
            await _read_window(pipeline, run, plan, part, cut, min(writers, key=lambda one: one.waiting))
            cuts += cut.off
            done += not cut.off
            report()

    report()
    readers = min(share.readers, len(plan.pending))
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(writing(pipeline.database, run, observe))
            for _ in range(min(readers, WRITERS))
        ]
        async with asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(reader())
    if cuts:
        await backfills.release_windows(pipeline.database, run.lease)
    return counts


async def _read_window(
    pipeline: Pipeline, run: Run, plan: Backfill, part: LedgerWindow, cut: Cut, writer: Writer
) -> None:
    """Read a window to its end, or until it is broken off."""
    await drain(hydrated(pipeline, run, cut.pages()), writer, partial(_window_checkpoint, part))
    if not cut.verified:
        await backfills.drop_newest(pipeline.database, run.lease, plan)
    if not cut.off:
        await writer.move(WindowCheckpoint(part.id, None, 0, done=True))


async def _order_hides_nothing(pipeline: Pipeline, field: TimeField) -> bool:
    """Return whether the listing was seen to end with the same number of records with an order by `field` and without.

    Asked at the number that the copy has: where that is not it, this is not seen in two requests, and not said.
    """
    stored = await checkpoints.live_count(pipeline.database, pipeline.account)
    client, ordered = pipeline.client, list_query(field=field)
    return await ends_after(client, stored, ordered) and await ends_after(client, stored)


class Cut:
    """A listing that is broken off when its time is over, behind a page whose checkpoint says how far it goes."""

    def __init__(self, found: AsyncGenerator[Page], over: Callable[[], bool]) -> None:
        self._found = found
        self._over = over
        self.off = False
        """Whether it was broken off."""
        self.verified = True
        """Whether nothing says that its end could not be verified."""

    async def pages(self) -> AsyncGenerator[Page]:
        """Give the pages."""
        async with aclosing(self._found):
            async for page in self._found:
                yield page
                self.verified = page.ended is not Ended.UNVERIFIED
                if page.through is not None and page.ended is None and self._over():
                    self.off = True
                    return


async def _read_untimed(pipeline: Pipeline, run: Run, field: TimeField) -> Counts:
    """Read the records that no window of a field can hold.

    For where an end of the listing shows that there are any, and where it is not sure that there are none: a server may
    leave them out of an ordered listing, and the first watermark must not pass them.
    """
    counts = Counts()

    def observe(_: Mapped, saved: Counts) -> None:
        nonlocal counts
        counts += saved

    async with writing(pipeline.database, run, observe) as writer:
        await drain(hydrated(pipeline, run, elsewhere(pipeline, run, field)), writer, lambda _: None)
    return counts


def _window_checkpoint(part: LedgerWindow, page: Page) -> WindowCheckpoint:
    return WindowCheckpoint(part.id, page.through, len(page.records))
