"""What a run came to, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from worker.model.instant import Instant


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
class Traffic:
    """What talking to the API came to: requests, those that repeat another, answers by status, and seconds.

    `answers` counts by HTTP status, 0 where none came. `api_seconds` is waiting for answers, all readers together;
    `throttled_seconds` is how long the API asked to wait.
    """

    requests: int = 0
    retries: int = 0
    answers: Mapping[int, int] = field(default_factory=dict)
    api_seconds: float = 0.0
    decode_seconds: float = 0.0
    throttled_seconds: float = 0.0

    def answered(self, status: int, seconds: float) -> Traffic:
        """Count one request that was answered so, or not at all, after some seconds."""
        answers = {**self.answers, status: self.answers.get(status, 0) + 1}
        return replace(self, requests=self.requests + 1, answers=answers, api_seconds=self.api_seconds + seconds)

    def since(self, earlier: Traffic) -> Traffic:
        """Return what came after an earlier look."""
        answers = {status: number - earlier.answers.get(status, 0) for status, number in self.answers.items()}
        return Traffic(
            self.requests - earlier.requests,
            self.retries - earlier.retries,
            {status: number for status, number in answers.items() if number},
            self.api_seconds - earlier.api_seconds,
            self.decode_seconds - earlier.decode_seconds,
            self.throttled_seconds - earlier.throttled_seconds,
        )


@dataclass(frozen=True, slots=True)
class WatermarkCheckpoint:
    """Move the account's watermark to `through` with this save."""

    through: Instant


@dataclass(frozen=True, slots=True)
class WindowCheckpoint:
    """Record with this save that a backfill window is read to `through`, by so many records; `done`: to its end."""

    window_id: int
    through: Instant | None
    records: int
    done: bool = False

    def after(self, earlier: WindowCheckpoint | None) -> WindowCheckpoint:
        """Return this and an earlier one of the same window as one."""
        if earlier is None:
            return self
        through = max((one for one in (earlier.through, self.through) if one is not None), default=None)
        return WindowCheckpoint(self.window_id, through, earlier.records + self.records, earlier.done or self.done)


Checkpoint = WatermarkCheckpoint | WindowCheckpoint | None
"""The checkpoint that a save moves, in its own transaction; None where the work keeps none."""
