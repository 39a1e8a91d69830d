"""Rows in the text form of `COPY`, which PostgreSQL reads as it stands.

Values are text already (`model/values.py`), so a row is joined rather than encoded value by value.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.model.mapping import Row
from worker.model.values import Values

_ROWS, _CHILDREN = 64, 1_000
"""So many are written at once, a referral's row being a hundred times as long: more take memory and no less time."""
_NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_SPACES = bytes.maketrans(b"\t\n\r", b"   ")
_escape = re.compile(rb"\\(?:[\\ntrNTR]|[uU]00(?:09|0[aA]|0[dD]|5[cC]))")
"""What has a meaning of its own in this form stands in a string of JSON as one of these, or not at all."""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to copy, with its number and what its first version is: from when it holds, and what began it."""

    row: Row
    key: int
    valid_from: datetime
    change: str


async def rows_as_lines(account: str, run_id: int, new: Sequence[NewRow]) -> AsyncIterator[bytes]:
    """Write rows of `partner_center.referrals`, in the order of `statements.ROW`."""
    times = {at: at.isoformat() for at in {one.row.observed_at for one in new}}
    run = str(run_id)
    for start in range(0, len(new), _ROWS):
        written: list[bytes] = []
        for one in new[start : start + _ROWS]:
            row = one.row
            values = (
                account,
                row.id,
                *row.values,
                str(row.version),
                row.etag,
                row.content_hash.hex,
                "true" if row.repaired else "false",
                _array(row.unreadable),
                times[row.observed_at],
                str(one.key),
                one.valid_from.isoformat(),
                one.change,
                run,
            )
            written += _payload(row.raw), b"\t", line(values, escaped=_has_escapes(row.raw)).encode(), b"\n"
        yield b"".join(written)


def children_as_lines(rows: Iterable[tuple[int, Row]], tables: Collection[str]) -> dict[str, list[str]]:
    """Write the rows of child tables, those of each table in the order of `statements.CHILD_TABLES`.

    `rows` are referrals with their keys.
    """
    written: dict[str, list[str]] = {table: [] for table in tables}
    for key, row in rows:
        before, escaped = f"{key}\t", _has_escapes(row.raw)
        for table, children in row.children.items():
            if table in written:
                written[table] += [before + line(child, escaped=escaped) for child in children]
    return written


async def in_pieces(lines: Sequence[str]) -> AsyncIterator[bytes]:
    """Put lines together as they are sent."""
    for start in range(0, len(lines), _CHILDREN):
        yield ("\n".join(lines[start : start + _CHILDREN]) + "\n").encode()


def line(values: Values, *, escaped: bool) -> str:
    """Write one row without its end; `escaped` where a value may have what has a meaning of its own in this form."""
    if escaped:
        values = tuple([None if value is None else _escaped(value) for value in values])
    return "\t".join([_NULL if value is None else value for value in values])


def _has_escapes(raw: bytes) -> bool:
    """Tell whether a value may have one; most records have no backslash, which is seen ten times faster."""
    return b"\\" in raw and _escape.search(raw) is not None


def _array(texts: tuple[str, ...]) -> str | None:
    """Write an array of the names of documented members, which need no escapes; nothing where it is empty."""
    return "{" + ",".join(texts) + "}" if texts else None


def _payload(raw: bytes) -> bytes:
    """Put spaces for tabs and line ends, which JSON has between its members only."""
    if b"\n" in raw or b"\t" in raw or b"\r" in raw:
        raw = raw.translate(_SPACES)
    return raw.replace(b"\\", b"\\\\")


def _escaped(value: str) -> str:
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)
