"""Reading a window so that nothing is missed, and saying how far it is complete.

Three ways, best first: keyset, scan, sweep (`core/reading.py`). Each checks every page against what it asked for and
raises SourceDistrusted when an answer contradicts it; the flow then takes the next way. Why each check is there:
partner-center-api.md sections 1.4 to 1.7 and 9.2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import timedelta

from worker.core.instant import Instant, from_datetime, shift
from worker.core.odata import list_query, query_of_next_link
from worker.core.page import Listing, Page, Record
from worker.core.reading import Method, Reading
from worker.core.window import TimeField, Window
from worker.errors import SourceDistrusted, SourceRejected
from worker.source.client import Client

FUTURE = timedelta(minutes=5)
"""A record dated later than this after the answer's own Date is stored, but moves no position."""

ROUNDING = timedelta(minutes=1)
"""A server may round the filter's literal down by up to this; then it shows too much, which is harmless."""

LOOK_BACK = (timedelta(seconds=1), timedelta(minutes=1))
MAX_LOOKS = 3
TIE_PASSES = 10
REFUSED_QUERY = frozenset({400, 405, 422, 501})
"""What a server answers to an option that it does not take."""

MAX_REPEATS = 5
"""So often links may lead to the very same records again: rows that shift between two pages can do that, a little."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record that a window must show if the source still has it: its id, and its time as last stored."""

    id: str
    time: Instant


async def pages(client: Client, window: Window, reading: Reading, anchor: Anchor | None = None) -> AsyncGenerator[Page]:
    """Read a window; every page says how far (exclusive) the window is complete with it.

    `anchor` is the newest record known at or below the watermark. Raises SourceDistrusted when the answers contradict
    each other, or when the API refuses a query that it was seen to accept.
    """
    async with aclosing(_by_method(client, window, reading, anchor)) as found:
        try:
            async for page in found:
                yield page
        except SourceRejected as refusal:
            if refusal.status in REFUSED_QUERY and reading.method is not Method.SWEEP:
                raise SourceDistrusted(
                    f"The API refuses what it was seen to accept. {refusal}", lasting=False
                ) from refusal
            raise


def _by_method(client: Client, window: Window, reading: Reading, anchor: Anchor | None) -> AsyncGenerator[Page]:
    match reading.method:
        case Method.KEYSET:
            return _keyset(client, window, reading, anchor)
        case Method.SCAN:
            return _scan(client, window, anchor, links=reading.links)
        case Method.SWEEP:
            return _sweep(client, window, anchor)


# -- keyset --------------------------------------------------------------------------------------------------------


async def _keyset(client: Client, window: Window, reading: Reading, anchor: Anchor | None) -> AsyncGenerator[Page]:
    field, at, known = window.field, window.lower, list[Record]()
    while True:
        listing = await _ask(client, window, reading, at)
        if known and at is not None:
            listing = await _overlapping(client, window, reading, at, known, listing)
        newest = _newest(listing.records, field)
        done = listing.next_link is None or _beyond(window, newest)
        if anchor is not None:
            anchor = await _check_anchor(client, window, reading, anchor, listing, done=done)
        elif not listing.records and window.upper is None and at is not None:
            await _check_empty(client, window, reading)
        if done or (newest is not None and (at is None or newest > at)):
            yield Page(listing.records, _through(listing, window, done=done), listing.observed_at)
            if done:
                return
            at, known = newest, listing.records
            continue
        after = _AfterTies()
        async for page in _ties(client, window, reading, at, listing, after):
            yield page
        if after.time is None or _beyond(window, after.time):
            return
        at, known = after.time, after.records


async def _ask(client: Client, window: Window, reading: Reading, lower: Instant | None) -> Listing:
    """Ask for the window from `lower` on, and check that the answer keeps to the filter and the order."""
    upper = window.upper if reading.bounded_above else None
    listing = await client.list(list_query(field=window.field, lower=lower, upper=upper, quoted=reading.quoted))
    _check_filter(listing.records, window.field, lower)
    _check_order(listing.records, window.field, descending=False)
    return listing


async def _overlapping(
    client: Client, window: Window, reading: Reading, at: Instant, previous: list[Record], listing: Listing
) -> Listing:
    """Make sure that this answer begins where the last one ended: it must show a record seen before at its bound.

    When it does not, those records were edited meanwhile, or the server rounds its literal up: the bound is read again
    a little lower, where other known records may lie. A server that still differs is distrusted, unless the records of
    the bound have really moved, which is seen by id.
    """
    field = window.field
    if _shows(listing, previous, at, at, field):
        return listing
    for lower in (shift(at, -step) for step in LOOK_BACK):
        again = await _ask(client, window, reading, max(lower, window.lower or lower))
        if _shows(again, previous, lower, at, field):
            return again
    for record in [record for record in previous if record.time(field) == at][:MAX_LOOKS]:
        now = await client.fetch(record.id or "")
        if now is not None and now.records[0].time(field) == at:
            raise SourceDistrusted(f"The API left out records at the bound of a filter on {field.value}.")
    return listing


def _shows(listing: Listing, known: list[Record], low: Instant, high: Instant, field: TimeField) -> bool:
    expected = {record.id for record in known if (time := record.time(field)) is not None and low <= time <= high}
    return any(record.id in expected for record in listing.records)


async def _check_anchor(
    client: Client, window: Window, reading: Reading, anchor: Anchor, listing: Listing, *, done: bool
) -> Anchor | None:
    """Look for the record that the window must show; returns it while it can still come on a later page."""
    newest = _newest(listing.records, window.field)
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
    again = await _ask(client, window, reading, time) if time > anchor.time else None
    if again is None or not any(record.id == anchor.id for record in again.records):
        raise SourceDistrusted(f"The API's filter on {window.field.value} left out a record that it shows by id.")
    return None


async def _check_empty(client: Client, window: Window, reading: Reading) -> None:
    """An empty answer is believed only if an unfiltered look shows nothing in the window either."""
    look = await client.list(list_query(field=window.field, descending=True))
    hidden = [
        time for record in look.records if (time := record.time(window.field)) is not None and _holds(window, time)
    ]
    if hidden and not (await _ask(client, window, reading, min(hidden))).records:
        raise SourceDistrusted(f"The API's filter on {window.field.value} hides records that it shows without.")


@dataclass(slots=True)
class _AfterTies:
    """The first time after a group of equal times, and the records that have it."""

    time: Instant | None = None
    records: list[Record] = dataclass_field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """What passes of one length have shown together.

    A server that lays equal times out anew for each page shows one record twice and another not at all, and two such
    passes may well agree. But a pass has as many places as there are records: when as many are known, none is missing.
    """

    records: set[str | bytes] = dataclass_field(default_factory=set)
    places: int = -1

    def are_all_after(self, shown: list[str | bytes]) -> bool:
        """Take in a pass, and say whether by now as many records are known as two passes had places."""
        again = len(shown) == self.places
        together = self.records.union(shown) if again else set(shown)
        self.records = together if len(together) <= len(shown) else set(shown)  # more: the source has changed
        self.places = len(shown)
        return again and len(together) == len(shown)


async def _ties(
    client: Client, window: Window, reading: Reading, at: Instant | None, listing: Listing, after: _AfterTies
) -> AsyncGenerator[Page]:
    """Read a group of equal times that is longer than a page: by links, until all its records are known (`_Known`).

    Only then does `through` pass the group. What comes after it goes into `after`; nothing does at the listing's end.
    """
    field, known = window.field, _Known()
    if not reading.links and listing.next_link is not None:
        raise SourceDistrusted(
            f"A group of equal {field.value} is longer than a page, and links were not seen to hold."
        )
    for _ in range(TIE_PASSES):
        shown = list[str | bytes]()
        after.time, after.records = None, []
        async for part, _last in _linked(client, listing):
            _check_filter(part.records, field, window.lower)
            yield Page(part.records, None, part.observed_at)
            shown += [record.id or record.raw for record in part.records if record.time(field) in (None, at)]
            later = [(time, r) for r in part.records if (time := r.time(field)) is not None and time > (at or 0)]
            if later:
                after.time = min(time for time, _ in later)
                after.records = [record for time, record in later if time == after.time]
                break
        if known.are_all_after(shown):
            yield Page([], _through_ties(window, at, after.time, _limit(listing)), listing.observed_at)
            return
        listing = await _ask(client, window, reading, at)
    raise SourceDistrusted(f"The API showed a group of equal {field.value} differently each time it was read.")


def _through_ties(window: Window, at: Instant | None, after: Instant | None, limit: Instant) -> Instant | None:
    ends = [time for time in (after if after is not None else at, window.upper) if time is not None]
    if after is None and window.upper is not None:
        return window.upper
    return min(ends) if ends and min(ends) <= limit else None


def _links_unseen(field: TimeField) -> SourceDistrusted:
    return SourceDistrusted(
        f"More than a page by {field.value} is needed, and links were not seen to hold.", lasting=False
    )


# -- scan and sweep ------------------------------------------------------------------------------------------------


async def _scan(client: Client, window: Window, anchor: Anchor | None, *, links: bool) -> AsyncGenerator[Page]:
    """Newest first until a page lies below the window; certain only at its end, and only up to where it began.

    A record edited meanwhile moves to the front, above where the scan began: the next run gets it. Equal times that
    go on over the end of a page may come in another order with it, so then it is read until all are known (`_Known`).
    """
    field, through, known = window.field, window.upper, _Known()
    for number in range(TIE_PASSES):
        first = await client.list(list_query(field=field, descending=True))
        if number == 0:
            newest = sane_newest(first, field)
            through = newest if through is None or (newest is not None and newest < through) else through
        ids, shown, at_bottom = set[str | None](), list[str | bytes](), set[str | None]()
        top, bottom, tied = None, None, False
        async for listing, last in _linked(client, first):
            _check_order(listing.records, field, descending=True)
            times = [time for record in listing.records if (time := record.time(field)) is not None]
            if top is not None and times and times[0] > top:
                raise SourceDistrusted(f"The API does not keep the order by {field.value} from page to page.")
            over = {record.id for record in listing.records if bottom is not None and record.time(field) == bottom}
            tied = tied or (bool(over) and len(at_bottom | over) > 1)
            top, bottom = (times[0], times[-1]) if times else (top, bottom)
            at_bottom = {record.id for record in listing.records if record.time(field) == bottom}
            ids |= {record.id for record in listing.records}
            shown += [record.id or record.raw for record in listing.records if not _below(window, record.time(field))]
            end = last or (window.lower is not None and bool(times) and times[-1] < window.lower)
            if end:
                await _check_end(client, field, anchor, ids, through)
            certain = end and (known.are_all_after(shown) or not tied)
            yield Page(listing.records, through if certain else None, listing.observed_at)
            if certain:
                return
            if end:
                break
            if not links:
                raise _links_unseen(field)
    raise SourceDistrusted(f"The API showed a group of equal {field.value} differently each time it was read.")


async def _sweep(client: Client, window: Window, anchor: Anchor | None) -> AsyncGenerator[Page]:
    """Everything there is; certain only at its end, and only up to the newest time that the first answer showed."""
    first, ids = await client.list(""), set[str | None]()
    through = sane_newest(first, window.field)
    async for listing, last in _linked(client, first):
        ids |= {record.id for record in listing.records}
        if last:
            await _check_end(client, window.field, anchor, ids, through)
        yield Page(listing.records, through if last else None, listing.observed_at)


async def _check_end(
    client: Client, field: TimeField, anchor: Anchor | None, ids: set[str | None], through: Instant | None
) -> None:
    """A listing that ends without a record that it must hold has ended too early: no link came where more was due.

    A record that was edited meanwhile lies above where the reading began, or is not there any more.
    """
    now = await client.fetch(anchor.id) if anchor is not None and anchor.id not in ids else None
    time = now.records[0].time(field) if now is not None else None
    if time is not None and (through is None or time <= through):
        raise SourceDistrusted(
            "The API's listing ended without a record that it shows by id, so it was not whole.",
            "Nothing rests on it: the position stays where it was, and the next run reads again.",
            lasting=False,
        )


async def _linked(client: Client, listing: Listing) -> AsyncGenerator[tuple[Listing, bool]]:
    """Follow links from a listing on; yields each answer and whether it is the last.

    Raises SourceDistrusted when a link comes twice, when ever new links lead to the same records, and when the server
    does not accept its own: it has forgotten it, or the link lacks what the first query said.
    """
    seen = set[str]()
    shown, repeats = list[str | None](), 0
    while True:
        ids = [record.id for record in listing.records]
        repeats = repeats + 1 if ids == shown else 0
        shown = ids
        yield listing, listing.next_link is None
        if listing.next_link is None:
            return
        query = query_of_next_link(listing.next_link)
        if query in seen or repeats >= MAX_REPEATS:
            raise SourceDistrusted(
                "The API's next page links go in a circle, so its listing would never end.",
                "Nothing past this page was read; the next run begins anew.",
            )
        seen.add(query)
        try:
            listing = await client.list(query)
        except SourceRejected as error:
            if error.status in (400, 404, 410):
                raise SourceDistrusted(
                    f"The API does not accept a next page link of its own. {error}",
                    "The next run begins anew.",
                    lasting=False,
                ) from error
            raise


# -- checks --------------------------------------------------------------------------------------------------------


def _check_filter(records: Iterable[Record], field: TimeField, lower: Instant | None) -> None:
    if lower is None:
        return
    allowed = shift(lower, -ROUNDING)
    if any((time := record.time(field)) is not None and time < allowed for record in records):
        raise SourceDistrusted(f"The API does not honour its filter on {field.value}.")


def _check_order(records: Iterable[Record], field: TimeField, *, descending: bool) -> None:
    times = [time for record in records if (time := record.time(field)) is not None]
    if times != sorted(times, reverse=descending):
        raise SourceDistrusted(f"The API does not keep the order by {field.value}.")


def _holds(window: Window, time: Instant) -> bool:
    return (window.lower is None or time >= window.lower) and not _beyond(window, time)


def _below(window: Window, time: Instant | None) -> bool:
    return window.lower is not None and time is not None and time < window.lower


def _beyond(window: Window, time: Instant | None) -> bool:
    return window.upper is not None and time is not None and time >= window.upper


def _newest(records: Iterable[Record], field: TimeField) -> Instant | None:
    return max((time for record in records if (time := record.time(field)) is not None), default=None)


def _limit(listing: Listing) -> Instant:
    """The latest time that may move a position, by the server's own clock, else by ours."""
    return shift(listing.server_time or from_datetime(listing.observed_at), FUTURE)


def sane_newest(listing: Listing, field: TimeField) -> Instant | None:
    """The newest time of an answer that is not in the future."""
    limit = _limit(listing)
    return max((time for r in listing.records if (time := r.time(field)) is not None and time <= limit), default=None)


def _through(listing: Listing, window: Window, *, done: bool) -> Instant | None:
    """How far a window is complete with this answer: its last time may have more records, unless it is the end."""
    newest = sane_newest(listing, window.field)
    if window.upper is None:
        return newest
    return window.upper if done else min(newest, window.upper) if newest is not None else None
