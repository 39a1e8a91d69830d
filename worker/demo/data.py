"""Made-up referrals over two years, with groups of equal times; the same for the same seed."""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Any

from worker.demo import ticks
from worker.demo.dice import chance
from worker.demo.lifecycle import Life, live
from worker.demo.referral import referral

CATEGORIES = ("inbound", "outbound", "lead", "marketplace", "independent")
WEIGHTS = (34, 28, 16, 12, 10)


def make_referrals(
    count: int,
    seed: int,
    newest: datetime,
    *,
    span_days: int = 730,
    tie_share: float = 0.06,
    tie_size: int = 6,
) -> list[dict[str, Any]]:
    """Make `count` referrals in order of creation, in the `span_days` before `newest` (aware), denser near it.

    No time is after `newest`, and at least one `updatedDateTime` is `newest` itself. About `tie_share` of the rows
    share their `updatedDateTime` in groups of `tie_size`.
    """
    rng = Random(seed)
    now = ticks.of(newest)
    span = span_days * ticks.DAY
    births = sorted(now - int(span * rng.random() ** 2) - ticks.MINUTE for _ in range(count))
    lives = [_begin(rng, birth, now) for birth in births]
    updated = _tied(rng, [life.updated for _, life in lives], tie_share, tie_size)
    if updated:
        updated[max(range(count), key=updated.__getitem__)] = now
    return [referral(rng, category, life, changed) for (category, life), changed in zip(lives, updated, strict=True)]


def make_referral(seed: int, now: int) -> dict[str, Any]:
    """Make one referral, created at `now` (ticks): New if it came in, Active if it went out."""
    rng = Random(seed)
    category, life = _begin(rng, now, now)
    return referral(rng, category, life, now)


def _begin(rng: Random, created: int, now: int) -> tuple[str, Life]:
    category = rng.choices(CATEGORIES, weights=WEIGHTS)[0]
    return category, live(rng, created, now, incoming=category in {"inbound", "lead", "marketplace"})


def _tied(rng: Random, updated: list[int], share: float, size: int) -> list[int]:
    """Return the times with some neighbours moved up to one shared instant: never before a row's own time."""
    result = list(updated)
    order = sorted(range(len(updated)), key=updated.__getitem__)
    for start in range(0, len(order) - size + 1, max(size, 1)):
        if chance(rng, share):
            group = order[start : start + size]
            for position in group:
                result[position] = updated[group[-1]]
    return result
