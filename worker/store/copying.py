"""Rows in the text form of `COPY`, which PostgreSQL reads as it stands; their values have it since they were mapped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.model.line import PLAIN, escaped
from worker.model.mapping import Row

_ROWS, _CHILDREN = 64, 250
"""So many referrals are written at once, and their child rows of one table: more take memory and no less time."""
_SPACES = bytes.maketrans(b"\t\n\r", b"   ")


@dataclass(slots=True)  # a frozen one takes three times as long to make, and one is made for each record
class NewRow:
    """A row to copy, with its number and what its first version is: from when it holds, and what began it."""

    row: Row
    key: int
    valid_from: datetime
    change: str


async def rows_as_lines(account: str, run_id: int, new: Sequence[NewRow]) -> AsyncIterator[bytes]:
    """Write rows of `partner_center.referrals`, in the order of `sql.ROW`."""
    times = {at: at.isoformat() for at in {one.row.observed_at for one in new}}
    account_field = escaped(account)
    for start in range(0, len(new), _ROWS):
        written: list[bytes] = []
        for one in new[start : start + _ROWS]:
            row = one.row
            etag = PLAIN.null if row.etag is None else escaped(row.etag)
            fields = (
                f"\t{account_field}\t{escaped(row.id)}\t{row.version}\t{etag}"
                f"\t{row.content_hash.hex}\t{row.repaired}\t{_array(row.unreadable)}\t{times[row.observed_at]}"
                f"\t{one.key}\t{one.valid_from.isoformat()}\t{one.change}\t{run_id}\n"
            )
            written += _payload(row.raw), b"\t", row.line, fields.encode()
        yield b"".join(written)


def children_as_lines(rows: Iterable[tuple[int, Row]], tables: Collection[str]) -> dict[str, list[str]]:
    """Write the rows of child tables, those of each referral and table as one text, in the order of `sql.CHILD_TABLES`.

    `rows` are referrals with their keys.
    """
    written: dict[str, list[str]] = {table: [] for table in tables}
    for key, row in rows:
        end = f"\t{key}\n"
        for table, lines in row.children.items():
            if lines and table in written:
                written[table].append(end.join(lines) + end)
    return written


async def in_pieces(written: Sequence[str]) -> AsyncIterator[bytes]:
    """Put texts together as they are sent."""
    for start in range(0, len(written), _CHILDREN):
        yield "".join(written[start : start + _CHILDREN]).encode()


def _array(texts: tuple[str, ...]) -> str:
    """Write an array of the names of documented members, which need no escapes; nothing where it is empty."""
    return "{" + ",".join(texts) + "}" if texts else PLAIN.null


def _payload(raw: bytes) -> bytes:
    """Put spaces for tabs and line ends, which JSON has between its members only."""
    if b"\n" in raw or b"\t" in raw or b"\r" in raw:
        raw = raw.translate(_SPACES)
    return raw.replace(b"\\", b"\\\\")
