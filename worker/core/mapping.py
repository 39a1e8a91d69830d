"""A record becomes a row with its child rows, or a reject that says why.

Derived from the declarations in `referral.py`. Nulls and missing members anywhere are normal; enums are open text;
where the documents contradict themselves (an array that is sometimes an object, a number sent as a string) both forms
are read. What PostgreSQL could not hold makes a reject of this one record, never of the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from worker.core import instant
from worker.core.instant import MIN_VALUE, Instant
from worker.core.page import Page, Record
from worker.core.referral import CHILDREN, KNOWN_UNSTORED, NOT_CONTENT, REFERRAL, Child, Column, Group, Kind

MAX_ID_LENGTH = 200
"""Longer ids cannot be a key: a B-tree entry ends at about 2,700 bytes. The API's are GUIDs of 36."""

MAX_NUMBER_DIGITS = 1_000
"""Numbers with an exponent beyond this are refused: far larger ones are stored as 0 by PostgreSQL's binary format."""

_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="sorted")
_PLAIN = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True)
class Row:
    """A record mapped for `partner_center.referrals` and its child tables.

    `version` is `updatedDateTime` in ticks, 0 where the source gave none. `content_hash` covers the payload without
    what may differ between two answers of one version. Values are JSON-ready: numbers exact, timestamps as text
    floored to the microsecond.
    """

    id: str
    version: Instant
    content_hash: UUID
    etag: str | None
    values: dict[str, Any] = field(repr=False)
    children: dict[str, list[dict[str, Any]]] = field(repr=False)
    record: Record
    observed_at: datetime
    by_id: bool = False


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


class _FieldError(Exception):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


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
    tree = record.tree
    if tree is None:
        return Reject(None, record.raw, record.fault)
    record_id = record.id
    if record_id is None or len(record_id) > MAX_ID_LENGTH:
        return Reject(None, record.raw, "the id is missing, empty or too long", "id")
    version = MIN_VALUE
    try:
        version = _version(tree)
        values = _read(tree, _REFERRAL_GROUPS, "", unknown)
        children = {child.table: rows for child in CHILDREN for rows in _child_rows(child, tree, unknown)}
        for child in CHILDREN:
            if child.nested is not None:
                children[child.nested.table] = list(_nested_rows(child, child.nested, tree, unknown))
        etag = _text(tree.get("eTag"))
        content_hash = _content_hash(tree)
    except _FieldError as error:
        return Reject(record_id, record.raw, str(error), error.path, version)
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        return Reject(record_id, record.raw, f"cannot be mapped: {type(error).__name__}", None, version)
    return Row(record_id, version, content_hash, etag, values, children, record, observed_at, by_id)


def merge_missing(newer: Record, older: dict[str, Any]) -> Record:
    """Complete an answer with the members that only an earlier, fuller answer of the same version gave.

    Objects are merged member by member; arrays and scalars are the newer answer's.
    """
    tree = _merged(newer.tree or {}, older)
    return Record(_PLAIN.encode(tree), tree, repaired=newer.repaired)


def changed_columns(before: Row, after: Row) -> list[str]:
    """Name what differs: columns, and child tables without their prefix; `payload` where only open members do."""
    names = [name for name, value in after.values.items() if before.values.get(name) != value]
    names += [
        table.removeprefix("referral_") for table, rows in after.children.items() if before.children.get(table) != rows
    ]
    return names or ["payload"]


def _merged(newer: dict[str, Any], older: dict[str, Any]) -> dict[str, Any]:
    both = dict(newer)
    for key, value in older.items():
        if key not in newer:
            both[key] = value
        elif isinstance(value, dict) and isinstance(newer[key], dict):
            both[key] = _merged(newer[key], value)
    return both


def _version(tree: dict[str, Any]) -> Instant:
    value = tree.get("updatedDateTime")
    if value is None:
        return MIN_VALUE
    if not isinstance(value, str):
        raise _FieldError("updatedDateTime", "not a timestamp")
    try:
        return instant.parse(value)
    except ValueError as error:
        raise _FieldError("updatedDateTime", str(error)) from None


def _content_hash(tree: dict[str, Any]) -> UUID:
    content = {key: value for key, value in tree.items() if key not in NOT_CONTENT and not key.startswith("@odata.")}
    return UUID(bytes=hashlib.blake2b(_CANONICAL.encode(content), digest_size=16).digest())


# -- declarations, prepared once ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Prepared:
    path: tuple[str, ...]
    dotted: str
    columns: tuple[tuple[str, tuple[str, ...], Kind], ...]
    known: frozenset[str]


def _prepare(groups: tuple[Group, ...], arrays: Iterable[tuple[str, ...]], extra: frozenset[str]) -> list[_Prepared]:
    """Add to each group the member names that are known in its object, and groups for the objects in between."""
    columns: dict[tuple[str, ...], tuple[Column, ...]] = {group.path: group.columns for group in groups}
    known: dict[tuple[str, ...], set[str]] = {(): set(extra)}
    for path in [*columns, *arrays]:
        for depth, name in enumerate(path):
            known.setdefault(path[:depth], set()).add(name)
    for path, held in columns.items():
        known.setdefault(path, set()).update(member for column in held for member in column.members)
    return [
        _Prepared(
            path,
            "".join(f"{name}." for name in path),
            tuple((column.name, column.members, column.kind) for column in columns.get(path, ())),
            frozenset(members),
        )
        for path, members in known.items()
    ]


def _prepare_child(child: Child) -> list[_Prepared]:
    nested = [path for _, path in child.nested.arrays] if child.nested is not None else []
    return _prepare(child.groups, nested, frozenset())


_REFERRAL_GROUPS = _prepare(REFERRAL, [path for child in CHILDREN for _, path in child.arrays], KNOWN_UNSTORED)
_CHILD_GROUPS = {
    child.table: _prepare_child(child) for parent in CHILDREN for child in (parent, parent.nested) if child is not None
}


# -- reading values ----------------------------------------------------------------------------------------------


def _read(tree: dict[str, Any], groups: list[_Prepared], prefix: str, unknown: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for group in groups:
        parent: Any = tree
        for name in group.path:
            parent = parent.get(name) if isinstance(parent, dict) else None
        if not isinstance(parent, dict):
            values.update((name, None) for name, _, _ in group.columns)
            continue
        if not parent.keys() <= group.known:
            unknown.update(
                f"{prefix}{group.dotted}{name}" for name in parent.keys() - group.known if not name.startswith("@")
            )
        for name, members, kind in group.columns:
            value = parent.get(members[0])
            if value is None and len(members) > 1:
                value = next((parent[other] for other in members if parent.get(other) is not None), None)
            if value is None or (kind is Kind.TEXT and value.__class__ is str):
                values[name] = value
            else:
                values[name] = _convert(value, kind, f"{prefix}{group.dotted}{members[0]}")
    return values


def _convert(value: Any, kind: Kind, path: str) -> Any:
    try:
        match kind:
            case Kind.TEXT:
                return _text(value)
            case Kind.NUMERIC:
                return _number(value)
            case Kind.BOOLEAN:
                return _boolean(value)
            case Kind.TIMESTAMP:
                return _timestamp(value)
    except ValueError as error:
        raise _FieldError(path, str(error)) from None


def _text(value: Any) -> str | None:
    """Keep what a later version of the API may put where text was documented: as its JSON."""
    return value if value is None or isinstance(value, str) else _PLAIN.encode(value).decode()


def _number(value: Any) -> str | None:
    if value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("not a number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not number.is_finite() or abs(number.adjusted()) > MAX_NUMBER_DIGITS or len(str(number)) > MAX_NUMBER_DIGITS:
        raise ValueError("a number beyond what can be stored exactly")
    return str(number)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("neither true nor false")


def _timestamp(value: Any) -> str | None:
    if value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("not a timestamp")
    at = instant.parse(value)
    return instant.to_datetime(at).isoformat() if at != MIN_VALUE else None


# -- child tables ------------------------------------------------------------------------------------------------


def _elements(tree: dict[str, Any], path: tuple[str, ...], child: Child) -> Iterator[tuple[int, dict[str, Any]]]:
    value: Any = tree
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, dict):
        keyed = child.keyed_by and child.keyed_by not in value
        value = [{child.keyed_by: key, child.scalar: item} for key, item in value.items()] if keyed else [value]
    if value is None:
        return
    if not isinstance(value, list):
        raise _FieldError(".".join(path), "not an array")
    for position, element in enumerate(value):
        if isinstance(element, dict):
            yield position, element
        elif element is not None:
            yield position, {child.scalar: element}


def _child_rows(child: Child, tree: dict[str, Any], unknown: set[str]) -> Iterator[list[dict[str, Any]]]:
    rows = []
    for tag, path in child.arrays:
        prefix = ".".join(path) + "[]."
        for position, element in _elements(tree, path, child):
            row = _read(element, _CHILD_GROUPS[child.table], prefix, unknown)
            row["position"] = position
            if tag:
                row["kind"] = tag
            rows.append(row)
    yield rows


def _nested_rows(parent: Child, child: Child, tree: dict[str, Any], unknown: set[str]) -> Iterator[dict[str, Any]]:
    for _, path in parent.arrays:
        for parent_position, element in _elements(tree, path, parent):
            for _, inner in child.arrays:
                prefix = ".".join((*path, "[]", *inner)) + "[]."
                for position, part in _elements(element, inner, child):
                    row = _read(part, _CHILD_GROUPS[child.table], prefix, unknown)
                    yield row | {"parent_position": parent_position, "position": position}
