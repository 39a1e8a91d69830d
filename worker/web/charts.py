"""Charts: numbers become places here; words stay text of the page, so that they are as large on a phone.

Colours come from the page's style sheet by class, so that a chart is as readable in dark mode and in print.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

COLOURS = 4
"""Colours of the palette; more series than that take them in turn."""

_NOTICED = 0.01
"""Share of estimated deals from which a day is drawn as estimated: a deal is read minutes after it was made, always."""

_LABELS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn series, in percent of width and height: what is estimated, what was seen, and the last value."""

    name: str
    colour: int
    estimated: str
    seen: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Lines:
    """A line chart: series, and the grid with (percent, label) pairs; `seen_from` is the first day not estimated."""

    lines: list[Line]
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    first: date
    seen_from: date | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar: its label, its share of the longest as a percentage, its value as text, and what it is."""

    label: str
    percent: float
    value: str
    look: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Values of each day, and which of these days are estimated."""

    days: list[date]
    values: dict[str, list[float]]
    estimated: int
    """How many days from the first are estimated."""


def series(rows: Sequence[Mapping[str, Any]]) -> Series | None:
    """Put every day on the axis: a day without a row of a name had none.

    Rows have `day`, `name`, `value`, `deals` and how many of these are `estimated`.
    """
    if not rows:
        return None
    first, last = min(row["day"] for row in rows), max(row["day"] for row in rows)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    found = defaultdict[str, dict[date, float]](dict)
    deals, estimated = dict.fromkeys(days, 0), dict.fromkeys(days, 0)
    for row in rows:
        found[row["name"]][row["day"]] = row["value"] or 0
        deals[row["day"]] += int(row["deals"])
        estimated[row["day"]] += int(row["estimated"])
    values = {name: [of_day.get(day, 0) for day in days] for name, of_day in found.items()}
    noticeable = [n for n, day in enumerate(days) if estimated[day] > _NOTICED * deals[day]]
    return Series(days, values, noticeable[-1] + 1 if noticeable else 0)


def lines(found: Series, names: Sequence[str] | None = None) -> Lines:
    """Lay out series over the same days; each begins at zero on the vertical axis, so that heights compare."""
    chosen = {name: found.values[name] for name in names or sorted(found.values)}
    top = _round_up(max((value for values in chosen.values() for value in values), default=0))
    step = 100 / max(1, len(found.days) - 1)

    def points(values: Sequence[float], start: int) -> str:
        return " ".join(f"{(start + n) * step:.2f},{100 - 100 * value / top:.2f}" for n, value in enumerate(values))

    drawn, cut = [], found.estimated
    for number, (name, values) in enumerate(chosen.items()):
        past, seen = values[: cut + 1], values[cut:]
        line = (points(past, 0) if cut else "", points(seen, cut) if len(seen) > 1 or not cut else "")
        drawn.append(Line(name, number % COLOURS, *line, values[0], values[-1]))
    marks = [n for n, day in enumerate(found.days) if day.day == 1 and n * step <= _LAST_LABEL] or [0]
    return Lines(
        drawn,
        [(round(100 - 100 * share, 1), f"{share * top:,.0f}") for share in (0, 0.5, 1)],
        [(round(n * step, 1), f"{found.days[n]:%b %Y}") for n in marks[-_LABELS:]],
        found.days[0],
        found.days[cut] if 0 < cut < len(found.days) else None,
    )


_LAST_LABEL = 86.0
"""Percent of the width from which the label of a month would leave the chart."""


def bars(values: Sequence[tuple[str, float, str] | tuple[str, float, str, str]]) -> list[Bar]:
    """Lay out (label, value, value as text, look) as bars, the longest filling its row."""
    longest = max((value for _, value, *_ in values), default=0) or 1
    return [Bar(label, round(100 * value / longest, 1), text, *look) for label, value, text, *look in values]


def _round_up(value: float) -> float:
    """Return the next round number, so that grid lines have round labels."""
    if value <= 0:
        return 1
    size = float(10 ** (len(str(int(value))) - 1))
    return next(size * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if size * step >= value)
