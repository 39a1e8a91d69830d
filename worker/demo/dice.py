"""Seeded choices, quick enough for tens of thousands of records; `random.choice` is several times slower."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import TypeVar

T = TypeVar("T")
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


def chance(rng: Random, share: float) -> bool:
    """Return true in `share` of the throws."""
    return rng.random() < share


def below(rng: Random, end: int) -> int:
    """Return a whole number from 0 up to, not including, `end`."""
    return int(rng.random() * end)


def pick(rng: Random, choices: Sequence[T]) -> T:
    """Return one of the choices."""
    return choices[int(rng.random() * len(choices))]


def some(rng: Random, choices: Sequence[T], least: int, most: int) -> list[T]:
    """Return `least` to `most` different neighbours among the choices."""
    start = below(rng, len(choices) - most)
    return list(choices[start : start + least + below(rng, most - least + 1)])


def guid(rng: Random) -> str:
    """Return a GUID in its usual form."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def code(rng: Random, length: int) -> str:
    """Return capitals and digits."""
    return "".join([pick(rng, _ALPHABET) for _ in range(length)])


def money(rng: Random) -> Decimal | None:
    """Return an amount: whole, with cents, with more digits than a float holds; now and then none."""
    amount = int(10 ** rng.uniform(3, 6.5))
    form = below(rng, 20)
    if form == 0:
        return None
    if form == 1:
        return Decimal(amount * 10**13 + below(rng, 10**13)).scaleb(-13)
    return Decimal(amount) if form % 2 else Decimal(amount * 100 + below(rng, 100)).scaleb(-2)
