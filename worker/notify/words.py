"""Texts that strangers wrote, amounts and times, as they may stand in a message."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

LONGEST = 120
"""Characters of a name; what is cut off is in the copy."""

_MARKUP = str.maketrans(
    {"<": "\u2039", ">": "\u203a", "*": "\u2217", "_": "\uff3f", "`": "\u2019", "~": "\u223c", "|": "\u00a6"}
    | {"\\": "\u29f5", "#": "\u266f", "@": "\uff20", "[": "(", "]": ")", "{": "(", "}": ")"}
)
"""Look-alikes that no channel takes for markup or a mention.

Escapes would have to be each service's own, and apprise knows a hundred of them.
"""

_LINK = re.compile(r"(?<=[^\W_])[.\u3002\uff0e\uff61](?=[^\W\d_]{2})")
"""A dot that services would make a link of."""

_ADDRESS = re.compile(
    r"[A-Za-z0-9._+%-]{1,64}@(?!everyone|here|channel|all\b)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+"
)
_BLANKS = re.compile(r"\s+")
_MARKS = 2
"""Combining marks on one character; more of them cover the lines above and below."""


def plain_text(text: str | None, longest: int = LONGEST) -> str:
    """Return a stranger's text on one line, without markup, links, mentions, or characters that are not seen."""
    kept, marks = [], 0
    for sign in _BLANKS.sub(" ", unicodedata.normalize("NFC", (text or "")[: 8 * longest])):
        category = unicodedata.category(sign)
        marks = marks + 1 if category[0] == "M" else 0
        if category[0] != "C" and category not in ("Zl", "Zp") and marks <= _MARKS:
            kept.append(sign)
    plain = "".join(kept).translate(_MARKUP).replace("//", "\u2215\u2215")
    plain = _BLANKS.sub(" ", _LINK.sub("\u2024", plain)).strip()
    return plain if len(plain) <= longest else f"{plain[: longest - 1].rstrip()}…"


def address(text: str | None) -> str:
    """Return an e-mail address as it is, or nothing where it is more, or less, than one."""
    return text if text is not None and _ADDRESS.fullmatch(text) else ""


def amount(value: Decimal | str | None, currency: str | None) -> str:
    """Write an amount in its own currency; nothing where there is none."""
    if value is None:
        return ""
    number = Decimal(value)
    figures = f"{number:,.2f}" if abs(number) < Decimal(10) ** 15 else f"{number:.3E}"
    return f"{plain_text(currency, 8)} {figures}".strip()


def moment(at: datetime | None, zone: ZoneInfo) -> str:
    """Write a time for people."""
    if at is None:
        return "never"
    local = at.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M %Z}"


def span(length: timedelta) -> str:
    """Write a duration in its two largest units."""
    minutes = int(abs(length).total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return _joined(((days, "day"), (hours, "hour"))) if days < 14 else _joined(((days, "day"),))  # noqa: PLR2004 - two weeks in, hours say nothing
    return _joined(((hours, "hour"), (minutes, "minute"))) or "less than a minute"


def _joined(parts: Sequence[tuple[int, str]]) -> str:
    return " ".join(f"{number} {unit}{'' if number == 1 else 's'}" for number, unit in parts if number)


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
