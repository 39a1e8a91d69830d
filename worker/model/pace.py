"""How long work takes if it goes on as so far."""

from __future__ import annotations


def seconds_left(elapsed: float, done: int, total: int) -> float | None:
    """Return the seconds that the rest of `total` parts takes at the pace of the first `done`; None before the first.

    An estimate: the windows of a backfill are not equally dense.
    """
    return elapsed / done * (total - done) if done else None
