"""Half-open ranges of one time field, and the arithmetic on them.

Everything the worker reads, it reads as a window `[lower, upper)`: a sync, a slice of a backfill, a slice of a
reconcile. `None` is an open end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from worker.model.instant import Instant, floor_second


class TimeField(StrEnum):
    """The two time fields that the API documents for ordering."""

    CREATED = "createdDateTime"
    UPDATED = "updatedDateTime"


@dataclass(frozen=True, slots=True)
class Window:
    """`[lower, upper)` of one time field."""

    field: TimeField
    lower: Instant | None = None
    upper: Instant | None = None

    def above(self, bound: Instant | None) -> Window:
        """Return what is left of the window from `bound` on."""
        if bound is None or (self.lower is not None and bound <= self.lower):
            return self
        return Window(self.field, bound, self.upper)


def split(window: Window, first: Instant, last: Instant, parts: int) -> list[Window]:
    """Cut a window into about `parts` of equal length over `[first, last]`, where its records are known to lie.

    Inner bounds are whole seconds, so that no server can round them. The ends stay the window's own: a record older
    than `first` or newer than `last` still falls into a part.
    """
    step = max(1, (last - first) // max(1, parts))
    inner = sorted({floor_second(Instant(first + step * n)) for n in range(1, parts)})
    bounds = [
        bound
        for bound in inner
        if (window.lower is None or bound > window.lower) and (window.upper is None or bound < window.upper)
    ]
    edges: list[Instant | None] = [window.lower, *bounds, window.upper]
    return [Window(window.field, low, high) for low, high in pairwise(edges)]


def subtract(window: Window, covered: Iterable[tuple[Instant | None, Instant]]) -> list[Window]:
    """Return the parts of a window that none of the covered ranges `[lower, through)` holds, in order.

    A covered range always has an upper end: how far it was read.
    """
    parts = [window]
    for low, high in covered:
        parts = [piece for part in parts for piece in _without(part, low, high)]
    return parts


def _without(part: Window, low: Instant | None, high: Instant) -> Iterable[Window]:
    starts_inside = low is not None and (part.lower is None or low > part.lower)
    left_upper = low if part.upper is None or (low is not None and low < part.upper) else part.upper
    if starts_inside and left_upper is not None:
        yield Window(part.field, part.lower, left_upper)
    right_lower = high if part.lower is None or high > part.lower else part.lower
    if part.upper is None or right_lower < part.upper:
        yield Window(part.field, right_lower, part.upper)
