"""How an account is, in words, from its row of `sync.status`: its first backfill, and its sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.model.pace import ago, duration, seconds_left


@dataclass(frozen=True, slots=True)
class Loading:
    """How far the first backfill is: in words, and as a share from 0 to 1 where that is known."""

    text: str
    share: float | None


def loading(row: Mapping[str, Any], now: datetime) -> Loading | None:
    """Say how far the first backfill of an account is, and when it may be done at the pace until now.

    None where the account is not in its first backfill.
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


def sign_in(row: Mapping[str, Any], now: datetime) -> str:
    """Say how long a stored sign-in lasts, or since when it is refused; empty where none is stored."""
    if row["sign_in_refused_at"] is not None:
        return f"refused {ago(row['sign_in_refused_at'], now)}"
    if row["sign_in_lapses_at"] is None:
        return ""
    days = round((row["sign_in_lapses_at"] - now) / timedelta(days=1))
    return f"lapses in {days} days unless used" if days > 1 else "lapses within two days unless used"
