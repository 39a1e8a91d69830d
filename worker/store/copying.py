"""Rows in the text form of `COPY`, which PostgreSQL reads as it stands.

Values are text already (`model/values.py`), so a row is joined rather than encoded value by value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.model.mapping import Row
from worker.model.values import Values

_PIECE = 64
"""So many rows are written at once: more take memory and no less time."""
_NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_SPACES = bytes.maketrans(b"\t\n\r", b"   ")


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
    for start in range(0, len(new), _PIECE):
        written: list[bytes] = []
        for one in new[start : start + _PIECE]:
            values = _values(account, one.row, times[one.row.observed_at])
            present = str(one.key), one.valid_from.isoformat(), one.change, run
            written += _payload(one.row.raw), lines([(*values, *present)]).encode()
        yield b"".join(written)


async def children_as_lines(children: Sequence[Values]) -> AsyncIterator[bytes]:
    """Write rows of one child table, in the order of `statements.CHILD_TABLES`."""
    for start in range(0, len(children), _PIECE):
        yield lines(children[start : start + _PIECE]).encode()


def lines(rows: Sequence[Values]) -> str:
    """Write some rows.

    What has a meaning of its own in this form is rare in values: counting what must be there finds it quickly.
    """
    written = "".join(["\t".join([_NULL if value is None else value for value in row]) + "\n" for row in rows])
    if (
        written.count("\\") == sum([row.count(None) for row in rows])
        and written.count("\t") == sum(map(len, rows)) - len(rows)
        and written.count("\n") == len(rows)
        and "\r" not in written
    ):
        return written
    return "".join(["\t".join([_NULL if value is None else _escaped(value) for value in row]) + "\n" for row in rows])


def _values(account: str, row: Row, observed_at: str) -> Values:
    """Return what follows the payload, with nothing before the first tab."""
    metadata = (
        str(row.version),
        row.etag,
        row.content_hash.hex,
        "true" if row.repaired else "false",
        _array(row.unreadable),
        observed_at,
    )
    return "", account, row.id, *row.values, *metadata


def _array(texts: tuple[str, ...]) -> str | None:
    """Write an array of the names of documented members, which need no escapes; nothing where it is empty."""
    return "{" + ",".join(texts) + "}" if texts else None


def _payload(raw: bytes) -> bytes:
    """Between its members JSON may have tabs and line ends, for which a space is as good; no string of it has one."""
    if b"\n" in raw or b"\t" in raw or b"\r" in raw:
        raw = raw.translate(_SPACES)
    return raw.replace(b"\\", b"\\\\")


def _escaped(value: str) -> str:
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)
