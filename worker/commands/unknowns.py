"""What nobody documents of the API and a program can find out: each question, what was seen, and what is done about it.

The numbers are those of partner-center-api.md section 9.2. Every question costs a request or two, none writes, and an
answer of the API that refuses one is a finding, not a failure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from worker.model.instant import from_datetime, shift
from worker.model.record import Listing
from worker.model.window import TimeField
from worker.source.capabilities import probe
from worker.source.capability import try_query
from worker.source.client import Client
from worker.sync.hydrate import only_by_id

_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Unknown:
    """One unknown: its subject, what was seen, and which default is in force because of it."""

    number: int
    subject: str
    seen: str
    default: str


async def answers(client: Client) -> AsyncIterator[Unknown]:
    """Ask every question, one after the other; raises what a first plain request raises."""
    plain = await client.list("")
    for field in TimeField:
        strategy, _ = await probe(client, field)
        yield Unknown(
            1,
            f"filter on {field.value}",
            strategy.evidence,
            f"read by {strategy.paging.value}" + (", with quoted literals" if strategy.quoted else ""),
        )
    yield await _ignored_options(client, plain)
    yield await _second_order(client)
    yield _links(plain)
    yield await _page_size(client, plain)
    yield _count(plain)
    yield _parity(await only_by_id(client, plain))
    yield await _case(client)
    yield _skew(plain)


def _parity(lacking: set[str] | None) -> Unknown:
    if lacking is None:
        seen = "no record could be compared"
    else:
        seen = f"only by id: {', '.join(sorted(lacking))}" if lacking else "the same members"
    in_force = "changed records are fetched by id" if lacking and lacking - {"eTag"} else "records come from the list"
    return Unknown(9, "list against by-id", seen, in_force)


async def _ignored_options(client: Client, plain: Listing) -> Unknown:
    answer = await try_query(client, "$filter=noSuchMember%20eq%20'x'")
    same = answer is not None and [r.id for r in answer.records] == [r.id for r in plain.records]
    seen = "refused" if answer is None else "ignored in silence" if same else "taken as matching nothing"
    return Unknown(2, "a filter that makes no sense", seen, "every row of every page is checked against what was asked")


async def _second_order(client: Client) -> Unknown:
    answer = await try_query(client, "$orderby=updatedDateTime%20desc,id")
    return Unknown(
        4,
        "ordering by a second key",
        "refused" if answer is None else "accepted",
        "ties are ordered by their ids",
    )


def _links(plain: Listing) -> Unknown:
    link = plain.next_link
    if link is None:
        return Unknown(6, "next page links", "none: everything is on one page", "of a link only its query is used")
    parts = urlsplit(link)
    names = sorted({unquote(pair.partition("=")[0]) for pair in parts.query.split("&")})
    where = f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.netloc else f"relative, {parts.path}"
    return Unknown(6, "next page links", f"{where} with {', '.join(names)}", "of a link only its query is used")


async def _page_size(client: Client, plain: Listing) -> Unknown:
    top = await try_query(client, "$top=1")
    if top is None:
        top_text = "$top is refused"
    else:
        top_text = f"$top=1 gives {len(top.records)}, {'with' if top.next_link else 'without'} a link to more"
    return Unknown(7, "page size", f"{len(plain.records)} rows; {top_text}", "$top is never sent")


def _count(plain: Listing) -> Unknown:
    if plain.count is None:
        seen = "absent"
    elif plain.count == len(plain.records):
        seen = f"{plain.count}, as many as rows on the page"
    else:
        seen = f"{plain.count}, with {len(plain.records)} rows on the page"
    return Unknown(8, "@odata.count", seen, "it is ignored")


async def _case(client: Client) -> Unknown:
    right = await try_query(client, "$filter=status%20eq%20'New'")
    other = await try_query(client, "$filter=status%20eq%20'new'")
    if right is None:
        seen = "a filter on status is refused"
    elif not right.records:
        seen = "no record is New, so nothing could be seen"
    else:
        seen = "does not matter" if other is not None and other.records else "matters"
    return Unknown(11, "upper and lower case in enum filters", seen, "no enum is filtered; 429 halves the requests")


def _skew(plain: Listing) -> Unknown:
    if plain.server_time is None:
        return Unknown(13, "clocks", "answers carry no Date", "the database's clock bounds what moves the watermark")
    apart = (from_datetime(plain.observed_at) - plain.server_time) / 10_000_000
    newest = max((time for r in plain.records if (time := r.time(TimeField.UPDATED)) is not None), default=None)
    future = newest is not None and newest > shift(plain.server_time, _SKEW)
    seen = f"the database is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the API"
    return Unknown(
        13,
        "clocks",
        seen + ("; a record is dated in the future" if future else ""),
        "the watermark comes from the data, and never from what is dated more than 5 minutes ahead",
    )
