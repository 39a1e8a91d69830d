"""Points in time at the source's own precision.

The API writes UTC with up to seven fractional digits, .NET's 100 ns ticks (partner-center-api.md section 4), finer
than Python's and PostgreSQL's microseconds, and three common parsers round those digits in three different ways. An
`Instant` is that tick count as an integer, parsed here and nowhere else, so that comparing is exact.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

Instant = NewType("Instant", int)
"""Ticks of 100 ns since 0001-01-01T00:00:00 UTC; fits PostgreSQL's bigint."""

TICKS_PER_SECOND = 10_000_000
_MICROSECONDS = len("2024-01-31T09:00:00.123456")
_WITH_TICKS = len("2024-01-31T09:00:00.1234567Z")
MIN_VALUE = Instant(0)
"""`0001-01-01T00:00:00Z`, which .NET services send for "not set"."""

_EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - arithmetic on naive UTC; the zone is in the type's meaning
_UTC_EPOCH = _EPOCH.replace(tzinfo=UTC)
_END = ((datetime(9999, 12, 31) - _EPOCH).days + 1) * 86_400 * TICKS_PER_SECOND  # noqa: DTZ001 - the same
_SHAPE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII)
_USUAL = re.compile(
    r"(?!000)\d{4}-"
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{7})?Z",
    re.ASCII,
).fullmatch
"""Certainly a time, without a look at the calendar."""


def parse(text: str) -> Instant:
    """Read an ISO 8601 timestamp with 0 to 9 fractional digits; digits beyond the seventh are dropped.

    `Z`, an offset, or nothing (then UTC, as the API documents) may end it. Raises ValueError with the reason.
    """
    if _USUAL(text) and len(text) == _WITH_TICKS:
        since = datetime.fromisoformat(text[:19]) - _EPOCH
        return Instant((since.days * 86_400 + since.seconds) * TICKS_PER_SECOND + int(text[20:27]))
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError("not a timestamp like 2024-01-31T09:00:00.0000000Z")
    whole, fraction, sign, hours, minutes = found.groups()
    since = datetime.fromisoformat(whole) - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if sign is not None:
        seconds -= (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1)
    ticks = seconds * TICKS_PER_SECOND + (int(f"{fraction:0<7}"[:7]) if fraction else 0)
    if not MIN_VALUE <= ticks < _END:
        raise ValueError("a timestamp outside the years 1 to 9999")
    return Instant(ticks)


def floored(text: str) -> str | None:
    """Write a timestamp as far as PostgreSQL holds it: floored to the microsecond, None where it says "not set".

    Always with six digits: equal times come to equal text. Raises ValueError as `parse` does, which would take eight
    times as long for what is usual.
    """
    if not _USUAL(text):
        at = parse(text)
        if at == MIN_VALUE:
            return None
        text = render(at)
    return f"{text[:_MICROSECONDS]}Z" if len(text) > _MICROSECONDS else text[:-1] + ".000000Z"


def render(instant: Instant) -> str:
    """Write an instant with all seven digits, the form in which it reaches the API and the logs.

    Seven digits always: a server that compares timestamps as strings then includes too much rather than too little.
    """
    seconds, ticks = divmod(instant, TICKS_PER_SECOND)
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}.{ticks:07d}Z"


def to_datetime(instant: Instant) -> datetime:
    """Floor to the microsecond that Python and PostgreSQL hold; never rounds up."""
    return _UTC_EPOCH + timedelta(microseconds=instant // 10)


def from_datetime(moment: datetime) -> Instant:
    """Convert an aware datetime exactly."""
    since = moment.astimezone(UTC).replace(tzinfo=None) - _EPOCH
    return Instant((since.days * 86_400 + since.seconds) * TICKS_PER_SECOND + since.microseconds * 10)


def shift(instant: Instant, by: timedelta) -> Instant:
    """Move by a duration, not below the first representable instant."""
    ticks = (by.days * 86_400 + by.seconds) * TICKS_PER_SECOND + by.microseconds * 10
    return Instant(max(MIN_VALUE, instant + ticks))


def floor_second(instant: Instant) -> Instant:
    """Drop the fraction of the second."""
    return Instant(instant - instant % TICKS_PER_SECOND)
