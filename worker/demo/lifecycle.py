"""How a made-up deal lives: which states it passed, and when, so that its dates agree with each other."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from worker.demo import ticks
from worker.demo.dice import below, chance

ANSWER_WITHIN = 14 * ticks.DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """States and instants of one deal; times in ticks, None where that never happened."""

    created: int
    updated: int
    status: str
    substatus: str
    accepted: int | None
    closed: int | None
    expires: int | None


def live(rng: Random, created: int, now: int, *, incoming: bool) -> Life:
    """Tell what became of a deal created at `created` by the time `now`; nothing in it is later than `now`."""
    expires = created + ANSWER_WITHIN if incoming else None

    def state(status: str, substatus: str, *, accepted: int | None, closed: int | None, last: int) -> Life:
        updated = last
        if chance(rng, 0.4):  # somebody touches it later, Closed ones too
            updated += int((now - last) * rng.random() ** 3)
        return Life(
            created=created,
            updated=updated,
            status=status,
            substatus=substatus,
            accepted=accepted,
            closed=closed,
            expires=expires,
        )

    if incoming:
        answered = created + int(ANSWER_WITHIN * rng.random() ** 2)
        ignored = chance(rng, 0.12)
        if ignored and created + ANSWER_WITHIN <= now:
            end = created + ANSWER_WITHIN
            return state("Closed", "Expired", accepted=None, closed=end, last=end)
        if ignored or answered > now:
            seen = created + int((now - created) * rng.random())
            if chance(rng, 0.3):
                return state("New", "Received", accepted=None, closed=None, last=seen)
            return state("New", "Pending", accepted=None, closed=None, last=created)
        if chance(rng, 0.15):
            return state("Closed", "Declined", accepted=None, closed=answered, last=answered)
        accepted = answered
    else:
        # The real API stamps an own deal's acceptance a little before its creation.
        accepted = created - below(rng, 9 * ticks.SECOND // 10) if chance(rng, 0.7) else created
    closes = max(accepted, created) + int(rng.expovariate(1 / (90 * ticks.DAY))) + ticks.HOUR
    if closes > now:
        return state("Active", "Accepted", accepted=accepted, closed=None, last=max(accepted, created))
    outcome = rng.choices(("Won", "Lost", "Error"), weights=(50, 46, 4))[0]
    late = 23 * ticks.SECOND if outcome == "Won" else 0  # its registration is written after the closing
    return state("Closed", outcome, accepted=accepted, closed=closes, last=min(closes + late, now))
