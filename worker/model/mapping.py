"""A record becomes a row with its child rows, or a reject that says why.

Derived from the declarations in `schema.py`. Nulls and missing members anywhere are normal; enums are open text;
where the documents contradict themselves (an array that is sometimes an object, a number sent as a string) both forms
are read, and a member that is neither is null in its column and named in `unreadable`. Only what makes a row
impossible, a missing id above all, rejects a record: this one, never the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from worker.model.instant import MIN_VALUE, Instant
from worker.model.members import Shape, shape, text
from worker.model.naming import shown
from worker.model.reader import Parts, Values
from worker.model.record import Page, Record, decode_record
from worker.model.schema import CHILDREN, KNOWN_UNSTORED, NESTED, REFERRAL, REFERRAL_COLUMNS, Child, is_content
from worker.model.typed import CANONICAL, Typed
from worker.model.window import TimeField

MAX_ID_LENGTH = 200
"""Longer ids cannot be a key: a B-tree entry ends at about 2,700 bytes. The API's are GUIDs of 36."""

_PLAIN = msgspec.json.Encoder(decimal_format="number")
_PLACES = {column.name: place for place, column in enumerate(REFERRAL_COLUMNS)}


@dataclass(slots=True)
class Row:
    """A record mapped for `partner_center.referrals` and its child tables.

    `version` is `updatedDateTime` in ticks, 0 where the source gave none. `content_hash` covers the payload without
    what may differ between two answers of one version. `values` are in the order of `REFERRAL_COLUMNS`, those of a part
    in the order of its table's columns, all as text that PostgreSQL reads: numbers exact, timestamps floored to the
    microsecond. `unreadable` names members that are not what their column takes, which is null. `raw` is the payload;
    the decoded record is not kept, for it takes ten times the memory.
    """

    id: str
    version: Instant
    content_hash: UUID
    etag: str | None
    values: Values = field(repr=False)
    children: Parts = field(repr=False)
    raw: bytes = field(repr=False)
    repaired: bool
    observed_at: datetime
    by_id: bool = False
    unreadable: tuple[str, ...] = ()

    def value(self, column: str) -> str | None:
        """Return the value of a column of `partner_center.referrals`."""
        return self.values[_PLACES[column]]

    @property
    def record(self) -> Record:
        """The record again, decoded anew."""
        return replace(decode_record(self.raw), repaired=self.repaired)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record kept aside: its id when readable, its bytes, the reason, and the member at fault when it is one."""

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
    """What pages came to: rows, rejects, and the paths of members that no document names."""

    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unknown_fields: set[str] = field(default_factory=set)

    @property
    def records(self) -> int:
        """How many records these are."""
        return len(self.rows) + len(self.rejects)

    @property
    def ids(self) -> set[str]:
        """The ids that can be read."""
        return {row.id for row in self.rows} | {reject.id for reject in self.rejects if reject.id is not None}


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


def map_record(
    record: Record, observed_at: datetime, *, by_id: bool = False, unknown_fields: set[str] | None = None
) -> Row | Reject:
    """Map one record; what no document names is added to `unknown_fields`."""
    unknown = set[str]() if unknown_fields is None else unknown_fields
    if record.typed is not None and (row := _quickly(record, record.typed, observed_at, unknown, by_id=by_id)):
        return row
    tree = record.tree
    if tree is None:
        return Reject(record.id, record.raw, record.fault)
    record_id = record.id
    if record_id is None or len(record_id) > MAX_ID_LENGTH:
        return Reject(None, record.raw, "the id is missing, empty or too long", "id")
    version, unreadable = record.time(TimeField.UPDATED) or MIN_VALUE, set[str]()
    try:
        values, objects = _REFERRAL.read(tree, "", unknown, unreadable)
        children: Parts = {}
        _add_parts(children, objects, _ARRAYS, (), unknown, unreadable)
        etag = text(tree.get("eTag"))
        content_hash = _hash(CANONICAL.encode({name: value for name, value in tree.items() if is_content(name)}))
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        return Reject(record_id, record.raw, f"cannot be mapped: {type(error).__name__}", None, version)
    return Row(
        record_id,
        version,
        content_hash,
        etag,
        tuple(values),
        children,
        record.raw,
        record.repaired,
        observed_at,
        by_id,
        tuple(sorted(unreadable)),
    )


def _quickly(record: Record, typed: Typed, observed_at: datetime, unknown: set[str], *, by_id: bool) -> Row | None:
    """Map a record that is as documented; None where it needs a closer look."""
    record_id, version = record.id, record.time(TimeField.UPDATED)
    if record_id is None or len(record_id) > MAX_ID_LENGTH or version is None:
        return None
    try:
        values, children = typed.read(unknown)
    except (ValueError, OverflowError):
        return None
    etag, content_hash = text(typed.member("eTag")), _hash(typed.content())
    return Row(
        record_id, version, content_hash, etag, values, children, record.raw, record.repaired, observed_at, by_id
    )


def merge_missing(newer: Record, older: dict[str, Any]) -> Record:
    """Complete an answer with the members that only an earlier, fuller answer of the same version gave.

    Objects are merged member by member; arrays and scalars are the newer answer's.
    """
    tree = _merged(newer.tree or {}, older)
    return Record(_PLAIN.encode(tree), tree, repaired=newer.repaired)


def lacking(full: dict[str, Any], thin: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the members of one answer that another of the same record lacks, as dotted paths.

    Links, `@odata` members and nulls say nothing and do not count.
    """
    paths = set[str]()
    for key, value in full.items():
        if key == "links" or key.startswith("@") or value is None:
            continue
        if key not in thin:
            paths.add(prefix + shown(key))
        elif isinstance(value, dict) and isinstance(thin[key], dict):
            paths |= lacking(value, thin[key], f"{prefix}{shown(key)}.")
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


def _hash(content: bytes) -> UUID:
    return UUID(bytes=hashlib.blake2b(content, digest_size=16).digest())


# -- child tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Array:
    """An array, prepared: in which of the walked objects it is, and how its elements become rows."""

    child: Child
    tag: tuple[str, ...]
    place: int
    member: str
    path: str
    prefix: str
    elements: Shape
    nested: tuple[_Array, ...]


def _arrays(children: Iterable[Child], outer: Shape, prefix: str = "") -> tuple[_Array, ...]:
    found = []
    for child in children:
        elements = shape(child.groups, child.nested)
        for tag, path in child.arrays:
            dotted = prefix + ".".join(path)
            beyond = f"{dotted}[]."
            nested = _arrays(child.nested, elements, beyond)
            tags = (tag,) if tag else ()
            found.append(_Array(child, tags, outer.places[path[:-1]], path[-1], dotted, beyond, elements, nested))
    return tuple(found)


_REFERRAL = shape(REFERRAL, CHILDREN, KNOWN_UNSTORED)
_ARRAYS = _arrays(CHILDREN, _REFERRAL)


def _add_parts(
    parts: Parts,
    objects: list[Any],
    arrays: tuple[_Array, ...],
    parent: tuple[str, ...],
    unknown: set[str],
    unreadable: set[str],
) -> None:
    for array in arrays:
        holder = objects[array.place]
        value = holder.get(array.member) if holder.__class__ is dict else None
        if value is None or value == []:
            continue
        rows = parts.setdefault(array.child.table, [])
        read, prefix, keys = array.elements.read, array.prefix, (*array.tag, *parent)
        for number, element in enumerate(value if value.__class__ is list else _as_list(value, array, unreadable)):
            if element.__class__ is not dict:
                if element is None:
                    continue
                element = {array.child.scalar: element}  # noqa: PLW2901 - the object that it stands for
            values, inner = read(element, prefix, unknown, unreadable)
            position = str(number)
            rows.append((position, *keys, *values))
            if array.nested:
                _add_parts(parts, inner, array.nested, (position,), unknown, unreadable)


def _as_list(value: Any, array: _Array, unreadable: set[str]) -> list[Any]:
    """Read an object in place of an array: its members are the elements, or it is the only one."""
    child = array.child
    if not isinstance(value, dict):
        unreadable.add(array.path)
        return []
    if child.keyed_by and child.keyed_by not in value:
        return [{child.keyed_by: key, child.scalar: item} for key, item in value.items()]
    return [value]
