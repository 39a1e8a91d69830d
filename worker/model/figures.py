"""How a figure of a run is declared: beside its value, with where it shows.

A new figure is a field of `Counts` or `Facts` (model/counts.py), and a line where it arises. Its place in the row of
`sync.runs`, in the log line `run_finished`, in `sync.totals` and in the metrics follow from the declaration; its column
is made by a migration, as each column is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Counter:
    """A metric that adds up over all runs of a kind, `referral_sync_NAME_total`; `label` tells its parts apart."""

    name: str
    meaning: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Where a figure of a run shows.

    stored   whether it has a column of its name in `sync.runs`
    logged   its key in `run_finished`, empty where it is not logged
    counter  the metric that adds it up, which needs no column
    gauge    the meaning of `referral_sync_last_run_NAME`, which shows the column of its name in `sync.status`
    """

    name: str
    stored: bool
    logged: str
    counter: Counter | None
    gauge: str


def figure(
    default: Any, *, stored: bool = True, logged: str = "", counter: Counter | None = None, gauge: str = ""
) -> Any:
    """Declare a field of a dataclass that is a figure; `default` is what a run without it has, or what makes that."""
    metadata = {"stored": stored, "logged": logged, "counter": counter, "gauge": gauge}
    return (
        field(default_factory=default, metadata=metadata)
        if callable(default)
        else field(default=default, metadata=metadata)
    )


def figures_of(declared: Any) -> tuple[Figure, ...]:
    """Return the figures that a dataclass declares, in their order."""
    return tuple(Figure(one.name, **one.metadata) for one in fields(declared) if one.metadata)


def added(first: Any, second: Any) -> Any:
    """Add two values of one figure: numbers and maps of numbers add up, sets unite, of texts the later one stands."""
    if first is None or second is None:
        return second if first is None else first
    match first:
        case str():
            return second or first
        case frozenset():
            return first | second
        case Mapping():
            return {key: first.get(key, 0) + second.get(key, 0) for key in {**first, **second}}
    return first + second
