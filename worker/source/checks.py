"""What is checked of every page, and how far a page may move a checkpoint.

Why each check is there: partner-center-api.md sections 1.4 to 1.7 and 9.2. Records without the field's time take no
part in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from worker.errors import PermissionRefused, SourceContradicted
from worker.model.instant import Instant, from_datetime, shift
from worker.model.record import Listing, Record
from worker.model.window import TimeField, Window
from worker.source.client import Client

FUTURE = timedelta(minutes=5)
"""A record dated later than this after the answer's own Date is stored, but moves no checkpoint."""

CLOCKS = timedelta(days=1)
"""An answer's Date that is further ahead of our clock than this is a wrong one."""

ROUNDING = timedelta(minutes=1)
"""A server may round the filter's literal down by up to this; then it shows too much, which is harmless."""

MAX_LOOKS = 3
"""How many of the records that a page lacks are asked for by id."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record that a window must show if the source still has it: its id, and its time as last stored."""

    id: str
    time: Instant


@dataclass(slots=True)
class Passes:
    """What passes over one group of equal times, or over one listing, have shown together.

    A server that lays equal times out anew for each page shows one record twice and another not at all, and two such
    passes may well agree. But a pass has as many places as there are records: when as many are known, none is missing.
    """

    records: set[str | bytes] = field(default_factory=set)
    places: int = -1

    def agree(self, shown: list[str | bytes]) -> bool:
        """Take in a pass, and say whether by now as many records are known as two passes had places."""
        again = len(shown) == self.places
        together = self.records.union(shown) if again else set(shown)
        self.records = together if len(together) <= len(shown) else set(shown)  # more: the source has changed
        self.places = len(shown)
        return again and len(together) == len(shown)


def key_of(record: Record) -> str | bytes:
    """Return the id of a record, or its bytes where no id can be read."""
    return record.id or record.raw


def check_filter(records: Iterable[Record], field: TimeField, lower: Instant | None) -> None:
    """Raise SourceContradicted where a record lies below what was asked for."""
    if lower is None:
        return
    allowed = shift(lower, -ROUNDING)
    if any(time < allowed for time in times_of(records, field)):
        raise SourceContradicted(f"The API does not honour its filter on {field.value}.")


def check_order(records: Iterable[Record], field: TimeField, *, descending: bool) -> None:
    """Raise SourceContradicted where records do not come in the order that was asked for."""
    times = times_of(records, field)
    if times != sorted(times, reverse=descending):
        raise SourceContradicted(f"The API does not keep the order by {field.value}.")


async def leaves_out(client: Client, field: TimeField, lacking: Mapping[str, Instant]) -> bool:
    """Return whether the API left out records that an answer lacks, given by id with the time they were seen at.

    It did where one of them, asked for by id, still has that time: then it was neither edited nor deleted. One that
    may not be seen by id counts as one that has.
    """
    for record_id, time in lacking.items():
        try:
            now = await client.fetch(record_id)
        except PermissionRefused:
            return True
        if now is not None and now.records[0].time(field) == time:
            return True
    return False


def times_of(records: Iterable[Record], field: TimeField) -> list[Instant]:
    """Return the times that records have, in their order."""
    return [time for record in records if (time := record.time(field)) is not None]


def newest_of(records: Iterable[Record], field: TimeField) -> Instant | None:
    """Return the latest time of some records; None where none has one."""
    return max(times_of(records, field), default=None)


def holds(window: Window, time: Instant) -> bool:
    """Return whether a time lies in a window."""
    return not below(window, time) and not beyond(window, time)


def below(window: Window, time: Instant | None) -> bool:
    """Return whether a time lies below a window."""
    return window.lower is not None and time is not None and time < window.lower


def beyond(window: Window, time: Instant | None) -> bool:
    """Return whether a time lies at or above a window's end."""
    return window.upper is not None and time is not None and time >= window.upper


def latest_allowed(listing: Listing) -> Instant:
    """Return the latest time that may move a checkpoint, by the server's own clock, else by ours."""
    ours = from_datetime(listing.observed_at)
    return shift(ours if listing.server_time is None else min(listing.server_time, shift(ours, CLOCKS)), FUTURE)


def sane_newest(listing: Listing, field: TimeField) -> Instant | None:
    """Return the newest time of an answer that is not in the future."""
    limit = latest_allowed(listing)
    return max((time for time in times_of(listing.records, field) if time <= limit), default=None)
