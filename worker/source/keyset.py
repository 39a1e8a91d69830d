"""Keyset paging: filtered by time in ascending order, each request beginning at the last time seen.

Links are followed only within a group of equal times that is longer than a page. That no link came ends nothing: a
window ends where records at or above its upper bound are shown, or where a look from the other end of the listing
shows nothing newer than what was read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

from worker.errors import SourceContradicted
from worker.model.instant import Instant, shift
from worker.model.odata import list_query
from worker.model.record import Ended, Listing, Page, Record
from worker.model.strategy import Strategy
from worker.model.window import Window
from worker.source import checks
from worker.source.checks import (
    MAX_LOOKS,
    ROUNDING,
    Anchor,
    Passes,
    beyond,
    holds,
    key_of,
    leaves_out,
    newest_of,
    times_of,
)
from worker.source.client import Client
from worker.source.links import linked

LOOK_BACK = (timedelta(seconds=1), ROUNDING)
TIE_PASSES = 10
END_LOOKS = 4
"""So often the end of a window is looked for where two answers contradict each other: a busy source moves."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """Where the next request begins: a time, and the records seen before that have it."""

    time: Instant
    records: list[Record]


async def keyset(client: Client, window: Window, strategy: Strategy, anchor: Anchor | None) -> AsyncGenerator[Page]:
    """Read a window from its lower bound up."""
    bound: _Bound | None = None
    doubts = 0
    while True:
        at = bound.time if bound is not None else window.lower
        listing = await _ask(client, window, strategy, at)
        if bound is not None:
            listing = await _overlapping(client, window, strategy, bound, listing)
        newest = newest_of(listing.records, window.field)
        moved = newest is not None and (at is None or newest > at)
        tied = listing.next_link is not None and not moved and not beyond(window, newest)
        ended = None if tied else await _end(client, window, strategy, listing, at, anchor if bound is None else None)
        if anchor is not None:
            anchor = await _check_anchor(client, window, strategy, anchor, listing, done=ended is not None)
        if ended is not None or moved:
            records = _without_repeated(listing.records, bound)
            yield Page(records, _through(listing, window, done=ended is not None), listing.observed_at, ended)
            if ended is not None:
                return
            bound, doubts = _bound_of(listing, window, newest), 0
        elif tied:
            onward = None
            async for page, after in _ties(client, window, strategy, at, listing):
                yield page
                onward = after
            if onward is None:
                return
            bound = onward
        else:
            doubts += 1
            if doubts >= END_LOOKS:
                raise SourceContradicted(
                    f"By {window.field.value} the API shows records from one end of its listing and not from the other."
                )


def _bound_of(listing: Listing, window: Window, newest: Instant | None) -> _Bound | None:
    return None if newest is None else _Bound(newest, [r for r in listing.records if r.time(window.field) == newest])


def _without_repeated(records: list[Record], bound: _Bound | None) -> list[Record]:
    """Leave out what the page before showed word for word: it shows that the two join, and would be counted twice."""
    shown = {record.raw for record in bound.records} if bound is not None else set()
    return [record for record in records if record.raw not in shown]


async def _ask(client: Client, window: Window, strategy: Strategy, lower: Instant | None) -> Listing:
    """Ask for the window from `lower` on, and check that the answer keeps to the filter and the order."""
    upper = window.upper if strategy.bounded_above else None
    return await _asked(client, Window(window.field, lower, upper), strategy)


async def _asked(client: Client, window: Window, strategy: Strategy) -> Listing:
    query = list_query(field=window.field, lower=window.lower, upper=window.upper, quoted=strategy.quoted)
    listing = await client.list(query)
    checks.check_filter(listing.records, window.field, window.lower)
    checks.check_order(listing.records, window.field, descending=False)
    return listing


# -- the end of a window -------------------------------------------------------------------------------------------


async def _end(
    client: Client, window: Window, strategy: Strategy, listing: Listing, at: Instant | None, anchor: Anchor | None
) -> Ended | None:
    """Say how it is verified that a window ends with this answer; None where more may come.

    `anchor` is given with the first answer only. An answer that shows it as the newest, and less than a page, ends the
    window without a further request: nothing moves, so whatever it left out is still above the watermark.
    """
    newest = newest_of(listing.records, window.field)
    if beyond(window, newest):
        return Ended.ORDER
    if listing.next_link is not None:
        return None
    if _shows_anchor(listing, anchor, newest) and len(listing.records) < (strategy.page_size or client.largest_page):
        return Ended.ANCHOR
    known = {key_of(record) for record in listing.records if record.time(window.field) == newest}
    if window.upper is not None and strategy.bounded_above:
        top = newest if newest is not None else at
        onward = (await _asked(client, Window(window.field, top), strategy)).records
        fresh = [r for r in onward if (time := r.time(window.field)) is not None and holds(window, time)]
        if not {key_of(record) for record in fresh} <= known:
            return None
        if any(beyond(window, time) for time in times_of(onward, window.field)):
            return Ended.ORDER
    return await _seen_from_above(client, window, at, newest, known)


def _shows_anchor(listing: Listing, anchor: Anchor | None, newest: Instant | None) -> bool:
    return anchor is not None and newest == anchor.time and any(r.id == anchor.id for r in listing.records)


async def _seen_from_above(
    client: Client, window: Window, at: Instant | None, newest: Instant | None, known: set[str | bytes]
) -> Ended | None:
    """Look at the newest records of the whole listing, without a filter: what was read, or older.

    `known` are the records that were read of the newest time. They are all of it when an older one follows them, or
    when there is none.
    """
    top, group, whole = await _from_above(client, window)
    if top is None or (newest is None and ((at is not None and top < at) or beyond(window, top))):
        return Ended.BOTH_ENDS if newest is None else None
    if newest is None or top > newest:
        return None
    if top < newest:
        return Ended.BOTH_ENDS  # what was the newest was deleted meanwhile
    if not group <= known:
        return None
    if not whole:
        oldest = times_of((await client.list(list_query(field=window.field))).records, window.field)
        if any(time < newest for time in oldest):
            raise SourceContradicted(
                f"A group of equal {window.field.value} is as long as a page, and no link leads on.", lasting=False
            )
    return Ended.BOTH_ENDS


async def _from_above(client: Client, window: Window) -> tuple[Instant | None, set[str | bytes], bool]:
    """Read the listing from its newest record down, until its newest time is over.

    Returns that time, the records that have it, and whether an older one followed them, so that these are all.
    """
    field, top, group = window.field, None, set[str | bytes]()
    first = await client.list(list_query(field=field, descending=True))
    async for part, _ in linked(client, first):
        checks.check_order(part.records, field, descending=True)
        top = top if top is not None else newest_of(part.records, field)
        group |= {key_of(record) for record in part.records if record.time(field) == top}
        if top is not None and any(time < top for time in times_of(part.records, field)):
            return top, group, True
    return top, group, False


def _through(listing: Listing, window: Window, *, done: bool) -> Instant | None:
    """Return how far a window is complete with this answer: more records may have its last time, unless it ends."""
    newest = checks.sane_newest(listing, window.field)
    if window.upper is None:
        return newest
    return window.upper if done else min(newest, window.upper) if newest is not None else None


# -- what each answer must show ------------------------------------------------------------------------------------


async def _overlapping(client: Client, window: Window, strategy: Strategy, bound: _Bound, listing: Listing) -> Listing:
    """Make sure that this answer begins where the last one ended: it must show a record seen before at its bound.

    When it does not, those records were edited meanwhile, or the server rounds its literal up: the bound is read again
    a little lower, where other known records may lie. A server that still differs contradicts itself, unless the
    records of the bound have really moved, which is seen by id.
    """
    field, known = window.field, {record.id for record in bound.records}
    if any(record.id in known for record in listing.records):
        return listing
    for lower in (shift(bound.time, -step) for step in LOOK_BACK):
        again = await _ask(client, window, strategy, max(lower, window.lower or lower))
        if any(record.id in known for record in again.records):
            return again
    lacking = {record.id: bound.time for record in bound.records[:MAX_LOOKS] if record.id}
    if await leaves_out(client, field, lacking):
        raise SourceContradicted(f"The API left out records at the bound of a filter on {field.value}.")
    return listing


async def _check_anchor(
    client: Client, window: Window, strategy: Strategy, anchor: Anchor, listing: Listing, *, done: bool
) -> Anchor | None:
    """Look for the record that the window must show; returns it while it can still come on a later page."""
    newest = newest_of(listing.records, window.field)
    if any(record.id == anchor.id for record in listing.records):
        return None
    if not done and (newest is None or newest <= anchor.time):
        return anchor
    now = await client.fetch(anchor.id)
    time = now.records[0].time(window.field) if now is not None else None
    if time is None:
        return None
    if not done and newest is not None and time > newest:
        return Anchor(anchor.id, time)
    again = await _ask(client, window, strategy, time) if time > anchor.time else None
    if again is None or not any(record.id == anchor.id for record in again.records):
        raise SourceContradicted(f"The API's filter on {window.field.value} left out a record that it shows by id.")
    return None


# -- groups of equal times -----------------------------------------------------------------------------------------


async def _ties(
    client: Client, window: Window, strategy: Strategy, at: Instant | None, listing: Listing
) -> AsyncGenerator[tuple[Page, _Bound | None]]:
    """Read a group of equal times that is longer than a page: by links, until all its records are known.

    Only then does `through` pass the group. Beside each page stands what comes after the group; with the last one
    None says that nothing does.
    """
    field, passes = window.field, Passes()
    if not strategy.links:
        raise SourceContradicted(
            f"A group of equal {field.value} is longer than a page, and links were not seen to hold."
        )
    for _ in range(TIE_PASSES):
        shown, after = list[str | bytes](), None
        async for part, _last in linked(client, listing):
            checks.check_filter(part.records, field, window.lower)
            yield Page(part.records, None, part.observed_at), None
            shown += [key_of(record) for record in part.records if record.time(field) in (None, at)]
            later = [record for record in part.records if (record.time(field) or 0) > (at or 0)]
            if later:
                time = min(times_of(later, field))
                after = _Bound(time, [record for record in later if record.time(field) == time])
                break
        agreed = passes.agree(shown)
        if agreed and after is not None:
            ends = beyond(window, after.time)
            through = _through_ties(window, after.time, checks.latest_allowed(listing))
            yield Page([], through, listing.observed_at, Ended.ORDER if ends else None), None if ends else after
            return
        if agreed and await _seen_from_above(client, window, at, at, passes.records):
            through = window.upper or _through_ties(window, at, checks.latest_allowed(listing))
            yield Page([], through, listing.observed_at, Ended.BOTH_ENDS), None
            return
        listing = await _ask(client, window, strategy, at)
    raise SourceContradicted(
        f"The API showed a group of equal {field.value} differently each time it was read.", lasting=False
    )


def _through_ties(window: Window, time: Instant | None, limit: Instant) -> Instant | None:
    ends = [one for one in (time, window.upper) if one is not None]
    return min(ends) if ends and min(ends) <= limit else None
