"""Loading a range of creation time, in windows that a ledger remembers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from worker.errors import SourceDistrusted
from worker.model.counts import Counts, ToWindow
from worker.model.instant import Instant
from worker.model.mapping import Mapped
from worker.model.odata import list_query
from worker.model.record import Page
from worker.model.strategy import Method, Reading
from worker.model.window import TimeField, Window, split, subtract
from worker.source.capabilities import bounds
from worker.source.paging import pages
from worker.source.scan import ends_after
from worker.store import ledger
from worker.store.leases import Run
from worker.store.ledger import Backfill, LedgerWindow
from worker.sync.drain import drain, writing
from worker.sync.hydrate import fuller, list_is_thin
from worker.sync.pipeline import Pipeline, Step, distrust, reading_for
from worker.sync.untimed import without_time

WINDOWS_PER_READER = 8
"""Many more windows than readers, so that a dense one does not leave the others idle."""

WRITERS = 2
"""So many transactions at once: one waits for the disk while the other sends. More were measured to add nothing."""


async def backfill(pipeline: Pipeline, run: Run, since: Instant | None, until: Instant | None) -> Counts:
    """Load every referral created in `[since, until)`; goes on where an earlier one of the same range stopped.

    A range that is loaded already costs a request for what is new. Only an unbounded backfill gives an account its
    first watermark. When the API contradicts itself, the rest is planned again with the next way of reading.
    """
    counts, unbounded = Counts(), since is None and until is None
    first = await ledger.watermark(pipeline.database, pipeline.account) is None
    while True:
        field, reading = await choose_field(pipeline, run)
        asked = Window(field, since, until if field is TimeField.CREATED else None)
        plan = await ledger.unfinished_backfill(pipeline.database, pipeline.account, field, asked)
        if plan is None:
            plan = await _plan(pipeline, run, asked, reading)
        try:
            counts += await _read(pipeline, run, plan, reading)
            if unbounded and reading.method is Method.KEYSET:
                sure = not first or await _order_hides_nothing(pipeline, field)
                counts += await _read_untimed(pipeline, run, field, sure=sure)
        except SourceDistrusted as why:
            await distrust(pipeline, field, reading, why)
        else:
            await ledger.backfill_loaded(pipeline.database, run, plan, sets_watermark=unbounded)
            return counts


async def choose_field(pipeline: Pipeline, run: Run) -> tuple[TimeField, Reading]:
    """Return the field whose windows can be asked for: creation time, which no edit moves, else update time.

    Where neither can be filtered, update time all the same: then there is one window, read as a whole.
    """
    created = await reading_for(pipeline, run, TimeField.CREATED)
    if created.method is Method.KEYSET:
        return TimeField.CREATED, created
    return TimeField.UPDATED, await reading_for(pipeline, run, TimeField.UPDATED)


async def windows_to_read(pipeline: Pipeline, asked: Window, reading: Reading) -> list[Window]:
    """Cut what is asked for into windows over the range that the source shows, or not at all where it cannot be cut."""
    if reading.method is not Method.KEYSET:
        return [asked]
    ends = await bounds(pipeline.client, asked.field)
    if ends.oldest is None or ends.newest is None:
        return [asked]
    first, last = max(ends.oldest, asked.lower or ends.oldest), min(ends.newest, asked.upper or ends.newest)
    return split(asked, first, last, WINDOWS_PER_READER * pipeline.concurrency)


async def newest_updated(pipeline: Pipeline, run: Run) -> Instant | None:
    """Return the newest `updatedDateTime` that the source shows now, or None where it keeps no order to ask for it."""
    reading = await reading_for(pipeline, run, TimeField.UPDATED)
    return (await bounds(pipeline.client, TimeField.UPDATED)).newest if reading.method is not Method.SWEEP else None


async def _plan(pipeline: Pipeline, run: Run, asked: Window, reading: Reading) -> Backfill:
    newest = await newest_updated(pipeline, run)
    covered = await ledger.covered(pipeline.database, pipeline.account, asked.field)
    missing = subtract(asked, covered) if reading.method is Method.KEYSET else [asked]
    whole = await windows_to_read(pipeline, asked, reading) if missing == [asked] else missing
    return await ledger.plan_backfill(pipeline.database, run, asked, whole, newest)


async def _read(pipeline: Pipeline, run: Run, plan: Backfill, reading: Reading) -> Counts:
    """Let the readers take window after window until none is left; they share two writers."""
    pending = list(plan.pending)
    await list_is_thin(pipeline, run)  # before the readers start, so that not each of them looks
    counts, done = Counts(), plan.windows - len(plan.pending)

    def report() -> None:
        pipeline.progress(Step(pipeline.account, "backfill", counts, done, plan.windows))

    def observe(_: Mapped, saved: Counts) -> None:
        nonlocal counts
        counts += saved
        report()

    async def reader() -> None:
        nonlocal done
        while pending:
            part = pending.pop()  # the newest first: there are the most, and nobody has to wait for them at the end
            writer = min(writers, key=lambda one: one.waiting)
            await drain(
                fuller(pipeline, run, pages(pipeline.client, part.window, reading)), writer, partial(_to_window, part)
            )
            await writer.move(ToWindow(part.id, None, 0, done=True))
            done += 1
            report()

    report()
    readers = min(pipeline.concurrency, len(plan.pending))
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(writing(pipeline.database, run, observe))
            for _ in range(min(readers, WRITERS))
        ]
        async with asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(reader())
    return counts


async def _order_hides_nothing(pipeline: Pipeline, field: TimeField) -> bool:
    """Say whether the listing was seen to end with the same number of records with an order by `field` and without.

    Asked at the number that the copy has: where that is not it, this is not seen in two requests, and not said.
    """
    stored = await ledger.live_count(pipeline.database, pipeline.account)
    client, ordered = pipeline.client, list_query(field=field)
    return await ends_after(client, stored, ordered) and await ends_after(client, stored)


async def _read_untimed(pipeline: Pipeline, run: Run, field: TimeField, *, sure: bool) -> Counts:
    """Load the records that no window of a field can hold.

    They are looked for where an end of the listing shows that there are any, and where it is not sure that there are
    none: a server may leave them out of an ordered listing, and the first watermark must not pass them.
    """
    counts = Counts()

    def observe(_: Mapped, saved: Counts) -> None:
        nonlocal counts
        counts += saved

    if not sure or (await bounds(pipeline.client, field)).untimed:
        async with writing(pipeline.database, run, observe) as writer:
            await drain(fuller(pipeline, run, without_time(pipeline, run, field)), writer, lambda _: None)
    return counts


def _to_window(part: LedgerWindow, page: Page) -> ToWindow:
    return ToWindow(part.id, page.through, len(page.records))
