"""All referrals with indexes by their two times, so that any page is a slice and a join of bytes."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from worker.demo.odata import CREATED, UPDATED, test_of
from worker.demo.query import FOREVER, Order, Plan
from worker.demo.rows import MISSING, Row

Entry = tuple[Any, str]  # sort key and id
_KEPT = 64  # answers kept ready until the next write


@dataclass(frozen=True, slots=True)
class Ordered:
    """The rows of an answer in order: `entries[lower:upper]`, or those read backwards."""

    entries: Sequence[Entry]
    lower: int
    upper: int
    reverse: bool = False

    def __len__(self) -> int:
        return self.upper - self.lower

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Return entries by their place in the answer."""
        start, stop = max(start, 0), min(stop, len(self))
        if start >= stop:
            return []
        if self.reverse:
            return list(self.entries[self.upper - stop : self.upper - start])[::-1]
        return list(self.entries[self.lower + start : self.lower + stop])

    def timed(self) -> Ordered:
        """Leave out the rows without the time that is ordered by; they lie before all others."""
        first = bisect.bisect_left(self.entries, (MISSING + 1, ""), self.lower, self.upper)
        return replace(self, lower=first)

    def after(self, entry: Entry) -> int:
        """Return the place of the first entry behind `entry`, which itself may have been deleted."""
        if self.reverse:
            return self.upper - bisect.bisect_left(self.entries, entry, self.lower, self.upper)
        return bisect.bisect_right(self.entries, entry, self.lower, self.upper) - self.lower

    def shuffled(self, start: int, stop: int, rng: Random) -> list[Entry]:
        """Return a slice of the answer with the rows of each tie in an order of this call's own."""
        low, high = start, min(stop, len(self))
        while 0 < low < len(self) and self.slice(low - 1, low)[0][0] == self.slice(low, low + 1)[0][0]:
            low -= 1
        while 0 < high < len(self) and self.slice(high - 1, high)[0][0] == self.slice(high, high + 1)[0][0]:
            high += 1
        entries = self.slice(low, high)
        rng.shuffle(entries)
        entries.sort(key=lambda entry: entry[0], reverse=self.reverse)  # stable: ties keep the shuffled order
        return entries[start - low : stop - low]


class Listing:
    """The rows, those that may be seen among them indexed."""

    def __init__(self, rows: Iterable[Row], shown: Callable[[str], bool]) -> None:
        self.rows = {row.id: row for row in rows}
        self._ready: dict[tuple[object, Order], Ordered] = {}
        self.show(shown)

    def show(self, shown: Callable[[str], bool]) -> None:
        """Index again, with another choice of rows that may be seen."""
        self.shown = shown
        seen = [row for row in self.rows.values() if shown(row.id)]
        self._indexes: dict[str, list[Entry]] = {
            CREATED: sorted((row.created, row.id) for row in seen),
            UPDATED: sorted((row.updated, row.id) for row in seen),
            "id": sorted((row.id, row.id) for row in seen),
        }
        self._ready.clear()

    def put(self, row: Row) -> None:
        """Add a row, or replace the one of its id."""
        self.remove(row.id)
        self.rows[row.id] = row
        if self.shown(row.id):
            for index, key in self._places(row):
                bisect.insort(index, key)

    def remove(self, row_id: str) -> None:
        """Take a row away; nothing happens where there is none."""
        row = self.rows.pop(row_id, None)
        if row is not None and self.shown(row_id):
            for index, key in self._places(row):
                del index[bisect.bisect_left(index, key)]
        self._ready.clear()

    def select(self, plan: Plan) -> Ordered:
        """Answer a plan as the rows are now."""
        (field, descending), *more = plan.order
        # A second key only matters where it does not run along with the first: ties lie by id anyway.
        simple = not more or (len(more) == 1 and more[0] == ("id", descending))
        if simple and plan.rest is None and set(plan.bounds) <= {field}:
            index = self._indexes[field]
            return Ordered(index, *_cut(index, plan.bounds.get(field)), descending)
        key = (plan.rest, tuple(sorted(plan.bounds.items()))), plan.order
        if key not in self._ready:
            if len(self._ready) >= _KEPT:
                self._ready.clear()
            self._ready[key] = self._collect(plan, simple=simple)
        return self._ready[key]

    def _collect(self, plan: Plan, *, simple: bool) -> Ordered:
        """Filter row by row what the narrowest index leaves, then sort."""
        choices: list[Sequence[Entry]] = [self._indexes["id"]]
        for field, bound in plan.bounds.items():
            lower, upper = _cut(self._indexes[field], bound)
            choices.append(self._indexes[field][lower:upper])
        rows = [self.rows[row_id] for _, row_id in min(choices, key=len)]
        for field, (lower, upper) in plan.bounds.items():
            rows = [row for row in rows if lower <= _time(row, field) < upper]
        if plan.rest is not None:
            test = test_of(plan.rest)
            rows = [row for row in rows if test(row.record)]
        entries = sorted(
            (_key(row, plan.order[:1] if simple else plan.order, mixed=not simple), row.id) for row in rows
        )
        return Ordered(entries, 0, len(entries), reverse=simple and plan.order[0][1])

    def _places(self, row: Row) -> list[tuple[list[Entry], Entry]]:
        indexes = self._indexes
        return [
            (indexes[CREATED], (row.created, row.id)),
            (indexes[UPDATED], (row.updated, row.id)),
            (indexes["id"], (row.id, row.id)),
        ]


def _cut(index: Sequence[Entry], bound: tuple[int, int] | None) -> tuple[int, int]:
    if bound is None:
        return 0, len(index)
    lower, upper = bound
    start = bisect.bisect_left(index, (lower, ""))
    return start, max(start, bisect.bisect_left(index, (min(upper, FOREVER), "")))


def _time(row: Row, field: str) -> int:
    return row.created if field == CREATED else row.updated


def _key(row: Row, order: Order, *, mixed: bool) -> Any:
    """Return what to sort by; with `mixed` directions, descending fields are turned round within the key."""
    if not mixed:
        field = order[0][0]
        return row.id if field == "id" else _time(row, field)
    return tuple(
        (_backwards(row.id) if descending else row.id)
        if field == "id"
        else (-_time(row, field) if descending else _time(row, field))
        for field, descending in order
    )


def _backwards(text: str) -> tuple[int, ...]:
    """Return a key that sorts texts from last to first; the closing 1 puts a longer text before its own beginning."""
    return (*(-ord(letter) for letter in text), 1)
