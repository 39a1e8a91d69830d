"""Seeing what the API can do for a time field, before anything rests on it.

An option that a server ignores is answered with 200 too, so each answer is compared with what it must and must not
hold (partner-center-api.md sections 1.4, 1.7 and 9.2). Six or seven requests for a field, about once a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from worker.errors import SourceContradicted
from worker.model.instant import Instant, render, shift
from worker.model.odata import list_query, query_of_next_link
from worker.model.record import Listing
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.capability import try_query
from worker.source.checks import MAX_LOOKS, ROUNDING, holds, key_of, leaves_out, sane_newest, times_of
from worker.source.client import Client


@dataclass(frozen=True, slots=True)
class Bounds:
    """The oldest and the newest time that the listing shows, none in the future; None where it shows none.

    `untimed`: records without this time were seen at one of its ends. `one_page`: both ends show the same records, so
    there seem to be no others.
    """

    oldest: Instant | None
    newest: Instant | None
    untimed: bool = False
    one_page: bool = False


async def bounds(client: Client, field: TimeField) -> Bounds:
    """Ask for both ends of the listing, ordered by `field`. Only for a field whose order was seen to be kept."""
    asc = await client.list(list_query(field=field))
    desc = await client.list(list_query(field=field, descending=True))
    return _bounds_of(asc, desc, field)


def _bounds_of(asc: Listing, desc: Listing, field: TimeField) -> Bounds:
    untimed = any(record.time(field) is None for record in (*asc.records, *desc.records))
    one_page = {record.id for record in asc.records} == {record.id for record in desc.records}
    return Bounds(min(times_of(asc.records, field), default=None), sane_newest(desc, field), untimed, one_page)


async def probe(client: Client, field: TimeField) -> tuple[Strategy, Bounds | None]:
    """Probe the best paging strategy for `field` that the API was seen to serve rightly, and the ends seen with it."""
    asc = await try_query(client, list_query(field=field))
    desc = await try_query(client, list_query(field=field, descending=True))
    if asc is None or desc is None:
        return Strategy(Paging.SWEEP, evidence=f"$orderby={field.value} was rejected"), None
    strategy = await _judged(client, field, asc, desc)
    return strategy, None if strategy.paging is Paging.SWEEP else _bounds_of(asc, desc, field)


async def _judged(client: Client, field: TimeField, asc: Listing, desc: Listing) -> Strategy:
    up, down = times_of(asc.records, field), times_of(desc.records, field)
    if up != sorted(up) or down != sorted(down, reverse=True):
        return Strategy(Paging.SWEEP, evidence=f"$orderby={field.value} was ignored")
    if not up or not down or len({*up, *down}) < 2:  # noqa: PLR2004 - an order or a filter needs two different times to show
        return Strategy(Paging.SWEEP, evidence="too few records to see an order", conclusive=False)
    if [record.id for record in asc.records] == [record.id for record in desc.records] or up[0] > down[-1]:
        return Strategy(Paging.SWEEP, evidence=f"$orderby={field.value} asc and desc gave the same")
    if asc.next_link is not None and not {key_of(one) for one in asc.records} ^ {key_of(one) for one in desc.records}:
        return Strategy(Paging.SWEEP, evidence=f"$orderby={field.value} orders within a page only")
    links = await _links_carry_on(client, asc, desc)
    found = await _probe_filter(client, field, asc, desc)
    if found.paging is Paging.SCAN and not links and asc.next_link is not None:
        return Strategy(Paging.SWEEP, evidence=f"{found.evidence}; links do not carry the order on", links=False)
    return replace(found, links=links, page_size=max(len(asc.records), len(desc.records)))


async def _links_carry_on(client: Client, asc: Listing, desc: Listing) -> bool:
    """Follow the links of both orders: those that carry their order on lead to other records, or in another order.

    A link whose token is only a position in a listing without order leads both times to the same page.
    """
    seconds = []
    for first in (asc, desc):
        if first.next_link is None:
            return False
        try:
            second = await try_query(client, query_of_next_link(first.next_link))
        except SourceContradicted:
            return False
        seconds.append([record.id for record in second.records] if second is not None else [])
    return bool(seconds[0]) and bool(seconds[1]) and seconds[0] != seconds[1]


async def _probe_filter(client: Client, field: TimeField, asc: Listing, desc: Listing) -> Strategy:
    """Ask for the newer part and see that the older records stay out and the newer ones come, all of them."""
    up, down = times_of(asc.records, field), times_of(desc.records, field)
    lower = _dividing_time(up, down)
    if lower is None:
        return Strategy(Paging.SCAN, evidence="times too close to see whether a filter works", conclusive=False)
    reasons = []
    for quoted in (False, True):
        form = f"{field.value} ge {render(lower)}" if not quoted else f"{field.value} ge '...'"
        filtered = await try_query(client, list_query(field=field, lower=lower, quoted=quoted))
        if filtered is None:
            reasons.append(f"{form} was rejected")
            continue
        times = times_of(filtered.records, field)
        expected = {time for time in (*up, *down) if time >= lower}
        if not expected & {*times} or min(times) < shift(lower, -ROUNDING) or times != sorted(times):
            reasons.append(f"{form} was not honoured")
            continue
        within = Window(field, shift(lower, ROUNDING), times[-1])
        known = {one.id: time for one in (*asc.records, *desc.records) if one.id and (time := one.time(field))}
        there = {record.id for record in filtered.records}
        lacking = [(key, time) for key, time in known.items() if holds(within, time) and key not in there]
        if await leaves_out(client, field, dict(lacking[:MAX_LOOKS])):
            reasons.append(f"{form} left out records that it must show")
            continue
        upper = await _bounded_above(client, field, lower, max(down), quoted=quoted)
        return Strategy(Paging.KEYSET, quoted, upper, f"{form} showed only newer records, in order")
    return Strategy(Paging.SCAN, evidence="; ".join(reasons))


def _dividing_time(up: list[Instant], down: list[Instant]) -> Instant | None:
    """Return a known time with older records more than a minute below it: a server may round its literal."""
    candidates = [time for time in sorted({*up, *down}) if time > shift(up[0], ROUNDING)]
    return candidates[len(candidates) // 2] if candidates else None


async def _bounded_above(client: Client, field: TimeField, lower: Instant, newest: Instant, *, quoted: bool) -> bool:
    if newest <= lower:
        return False
    listing = await try_query(client, list_query(field=field, lower=lower, upper=newest, quoted=quoted))
    times = times_of(listing.records, field) if listing is not None else []
    return bool(times) and lower in times and max(times) < newest
