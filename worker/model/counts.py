"""What a run came to, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from worker.model.figures import Counter, Figure, added, figure, figures_of
from worker.model.instant import Instant

RECORDS = Counter("records", "Records read, by the four counts.", "count")


@dataclass(frozen=True, slots=True)
class Counts:
    """The four counts of records, always these, and the pages that held them; stored with each save."""

    inserted: int = figure(0, logged="inserted", counter=RECORDS)
    updated: int = figure(0, logged="updated", counter=RECORDS)
    unchanged: int = figure(0, logged="unchanged", counter=RECORDS)
    rejected: int = figure(0, logged="rejected", counter=RECORDS)
    pages: int = figure(0, logged="pages", counter=Counter("pages", "Pages read."))

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
class Facts:
    """What a run learned beside its counts; adding two says what both came to. Stored and logged at its end.

    `only_by_id`: members that the list lacks and answers by id have; None until somebody looked. `overlap` and lags are
    seconds (model/lag.py), `below_watermark_max` how far below the watermark a change appeared.
    """

    deleted: int = figure(0, logged="deleted", counter=Counter("deleted", "Referrals marked as deleted."))
    requests: int = figure(0, logged="requests")
    retries: int = figure(0, logged="retries", counter=Counter("retries", "Requests that had to be repeated."))
    answers: Mapping[int, int] = figure(
        dict,
        stored=False,
        counter=Counter("requests", "Requests to the API, by HTTP status; 0 where no answer came.", "status"),
    )
    paging: str = figure("", logged="paging")
    unknown_fields: frozenset[str] = figure(frozenset())
    only_by_id: frozenset[str] | None = None
    lag_p50: float | None = figure(None)
    lag_p95: float | None = figure(None)
    lag_max: float | None = figure(None)
    below_watermark_max: float | None = figure(None)
    overlap: float | None = figure(None)
    missed: int = figure(0)
    api_seconds: float = figure(0.0, logged="api_seconds", gauge="Of that, waiting for the API, all readers together.")
    decode_seconds: float = figure(0.0, logged="decode_seconds", gauge="Of that, decoding answers.")
    map_seconds: float = figure(0.0, logged="map_seconds", gauge="Of that, mapping records to rows.")
    store_seconds: float = figure(
        0.0, logged="store_seconds", gauge="Of that, waiting for the database, all readers together."
    )
    throttled_seconds: float = figure(0.0, counter=Counter("throttled_seconds", "Seconds that the API asked to wait."))

    def __add__(self, other: Facts) -> Facts:
        """Add fact by fact."""
        return Facts(**{one.name: added(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)})

    @staticmethod
    def of(traffic: Traffic) -> Facts:
        """Return what talking to the API came to as facts."""
        return Facts(**{one.name: getattr(traffic, one.name) for one in fields(traffic)})


FIGURES = (*figures_of(Counts), *figures_of(Facts))
"""Every figure of a run."""


def values(counts: Counts, facts: Facts) -> dict[Figure, Any]:
    """Return the value of every figure."""
    return {one: getattr(counts if one.name in Counts.__slots__ else facts, one.name) for one in FIGURES}


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
