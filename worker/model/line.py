"""A row as one text, as PostgreSQL's `COPY` reads it (its documentation, "Text Format").

With an object for each of some hundred and fifty values a record waited for memory half of the time (decision 32).
"""

from __future__ import annotations

import re
from typing import NamedTuple

Values = tuple[str | None, ...]
"""The values of a row in the order of its columns, as text that PostgreSQL reads."""

_NULL = "\\N"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
"""What has a meaning of its own in this form."""

_TABLE = str.maketrans(_ESCAPES)
_escape = re.compile(r"\\.")
_needs_escape = re.compile(rb"\\(?:[\\ntr]|u00(?:09|0[aA]|0[dD]|5[cC]))").search
"""How it stands in a text of JSON, where it does; most records have not even a backslash."""


class Form(NamedTuple):
    """What is written between values, and for one that is null."""

    between: str
    null: str


PLAIN = Form("\t", _NULL)
GUARDED = Form("\0", "\ud800")
"""For values in which something is to be escaped: these characters are in none, for `record.py` replaces them."""


def form_of(raw: bytes, *, conformed: bool) -> Form:
    """Return the form for the values of a record; one that was conformed may have JSON for values."""
    return GUARDED if b"\\" in raw and (conformed or _needs_escape(raw)) else PLAIN


def as_plain(written: str) -> str:
    """Return what was written in the guarded form in the plain one, with what needs it escaped."""
    for character, escape in _ESCAPES.items():
        written = written.replace(character, escape)
    return written.replace(GUARDED.between, PLAIN.between).replace(GUARDED.null, _NULL)


def escaped(value: str) -> str:
    """Return a single value as it is written between others."""
    return value if value.isprintable() and "\\" not in value else value.translate(_TABLE)


def values_of(line: str) -> Values:
    """Take a line apart."""
    return tuple(None if one == _NULL else _unescaped(one) if "\\" in one else one for one in line.split("\t"))


def _unescaped(value: str) -> str:
    return _escape.sub(lambda found: _CHARACTERS[found[0]], value)


_CHARACTERS = {escape: character for character, escape in _ESCAPES.items()}
