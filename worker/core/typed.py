"""The usual record, decoded straight into the shape of the declarations in `referral.py`.

A dictionary for every object of every record, and a look at each member, is most of what a load would cost. Here
msgspec fills one structure for each object, checks the types on the way, and leaves nothing for the garbage collector
to walk through. A record that is not as documented is refused as a whole, and read member by member instead
(`members.py`), which stays the one definition of what a record means; a member that no document names is learned, so
that it costs the slow way once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from worker.core.members import READERS, walk_to
from worker.core.referral import CHILDREN, KNOWN_UNSTORED, REFERRAL, Child, Group, Kind, is_content

MAX_LEARNED = 50
"""A source that names its members at random is not learned: its records are read the slow way."""

_TYPES: dict[Kind | None, Any] = {
    Kind.TEXT: str | None | UnsetType,
    Kind.TIMESTAMP: str | None | UnsetType,
    Kind.BOOLEAN: bool | None | UnsetType,
    Kind.NUMERIC: Any,
    None: Any,
}
CANONICAL = msgspec.json.Encoder(decimal_format="number", order="sorted")
"""What the hash of a record's content is made of: the same for a structure and for a dictionary."""


@dataclass(slots=True)
class _Node:
    """An object as documented: members by name, being a kind of value, an object, or an array (of these elements)."""

    name: str
    kinds: dict[str, Kind | None] = field(default_factory=dict)
    objects: dict[str, _Node] = field(default_factory=dict)
    arrays: dict[str, _Node] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)

    def knows(self, member: str) -> bool:
        return member in self.kinds or member in self.objects or member in self.arrays

    def at(self, path: tuple[str, ...]) -> _Node:
        node = self
        for name in path:
            node = node.objects.setdefault(name, _Node(f"{node.name}.{name}"))
        return node

    def structure(self) -> type[msgspec.Struct]:
        """Build the type: members in the order of their names, which is that of the canonical encoding."""
        types: dict[str, Any] = {name: _TYPES[kind] for name, kind in self.kinds.items()}
        types |= {name: node.structure() | None | UnsetType for name, node in self.objects.items()}
        for name, node in self.arrays.items():
            element: Any = node.structure()
            types[name] = list[element | str | None] | None | UnsetType
        fields: list[tuple[str, Any, Any]] = [(identifier(name), types[name], UNSET) for name in sorted(types)]
        return msgspec.defstruct(
            self.name,
            fields,
            rename={identifier(name): name for name in types},
            forbid_unknown_fields=True,
            gc=False,
        )


@cache
def identifier(member: str) -> str:
    """Name a structure's field after a member; the prefix keeps it from being a keyword, or one of its own."""
    return "m_" + "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}_" for sign in member)


def _documented() -> _Node:
    root = _node("Referral", REFERRAL, CHILDREN)
    root.kinds |= dict.fromkeys(KNOWN_UNSTORED, None) | {"id": Kind.TEXT}
    return root


def _node(name: str, groups: tuple[Group, ...], children: tuple[Child, ...]) -> _Node:
    node = _Node(name)
    for group in groups:
        holder = node.at(group.path)
        holder.kinds |= {member: column.kind for column in group.columns for member in column.members}
    for child in children:
        for _, path in child.arrays:
            nested = (child.nested,) if child.nested is not None else ()
            node.at(path[:-1]).arrays[path[-1]] = _node(".".join((name, *path)), child.groups, nested)
    return node


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a structure becomes the values of columns: prepared once for each type."""

    walk: tuple[tuple[int, str], ...]
    groups: tuple[tuple[int, Callable[[Any], tuple[Any, ...]], tuple[None, ...]], ...]
    spare: tuple[tuple[int, str], ...]
    others: tuple[tuple[int, Callable[[Any], Any]], ...]
    learned: tuple[tuple[int, str, str], ...]
    places: dict[tuple[str, ...], int]

    @property
    def plain(self) -> Callable[[Any], tuple[Any, ...]] | None:
        """How the values are taken where that is all there is to do, as for most parts."""
        if self.walk or self.spare or self.others or self.learned:
            return None
        return self.groups[0][1]

    def read(self, found: Any, unknown: set[str]) -> tuple[list[Any], list[Any]]:
        """Return the values of all columns, and the objects inside; raises ValueError."""
        objects = [found]
        for place, name in self.walk:
            holder = objects[place]
            inner = getattr(holder, name) if holder is not None else None
            objects.append(inner if inner is not UNSET else None)
        values: list[Any] = []
        for place, take, absent in self.groups:
            holder = objects[place]
            values += take(holder) if holder is not None else absent
        for place, name in self.spare:
            if values[place] is UNSET or values[place] is None:
                values[place] = getattr(found, name)
        if UNSET in values:
            values = [None if value is UNSET else value for value in values]
        for place, read in self.others:
            if (value := values[place]) is not None:
                values[place] = read(value)
        for place, name, path in self.learned:
            if objects[place] is not None and getattr(objects[place], name) is not UNSET:
                unknown.add(path)
        return values, objects


def _reading(node: _Node, groups: tuple[Group, ...], arrays: list[tuple[str, ...]], prefix: str) -> _Reading:
    walk, places = walk_to([*(group.path for group in groups), *(path[:-1] for path in arrays)])
    columns = [column for group in groups for column in group.columns]
    converted = {Kind.NUMERIC, Kind.TIMESTAMP}
    return _Reading(
        tuple((place, identifier(name)) for place, name in walk),
        tuple((places[group.path], _taking(group), (None,) * len(group.columns)) for group in groups),
        tuple((n, identifier(other)) for n, column in enumerate(columns) for other in column.members[1:]),
        tuple((n, READERS[column.kind]) for n, column in enumerate(columns) if column.kind in converted),
        tuple(
            (place, identifier(name), prefix + ".".join((*path, name)))
            for path, place in places.items()
            for name in node.at(path).learned
            if not name.startswith("@")
        ),
        places,
    )


def _taking(group: Group) -> Callable[[Any], tuple[Any, ...]]:
    names = [identifier(column.members[0]) for column in group.columns]
    take = attrgetter(*names)
    return take if len(names) > 1 else lambda holder: (take(holder),)


@dataclass(frozen=True, slots=True)
class _Array:
    table: str
    keys: tuple[Any, ...]
    place: int
    member: str
    scalar: str
    members: tuple[str, ...]
    elements: _Reading
    take: Callable[[Any], tuple[Any, ...]] | None
    nested: tuple[_Array, ...]


def _arrays(node: _Node, outer: _Reading, children: tuple[Child, ...], prefix: str) -> tuple[_Array, ...]:
    found = []
    for child in children:
        nested = (child.nested,) if child.nested is not None else ()
        inner = [path for one in nested for _, path in one.arrays]
        for tag, path in child.arrays:
            elements, beyond = node.at(path[:-1]).arrays[path[-1]], f"{prefix}{'.'.join(path)}[]."
            reading = _reading(elements, child.groups, inner, beyond)
            found.append(
                _Array(
                    child.table,
                    (tag,) if tag else (),
                    outer.places[path[:-1]],
                    identifier(path[-1]),
                    child.scalar,
                    tuple(column.members[0] for column in child.columns),
                    reading,
                    reading.plain,
                    _arrays(elements, reading, nested, beyond),
                )
            )
    return tuple(found)


Parts = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything that follows from the members that are known."""

    decoder: msgspec.json.Decoder[msgspec.Struct]
    reading: _Reading
    arrays: tuple[_Array, ...]
    not_content: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Typed:
    """A record as a structure, and how that is read."""

    found: msgspec.Struct
    prepared: _Prepared

    def member(self, name: str) -> Any:
        """Return a member of the record itself, None where it is not there."""
        value = getattr(self.found, identifier(name))
        return None if value is UNSET else value

    def read(self, unknown: set[str]) -> tuple[list[Any], Parts]:
        """Return the values of `REFERRAL_COLUMNS`, and the parts by table; raises ValueError for one that cannot be.

        Adds to `unknown` the paths of members that no document names.
        """
        values, objects = self.prepared.reading.read(self.found, unknown)
        parts: Parts = {}
        _add_parts(parts, objects, self.prepared.arrays, (), unknown)
        return values, parts

    def content(self) -> bytes:
        """Return the canonical encoding of the record without what is not content."""
        kept = {name: getattr(self.found, name) for name in self.prepared.not_content}
        for name in kept:
            setattr(self.found, name, UNSET)
        encoded = CANONICAL.encode(self.found)
        for name, value in kept.items():
            setattr(self.found, name, value)
        return encoded


class Decoder:
    """Decodes records that are as documented, and learns what they have beyond that."""

    def __init__(self) -> None:
        self._root = _documented()
        self._learned = 0
        self._prepared = _prepared(self._root)

    def decode(self, raw: bytes) -> Typed | None:
        """Return a record as a structure, or None where it has to be read the slow way."""
        try:
            return Typed(self._prepared.decoder.decode(raw), self._prepared)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def learn(self, tree: dict[str, Any]) -> None:
        """Take in the members of a record that no document names, so that the next one like it is read quickly."""
        unknown = {(id(node), member): node for node, member in _unknown(self._root, tree)}
        if not unknown or self._learned + len(unknown) > MAX_LEARNED:
            return
        self._learned += len(unknown)
        for (_, member), node in unknown.items():
            node.kinds[member] = None
            node.learned.add(member)
        self._prepared = _prepared(self._root)


def _prepared(root: _Node) -> _Prepared:
    reading = _reading(root, REFERRAL, [path for child in CHILDREN for _, path in child.arrays], "")
    return _Prepared(
        msgspec.json.Decoder(root.structure(), float_hook=Decimal),
        reading,
        _arrays(root, reading, CHILDREN, ""),
        tuple(identifier(name) for name in root.kinds if not is_content(name)),
    )


def _unknown(node: _Node, tree: dict[str, Any]) -> Iterator[tuple[_Node, str]]:
    for name, value in tree.items():
        if not node.knows(name):
            yield node, name
        elif name in node.objects and isinstance(value, dict):
            yield from _unknown(node.objects[name], value)
        elif name in node.arrays and isinstance(value, list):
            for element in value:
                if isinstance(element, dict):
                    yield from _unknown(node.arrays[name], element)


def _add_parts(
    parts: Parts, objects: list[Any], arrays: tuple[_Array, ...], parent: tuple[int, ...], unknown: set[str]
) -> None:
    for array in arrays:
        holder = objects[array.place]
        elements = getattr(holder, array.member) if holder is not None else None
        if not elements:
            continue
        rows = parts.setdefault(array.table, [])
        take, keys = array.take, (*array.keys, *parent)
        values: Sequence[Any]
        for position, element in enumerate(elements):
            if element is None:
                continue
            if element.__class__ is str:
                values = [element if name == array.scalar else None for name in array.members]
            elif take is not None:
                values = take(element)
                if UNSET in values:
                    values = [None if value is UNSET else value for value in values]
            else:
                values, inner = array.elements.read(element, unknown)
                if array.nested:
                    _add_parts(parts, inner, array.nested, (position,), unknown)
            rows.append((position, *keys, *values))
