"""Following next page links, which are never believed to say where a listing ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from worker.errors import SourceContradicted, SourceRejected
from worker.model.odata import query_of_next_link
from worker.model.record import Listing
from worker.source.checks import key_of
from worker.source.client import Client

MAX_REPEATS = 5
"""So often links may lead to the very same records again: rows that shift between two pages can do that, a little."""

_FORGOTTEN = frozenset({400, 404, 410})


async def linked(client: Client, listing: Listing) -> AsyncGenerator[tuple[Listing, bool]]:
    """Follow links from a listing on; yields each answer and whether no link leads on from it.

    Raises SourceContradicted when a link comes twice, when ever new links lead to the same records, one page
    for ever or all of them over again, and when the server does not accept its own: it has forgotten it, or the link
    lacks what the first query said.
    """
    seen, known = set[str](), set[str | bytes]()
    shown, repeats, fresh, stale = list[str | bytes](), 0, 0, 0
    while True:
        ids = [key_of(record) for record in listing.records]
        repeats = repeats + 1 if ids == shown else 0
        shown = ids
        fresh, stale = (fresh, stale + 1) if known.issuperset(ids) else (fresh + 1, 0)
        known.update(ids)
        yield listing, listing.next_link is None
        if listing.next_link is None:
            return
        query = query_of_next_link(listing.next_link)
        if query in seen or repeats >= MAX_REPEATS or stale > fresh + MAX_REPEATS:
            raise SourceContradicted(
                "The API's next page links go in a circle, so its listing would never end.",
                "Nothing past this page was read; the next run begins anew.",
            )
        seen.add(query)
        try:
            listing = await client.list(query)
        except SourceRejected as error:
            if error.status in _FORGOTTEN:
                raise SourceContradicted(
                    f"The API does not accept a next page link of its own. {error}",
                    "The next run begins anew.",
                    lasting=False,
                ) from error
            raise
