"""Points in time at the source's own precision.

The API writes UTC with up to seven fractional digits, .NET's 100 ns ticks (partner-center-api.md section 4), finer
than Python's and PostgreSQL's microseconds, and three common parsers round those digits in three different ways. An
`Instant` is that tick count as an integer, parsed here and nowhere else, so that comparing is exact.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NewType

Instant = NewType("Instant", int)
"""Ticks of 100 ns since 0001-01-01T00:00:00 UTC; fits PostgreSQL's bigint."""

TICKS_PER_SECOND = 10_000_000
MIN_VALUE = Instant(0)
"""`0001-01-01T00:00:00Z`, which .NET services send for "not set"."""

_EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - arithmetic on naive UTC; the zone is in the type's meaning
_END = ((datetime(9999, 12, 31) - _EPOCH).days + 1) * 86_400 * TICKS_PER_SECOND  # noqa: DTZ001 - the same
_ZONE_LENGTH = len("+00:00")
_MAX_FRACTION = 9


def parse(text: str) -> Instant:
    """Read an ISO 8601 timestamp with 0 to 9 fractional digits; digits beyond the seventh are dropped.

    `Z`, an offset, or nothing (then UTC, as the API documents) may end it. Raises ValueError with the reason.
    """
    zone = 0
    if text[-1:] in ("Z", "z"):
        body = text[:-1]
    elif text[-_ZONE_LENGTH:-5] in ("+", "-") and text[-3:-2] == ":":
        body, zone = text[:-_ZONE_LENGTH], _offset_seconds(text[-_ZONE_LENGTH:])
    else:
        body = text
    whole, fraction = body[:19], body[20:]
    shape_ok = whole[4:5] + whole[7:8] + whole[10:11] + whole[13:14] + whole[16:17] == "--T::" and len(whole) == 19  # noqa: PLR2004 - yyyy-mm-ddThh:mm:ss
    digits_ok = not body[19:] or (
        body[19] == "." and fraction.isascii() and fraction.isdigit() and len(fraction) <= _MAX_FRACTION
    )
    if not (shape_ok and digits_ok and whole.isascii()):
        raise ValueError("not a timestamp like 2024-01-31T09:00:00.0000000Z")
    since = datetime.fromisoformat(whole) - _EPOCH
    seconds = since.days * 86_400 + since.seconds - zone
    ticks = seconds * TICKS_PER_SECOND + int(f"{fraction:0<7}"[:7] or 0)
    if not MIN_VALUE <= ticks < _END:
        raise ValueError("a timestamp outside the years 1 to 9999")
    return Instant(ticks)


def _offset_seconds(text: str) -> int:
    if not (text.isascii() and text[1:3].isdigit() and text[4:6].isdigit()):
        raise ValueError("an offset from UTC that is no time")
    hours, minutes = int(text[1:3]), int(text[4:6])
    return (hours * 3600 + minutes * 60) * (-1 if text[0] == "-" else 1)


def render(instant: Instant) -> str:
    """Write an instant with all seven digits, the form in which it reaches the API and the logs.

    Seven digits always: a server that compares timestamps as strings then includes too much rather than too little.
    """
    seconds, ticks = divmod(instant, TICKS_PER_SECOND)
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}.{ticks:07d}Z"


def to_datetime(instant: Instant) -> datetime:
    """Floor to the microsecond that Python and PostgreSQL hold; never rounds up."""
    return _EPOCH.replace(tzinfo=UTC) + timedelta(microseconds=instant // 10)


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
