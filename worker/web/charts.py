"""Charts as SVG text: numbers become marks here, words are escaped by the template that places them.

Colours come from the page's style sheet by class, so that a chart is as readable in dark mode and in print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

WIDTH, HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 110, 12, 24


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn series: its name, its place in the palette, its points as SVG's `x,y x,y`, and where its label goes."""

    name: str
    number: int
    points: str
    label_y: float
    last: float


@dataclass(frozen=True, slots=True)
class Lines:
    """A line chart: series, and the grid with (position, label) pairs."""

    lines: list[Line]
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar: its label, its share of the longest as a percentage, and its value as text."""

    label: str
    percent: float
    value: str


def lines(days: Sequence[date], series: Mapping[str, Sequence[float]]) -> Lines:
    """Lay out series over the same days; each begins at zero on the vertical axis, so that heights compare."""
    top = _round_up(max((value for values in series.values() for value in values), default=0))
    step_x = (WIDTH - _LEFT - _RIGHT) / max(1, len(days) - 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - value / top * (HEIGHT - _TOP - _BOTTOM), 1)

    drawn = []
    for number, (name, values) in enumerate(series.items()):
        points = " ".join(f"{_LEFT + n * step_x:.1f},{y(value)}" for n, value in enumerate(values))
        drawn.append(Line(name, number, points, y(values[-1]), values[-1]))
    marks = [n for n, day in enumerate(days) if day.day == 1] or [0]
    return Lines(
        _apart(drawn),
        [(y(share * top), f"{share * top:,.0f}") for share in (0, 0.5, 1)],
        [(round(_LEFT + n * step_x, 1), f"{days[n]:%b %Y}") for n in marks if days],
    )


def bars(values: Sequence[tuple[str, float, str]]) -> list[Bar]:
    """Lay out (label, value, value as text) as bars, the longest filling its row."""
    longest = max((value for _, value, _ in values), default=0) or 1
    return [Bar(label, round(100 * value / longest, 1), text) for label, value, text in values]


def _round_up(value: float) -> float:
    """The next round number, so that grid lines have round labels."""
    if value <= 0:
        return 1
    size = float(10 ** (len(str(int(value))) - 1))
    return next(size * step for step in (1, 2, 4, 5, 8, 10) if size * step >= value)


def _apart(drawn: list[Line], least: float = 14) -> list[Line]:
    """Move labels of lines that end close together, so that none covers another."""
    placed: list[Line] = []
    for line in sorted(drawn, key=lambda one: one.label_y):
        at = max(line.label_y, placed[-1].label_y + least) if placed else line.label_y
        placed.append(Line(line.name, line.number, line.points, at, line.last))
    return sorted(placed, key=lambda one: one.number)
