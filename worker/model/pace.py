"""How long the rest of long work takes if it goes on as so far, and how durations are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def seconds_left(elapsed: float, done: int, total: int) -> float | None:
    """Return the seconds that the rest of `total` parts takes at the pace of the first `done`; None before the first.

    An estimate: the windows of a backfill are not equally dense.
    """
    return elapsed / done * (total - done) if done else None


def until(moment: datetime, now: datetime) -> str:
    """Say how long it is until a moment."""
    return f"in {duration(max(0.0, (moment - now) / timedelta(seconds=1)))}"


def duration(seconds: float) -> str:
    """Write a duration in seconds below a minute and a half, in minutes below two hours, else in hours."""
    whole = round(seconds)
    if whole < 90:  # noqa: PLR2004 - minutes say no more below that
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 2 * 3600 else f"{whole // 3600} h"


def ago(moment: datetime | None, now: datetime) -> str:
    """Say how long a moment is ago, in its largest unit."""
    if moment is None:
        return "never"
    passed = now - moment.astimezone(UTC)
    for size, unit in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        number = passed // size
        if number >= 1:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
