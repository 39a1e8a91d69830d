"""How far long work is, and how long the rest takes if it goes on as so far; and how durations are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Loading:
    """How far the first backfill is: in words, and as a share from 0 to 1 where that is known."""

    text: str
    share: float | None


def loading(row: Mapping[str, Any], now: datetime) -> Loading | None:
    """Say how far the first backfill of an account is, and when it may be done at the pace until now.

    `row` is one of `sync.status`; None where the account is not in its first backfill.
    """
    since = row.get("loading_since")
    if since is None:
        return None
    windows, done = row.get("loading_windows") or 0, row.get("loading_windows_done") or 0
    progress = f"{row.get('loading_records') or 0:,} records since {since:%H:%M} UTC"
    if not windows:
        return Loading(f"{progress}.", None)
    progress = f"{done:,} of {windows:,} windows, {progress}"
    left = seconds_left((now - since).total_seconds(), done, windows)
    if left is None:
        return Loading(f"{progress}.", 0.0)
    return Loading(f"{progress}; ready in about {duration(left)}.", done / windows)


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
