"""Paging without a filter: newest first by links (scan), or in no order that could be relied on (sweep).

Certain only at the end, and only up to where it began. That no link came ends nothing by itself: a scan is compared
with the oldest records, asked for from the other end; a sweep with whatever else the server can be asked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from worker.errors import SourceContradicted
from worker.model.instant import Instant
from worker.model.odata import list_query
from worker.model.record import Ended, Listing, Page, Record
from worker.model.window import TimeField, Window
from worker.source import checks
from worker.source.capability import try_query
from worker.source.checks import Anchor, Passes, below, key_of, times_of
from worker.source.client import Client
from worker.source.links import linked

PASSES = 10
SHORT_PASSES = 3
"""So often a listing may end too early before paging is downgraded: a link may be missing now and then."""

_PARTS = ("status eq 'New'", "status eq 'Active'", "status eq 'Closed'", "type eq 'Shared'", "type eq 'Independent'")
"""Documented filters (partner-center-api.md section 1.4) that show other parts of the same listing."""


@dataclass(slots=True)
class _Pass:
    """What one pass has shown so far, and whether equal times went on over the end of a page in it."""

    ids: set[str | bytes] = field(default_factory=set)
    shown: list[str | bytes] = field(default_factory=list)
    at_bottom: set[str | bytes] = field(default_factory=set)
    top: Instant | None = None
    bottom: Instant | None = None
    tied: bool = False

    def take(self, records: list[Record], window: Window) -> bool:
        """Take in a page; returns whether it reaches below the window."""
        field = window.field
        checks.check_order(records, field, descending=True)
        times = times_of(records, field)
        if self.top is not None and times and times[0] > self.top:
            raise SourceContradicted(f"The API does not keep the order by {field.value} from page to page.")
        over = {key_of(r) for r in records if self.bottom is not None and r.time(field) == self.bottom}
        self.tied = self.tied or (bool(over) and len(self.at_bottom | over) > 1)
        self.top, self.bottom = (times[0], times[-1]) if times else (self.top, self.bottom)
        self.at_bottom = {key_of(record) for record in records if record.time(field) == self.bottom}
        self.ids |= {key_of(record) for record in records}
        self.shown += [key_of(record) for record in records if not below(window, record.time(field))]
        return bool(times) and below(window, times[-1])


async def scan(client: Client, window: Window, anchor: Anchor | None, *, links: bool) -> AsyncGenerator[Page]:
    """Read newest first until a page lies below the window.

    A record edited meanwhile moves to the front, above where the scan began: the next run gets it. Equal times that
    go on over the end of a page may come in another order with it, so then it is read until all are known.
    """
    field, through, passes, short = window.field, window.upper, Passes(), 0
    for number in range(PASSES):
        first = await client.list(list_query(field=field, descending=True))
        if number == 0:
            newest = checks.sane_newest(first, field)
            through = newest if through is None or (newest is not None and newest < through) else through
        seen = _Pass()
        async for listing, last in linked(client, first):
            reached = seen.take(listing.records, window)
            whole = reached or (last and await _oldest_are_seen(client, field, seen.ids, through))
            if whole:
                await check_end(client, field, anchor, seen.ids, through)
            certain = whole and (passes.agree(seen.shown) or not seen.tied)
            ended = (Ended.ORDER if reached else Ended.BOTH_ENDS) if certain else None
            yield Page(listing.records, through if certain else None, listing.observed_at, ended)
            if certain:
                return
            if whole or last:
                short += not whole
                break
            if not links:
                raise SourceContradicted(
                    f"More than a page by {field.value} is needed, and links were not seen to hold.", lasting=False
                )
        if short >= SHORT_PASSES:
            raise _not_whole()
    raise SourceContradicted(f"The API showed a group of equal {field.value} differently each time it was read.")


async def _oldest_are_seen(client: Client, field: TimeField, ids: set[str | bytes], through: Instant | None) -> bool:
    """Return whether a pass down to the end of the listing has met the records that its other end begins with."""
    other = await client.list(list_query(field=field))
    checks.check_order(other.records, field, descending=False)
    return not _unseen(other, field, ids, through)


def _unseen(listing: Listing, field: TimeField, ids: set[str | bytes], through: Instant | None) -> list[Record]:
    """Name the records of an answer that a pass did not show; what is newer than where it began may be missing."""
    unseen = [record for record in listing.records if key_of(record) not in ids]
    return [r for r in unseen if through is None or (time := r.time(field)) is None or time <= through]


async def sweep(client: Client, window: Window, anchor: Anchor | None) -> AsyncGenerator[Page]:
    """Read everything there is; certain only at its end, and only up to the newest time of the first answer."""
    for number in range(SHORT_PASSES):
        first, ids, order = await client.list(""), set[str | bytes](), list[str | bytes]()
        through = checks.sane_newest(first, window.field)
        async for listing, last in linked(client, first):
            ids |= {key_of(record) for record in listing.records}
            order += [key_of(record) for record in listing.records]
            ended = None
            if last:
                ended = await _end_of_sweep(client, window.field, order, ids, through)
                if ended is None and number + 1 < SHORT_PASSES:
                    yield Page(listing.records, None, listing.observed_at)
                    break
                if ended is None:
                    raise _not_whole()
                await check_end(client, window.field, anchor, ids, through)
            verified = last and ended is not Ended.UNVERIFIED
            yield Page(listing.records, through if verified else None, listing.observed_at, ended)
            if last:
                return


async def _end_of_sweep(
    client: Client, field: TimeField, order: list[str | bytes], ids: set[str | bytes], through: Instant | None
) -> Ended | None:
    """Look for records that a sweep did not show, by every other query that the server answers.

    Returns SKIP where the server skips as asked and has nothing behind as many rows as are known, UNVERIFIED where
    nothing contradicts the sweep and nothing verifies it, and None where records were missing.
    """
    async for other in _other_looks(client, field):
        if _unseen(other, field, ids, through):
            return None
    if not order:
        return Ended.BOTH_ENDS  # no query shows anything
    if not await _skips(client, order):
        return Ended.UNVERIFIED
    # Also what is newer than where the sweep began counts: it may be old, where the first page was a small one.
    behind = await try_query(client, f"$skip={len(ids)}")
    if behind is None:
        return Ended.UNVERIFIED
    return None if behind.records else Ended.SKIP


async def _other_looks(client: Client, field: TimeField) -> AsyncIterator[Listing]:
    for query in (list_query(field=field), list_query(field=field, descending=True)):
        if (listing := await try_query(client, query)) is not None:
            yield listing
    for term in _PARTS:
        if (listing := await try_query(client, "$filter=" + term.replace(" ", "%20"))) is not None:
            yield listing


async def _skips(client: Client, order: list[str | bytes], *, whole: bool = True) -> bool:
    """Return whether the server was seen to skip as asked: by one row, so that what came second comes first.

    `order` is the `whole` listing, or its first page.
    """
    shifted = await try_query(client, "$skip=1")
    if shifted is None:
        return False
    moved = [key_of(record) for record in shifted.records]
    moved = moved if whole else moved[: len(order) - 1]
    return moved != order[: len(moved)] and moved == order[1 : 1 + len(moved)] if moved else len(order) == 1


async def skipped(client: Client) -> AsyncGenerator[Listing]:
    """Give the listing without order and filter by `$skip`, as far as that is seen to be honoured; verifies no end."""
    first, known, at = await client.list(""), set[str | bytes](), 0
    order = [key_of(record) for record in first.records]
    if not await _skips(client, order, whole=False):
        return
    listing: Listing | None = first
    while listing is not None and not known.issuperset(keys := {key_of(record) for record in listing.records}):
        yield listing
        known |= keys
        at += len(listing.records)
        listing = await try_query(client, f"$skip={at}")


async def ends_after(client: Client, records: int, query: str = "") -> bool:
    """Return whether the answers to a query were seen to end with the `records`-th record, in two requests.

    False where there are more or fewer, and where the server does not skip as asked, so that nothing was seen: then the
    record that is shown is the first one.
    """
    if records <= 1:
        return False
    last = await try_query(client, "&".join(part for part in (query, f"$skip={records - 1}") if part))
    if last is None or len(last.records) != 1 or last.next_link is not None:
        return False
    first = await try_query(client, query)
    return first is not None and bool(first.records) and key_of(first.records[0]) != key_of(last.records[0])


async def check_end(
    client: Client, field: TimeField, anchor: Anchor | None, ids: set[str | bytes], through: Instant | None
) -> None:
    """Raise SourceContradicted where a listing ends without a record that it must hold.

    A record that was edited meanwhile lies above where the scan began, or is not there any more.
    """
    now = await client.fetch(anchor.id) if anchor is not None and anchor.id not in ids else None
    time = now.records[0].time(field) if now is not None else None
    if time is not None and (through is None or time <= through):
        raise _not_whole()


def _not_whole() -> SourceContradicted:
    return SourceContradicted(
        "The API's listing ended without records that it shows to other queries, so it was not whole.",
        "Nothing rests on it: the checkpoint stays where it was, and the next run reads again.",
        lasting=False,
    )
