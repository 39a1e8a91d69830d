"""How the values of one kind are read.

A value is text as PostgreSQL reads it, whatever the kind of its column: so it is copied without being encoded again,
and two that are equal are equal text. Each reader raises ValueError for what its column does not take.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from worker.model import instant
from worker.model.codec import encode
from worker.model.schema import Kind

MAX_NUMBER_DIGITS = 1_000
"""Numbers with an exponent beyond this are refused: PostgreSQL refuses those beyond 131,072 digits."""


def text(value: Any) -> str | None:
    """Keep what a later version of the API may put where text was documented: as its JSON."""
    return value if value is None or isinstance(value, str) else encode(value).decode()


def number(value: Any) -> str | None:
    """Read a number, or a text that is one, exactly."""
    kind = value.__class__
    if value is None or (kind is str and not value):
        return None
    if kind not in _NUMBERS:
        raise ValueError("not a number")
    try:
        exact = value if kind is Decimal else Decimal(value)
    except InvalidOperation:
        raise ValueError("not a number") from None
    written = str(exact)
    if not exact.is_finite() or abs(exact.adjusted()) > MAX_NUMBER_DIGITS or len(written) > MAX_NUMBER_DIGITS:
        raise ValueError("a number beyond what can be stored exactly")
    return written


_NUMBERS = (int, Decimal, str)


def boolean(value: Any) -> str | None:
    """Read true or false, also as text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower()
    raise ValueError("neither true nor false")


def timestamp(value: Any) -> str | None:
    """Read a time, floored to the microsecond; None where it says "not set"."""
    if value is None or value == "":
        return None
    if value.__class__ is not str:
        raise ValueError("not a timestamp")
    return instant.floored(value)


BOOLEANS = {True: "true", False: "false"}
"""The text of what a structure has."""

READERS: dict[Kind, Callable[[Any], str | None]] = {
    Kind.TEXT: text,
    Kind.NUMERIC: number,
    Kind.BOOLEAN: boolean,
    Kind.TIMESTAMP: timestamp,
}
