"""What a run came to, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.instant import Instant


@dataclass(frozen=True, slots=True)
class Counts:
    """The four counts of records, always these, and the pages that held them."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    pages: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add count by count."""
        return Counts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.rejected + other.rejected,
            self.pages + other.pages,
        )

    @property
    def records(self) -> int:
        """All records that were read."""
        return self.inserted + self.updated + self.unchanged + self.rejected


@dataclass(frozen=True, slots=True)
class ToWatermark:
    """Move the account's watermark to `through` with this save."""

    through: Instant


@dataclass(frozen=True, slots=True)
class ToWindow:
    """Record with this save that a backfill window is read to `through`, or to its end."""

    window_id: int
    through: Instant | None
    records: int


Advance = ToWatermark | ToWindow | None
"""Which position a save moves, in its own transaction; None where the work keeps no position."""
