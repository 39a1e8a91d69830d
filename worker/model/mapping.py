"""A record becomes a row with its child rows, or a rejected record that says why.

Derived from the declarations in `schema.py`. Nulls and missing members anywhere are normal; enums are open text;
where the documents contradict themselves (an array that is sometimes an object, a number sent as a string) both forms
are read, and a member that is neither is null in its column and named in `unreadable`. Only what makes a row
impossible, a missing id above all, rejects a record: this one, never the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec

from worker.model.conform import Conformed, Path, conform, without_unknown
from worker.model.documented import REFERRAL_NODE, identifier
from worker.model.instant import MIN_VALUE, Instant
from worker.model.line import Values, form_of, values_of
from worker.model.naming import shown
from worker.model.reader import ChildLines, read
from worker.model.record import Page, Record, decode_record, encode_record
from worker.model.schema import CHILDREN, NESTED, REFERRAL_COLUMNS, is_content
from worker.model.values import text
from worker.model.window import TimeField

MAX_ID_LENGTH = 200
"""Longer ids cannot be a key: a B-tree entry ends at about 2,700 bytes. The API's are GUIDs of 36."""

NEVER = Instant(-1)
"""Below the version of every record."""

_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="deterministic")
"""Keys of dictionaries in order; the members of a structure are in order by themselves."""

_NOT_CONTENT = [identifier(name) for name in REFERRAL_NODE.kinds if not is_content(name)]
_take_not_content = attrgetter(*_NOT_CONTENT)
_PLACES = {column.name: place for place, column in enumerate(REFERRAL_COLUMNS)}


@dataclass(slots=True)
class Row:
    """A record mapped for `partner_center.referrals` and its child tables.

    `version` is `updatedDateTime` in ticks, 0 where the source gave none. `content_hash` covers the payload without
    what may differ between two answers of one version. `line` has the values in the order of `REFERRAL_COLUMNS`,
    `children` those of child rows, all as PostgreSQL reads them: numbers exact, timestamps floored to the microsecond.
    `unreadable` names members that are not what their column takes, which is null. `raw` is the payload; the decoded
    record is not kept, for it takes ten times the memory.
    """

    id: str
    version: Instant
    content_hash: UUID
    etag: str | None
    line: bytes = field(repr=False)
    children: ChildLines = field(repr=False)
    raw: bytes = field(repr=False)
    repaired: bool
    observed_at: datetime
    by_id: bool = False
    unreadable: tuple[str, ...] = ()
    _values: Values | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def values(self) -> Values:
        """The values of `REFERRAL_COLUMNS`."""
        if self._values is None:
            self._values = values_of(self.line.decode())
        return self._values

    def value(self, column: str) -> str | None:
        """Return the value of a column of `partner_center.referrals`."""
        return self.values[_PLACES[column]]

    @property
    def record(self) -> Record:
        """The record again, decoded anew."""
        return replace(decode_record(self.raw), repaired=self.repaired)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A rejected record: its id when readable, its bytes, the reason, and the member at fault when it is one."""

    id: str | None
    raw: bytes = field(repr=False)
    reason: str
    field: str | None = None
    version: Instant = MIN_VALUE

    @property
    def digest(self) -> bytes:
        """Identity of the bytes, to tell a re-read of the same record from a new one."""
        return hashlib.blake2b(self.raw, digest_size=16).digest()


@dataclass(slots=True)
class Mapped:
    """What pages came to: rows, rejected records, and the paths of members that no document names."""

    rows: list[Row] = field(default_factory=list)
    rejects: list[RejectedRecord] = field(default_factory=list)
    unknown_fields: set[str] = field(default_factory=set)

    @property
    def records(self) -> int:
        """How many records these are."""
        return len(self.rows) + len(self.rejects)

    @property
    def ids(self) -> set[str]:
        """The ids that can be read."""
        return {referral_id for referral_id, _ in self.versions}

    @property
    def versions(self) -> Iterator[tuple[str, Instant]]:
        """The ids that can be read, each with a version that was shown."""
        yield from ((row.id, row.version) for row in self.rows)
        yield from ((reject.id, reject.version) for reject in self.rejects if reject.id is not None)

    def without(self, ids: Container[str | None]) -> Mapped:
        """Return it without the records of some ids."""
        rows = [row for row in self.rows if row.id not in ids]
        return Mapped(rows, [reject for reject in self.rejects if reject.id not in ids], self.unknown_fields)


@dataclass(frozen=True, slots=True)
class MappedPage:
    """A page as it was read, and what it came to: mapped once, on its way from the client to the store."""

    page: Page
    mapped: Mapped


def map_pages(pages: Iterable[Page]) -> Mapped:
    """Map every record of some pages; nothing is dropped."""
    mapped = Mapped()
    for page in pages:
        for record in page.records:
            row = map_record(record, page.observed_at, by_id=page.by_id, unknown_fields=mapped.unknown_fields)
            if isinstance(row, Row):
                mapped.rows.append(row)
            else:
                mapped.rejects.append(row)
    return mapped


def version_of(record: Record) -> Instant:
    """Return a record's version: its `updatedDateTime`, 0 where the source gave none."""
    return record.time(TimeField.UPDATED) or MIN_VALUE


def map_record(
    record: Record, observed_at: datetime, *, by_id: bool = False, unknown_fields: set[str] | None = None
) -> Row | RejectedRecord:
    """Map one record; what no document names is added to `unknown_fields`."""
    if record.structure is None and record.tree is None:
        return RejectedRecord(record.id, record.raw, record.fault)
    record_id = record.id
    if record_id is None or len(record_id) > MAX_ID_LENGTH:
        return RejectedRecord(None, record.raw, "the id is missing, empty or too long", "id")
    version = version_of(record)
    try:
        structure, line, children, conformed = _read(record)
        etag, content_hash = text(record.member("eTag")), _hash(structure, conformed.rest if conformed else None)
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        return RejectedRecord(record_id, record.raw, f"cannot be mapped: {type(error).__name__}", None, version)
    unreadable: tuple[str, ...] = ()
    if conformed is not None:
        unreadable = tuple(sorted(conformed.unreadable))
        if unknown_fields is not None:
            unknown_fields |= conformed.unknown
    return Row(
        record_id,
        version,
        content_hash,
        etag,
        line,
        children,
        record.raw,
        record.repaired,
        observed_at,
        by_id,
        unreadable,
    )


def _read(record: Record) -> tuple[msgspec.Struct, bytes, ChildLines, Conformed | None]:
    """Read a record; one that is not as documented is brought into that form first."""
    try:
        if record.structure is not None:
            return record.structure, *read(record.structure, form_of(record.raw, conformed=False)), None
        conformed = without_unknown(record.tree or {})
        lines = read(conformed.structure, form_of(record.raw, conformed=True))
    except (ValueError, OverflowError, msgspec.ValidationError):  # a value that its column does not take
        conformed = conform(record.tree or {})
        lines = read(conformed.structure, form_of(record.raw, conformed=True))
    return conformed.structure, *lines, conformed


def _hash(structure: msgspec.Struct, rest: list[tuple[Path, Any]] | None) -> UUID:
    """Hash the content: the same for every order of members, and whether one is null or absent."""
    values = zip(_NOT_CONTENT, _take_not_content(structure), strict=True)
    kept = [(name, value) for name, value in values if value is not None]
    for name, _ in kept:
        setattr(structure, name, None)
    content = _CANONICAL.encode([structure, rest] if rest else structure)
    for name, value in kept:
        setattr(structure, name, value)
    return UUID(bytes=hashlib.blake2b(content, digest_size=16).digest())


def merge_missing(newer: Record, older: dict[str, Any]) -> Record:
    """Complete an answer with the members that only an earlier, more complete answer of the same version gave.

    Objects are merged member by member; arrays and scalars are the newer answer's.
    """
    tree = _merged(newer.tree or {}, older)
    return encode_record(tree, repaired=newer.repaired)


def lacking(full: dict[str, Any], partial: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the members of one answer that another of the same record lacks, as dotted paths.

    Links, `@odata` members and nulls say nothing and do not count.
    """
    paths = set[str]()
    for key, value in full.items():
        if key == "links" or key.startswith("@") or value is None:
            continue
        if key not in partial:
            paths.add(prefix + shown(key))
        elif isinstance(value, dict) and isinstance(partial[key], dict):
            paths |= lacking(value, partial[key], f"{prefix}{shown(key)}.")
    return paths


def changed_columns(before: Row, after: Row) -> list[str]:
    """Name what differs: columns, and child tables without their prefix; `payload` where only open members do."""
    pairs = zip(_PLACES, before.values, after.values, strict=True)
    names = [name for name, one, other in pairs if one != other]
    names += [table.removeprefix("referral_") for table in changed_tables(before, after)]
    return names or ["payload"]


def changed_tables(before: Row, after: Row) -> list[str]:
    """Name the child tables whose rows differ."""
    tables = [child.table for child in (*CHILDREN, *NESTED)]
    return [table for table in tables if (before.children.get(table) or []) != (after.children.get(table) or [])]


def _merged(newer: dict[str, Any], older: dict[str, Any]) -> dict[str, Any]:
    both = dict(newer)
    for key, value in older.items():
        if key not in newer:
            both[key] = value
        elif isinstance(value, dict) and isinstance(newer[key], dict):
            both[key] = _merged(newer[key], value)
    return both
