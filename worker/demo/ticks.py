"""Instants as the source has them: whole 100 ns ticks since 0001-01-01 UTC.

Written apart from the product's own parser on purpose: a fake that shared it would share its mistakes.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

SECOND = 10_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_ZERO = datetime(1, 1, 1, tzinfo=UTC)
_UNIX = (datetime(1970, 1, 1, tzinfo=UTC) - _ZERO).days * DAY
_DIGITS = 7
_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse(text: object) -> int | None:
    """Return the ticks of an ISO 8601 text with zone and 0 to 9 digits of fraction (cut to 7); None for another."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return None
    since = whole - _ZERO
    return since.days * DAY + since.seconds * SECOND + int((fraction or "")[:_DIGITS].ljust(_DIGITS, "0"))


def render(ticks: int, digits: int = _DIGITS) -> str:
    """Write ticks in the API's usual form, `2020-10-30T21:03:00.0000000Z`; `digits` of fraction, 0 for none."""
    days, rest = divmod(ticks, DAY)
    seconds, fraction = divmod(rest, SECOND)
    text = (_ZERO + timedelta(days=days, seconds=seconds)).isoformat()[:19]
    return f"{text}.{fraction:07d}"[: 20 + digits] + "Z" if digits else text + "Z"


def of(moment: datetime) -> int:
    """Return the ticks of an aware datetime."""
    since = moment - _ZERO
    return since.days * DAY + since.seconds * SECOND + since.microseconds * 10


def now() -> int:
    """Return the ticks of the machine's clock."""
    return _UNIX + time.time_ns() // 100
