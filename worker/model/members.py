"""The members of a JSON object become the values of columns, in the order of the declarations in `schema.py`.

A value is text as PostgreSQL reads it, whatever the kind of its column: so it is copied without being encoded again,
and two that are equal are equal text.

The usual case runs at the speed of C: all members of an object are taken in one sweep, and one look at their types says
that they are what was documented. Only what is unusual is read member by member. A member that cannot be read is null
in its column and named as such: it never costs the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from worker.model import instant
from worker.model.naming import shown
from worker.model.schema import Child, Group, Kind

MAX_NUMBER_DIGITS = 1_000
"""Numbers with an exponent beyond this are refused: PostgreSQL refuses those beyond 131,072 digits."""

_TEXT_OR_NOTHING = frozenset({str, type(None)})
_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A group: which of the walked objects it reads, and its members, the first `texts` of them plain text."""

    place: int
    dotted: str
    known: frozenset[str]
    members: tuple[str, ...]
    texts: int
    others: tuple[tuple[int, Callable[[Any], str | None]], ...]
    spare: tuple[tuple[int, tuple[str, ...]], ...]
    absent: tuple[None, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of object, prepared for reading.

    `walk` leads to the objects inside it, as `walk_to` does.
    """

    walk: tuple[tuple[int, str], ...]
    groups: tuple[_Prepared, ...]
    places: dict[tuple[str, ...], int]

    def read(
        self, tree: dict[str, Any], prefix: str, unknown: set[str], unreadable: set[str]
    ) -> tuple[list[str | None], list[Any]]:
        """Return the values of all columns, and the objects that the walk found.

        Adds, after `prefix`, to `unknown` the paths of members that no document names, and to `unreadable` those of
        members that are not what their column takes, which is then null.
        """
        objects: list[Any] = [tree]
        for place, name in self.walk:
            holder = objects[place]
            objects.append(holder.get(name) if holder.__class__ is dict else None)
        values: list[Any] = []
        for group in self.groups:
            holder = objects[group.place]
            if holder.__class__ is not dict:
                values += group.absent
                continue
            if not holder.keys() <= group.known:
                others = holder.keys() - group.known
                unknown.update(f"{prefix}{group.dotted}{shown(name)}" for name in others if not name.startswith("@"))
            found = list(map(holder.get, group.members))
            if group.others or not _TEXT_OR_NOTHING.issuperset(map(type, found)):
                _convert(found, holder, group, prefix, unreadable)
            values += found
        return values, objects


def walk_to(
    groups: Iterable[Group], children: Iterable[Child]
) -> tuple[list[tuple[int, str]], dict[tuple[str, ...], int]]:
    """Lead from an object (0) to those inside it that hold some groups or arrays, and to those in between.

    Returns the steps, each naming an object found before and its member, and the number of the object at each path.
    """
    walk: list[tuple[int, str]] = []
    places: dict[tuple[str, ...], int] = {(): 0}
    for path in [*(group.path for group in groups), *(path[:-1] for child in children for _, path in child.arrays)]:
        for depth, name in enumerate(path):
            if path[: depth + 1] not in places:
                walk.append((places[path[:depth]], name))
                places[path[: depth + 1]] = len(walk)
    return walk, places


def shape(groups: tuple[Group, ...], children: tuple[Child, ...], also: frozenset[str] = frozenset()) -> Shape:
    """Prepare an object with its groups and its arrays; `also` are members that are known but not read."""
    walk, places = walk_to(groups, children)
    known: dict[tuple[str, ...], set[str]] = {path: set() for path in places}
    known[()].update(also)
    for path in [*places, *(path for child in children for _, path in child.arrays)]:
        if path:
            known[path[:-1]].add(path[-1])
    for group in groups:
        known[group.path].update(member for column in group.columns for member in column.members)
    in_between = [Group(path, ()) for path in places if path not in {group.path for group in groups}]
    prepared = [_prepare(group, places[group.path], frozenset(known[group.path])) for group in (*groups, *in_between)]
    return Shape(tuple(walk), tuple(prepared), places)


def _prepare(group: Group, place: int, known: frozenset[str]) -> _Prepared:
    kinds = [column.kind for column in group.columns]
    texts = next((number for number, kind in enumerate(kinds) if kind is not Kind.TEXT), len(kinds))
    return _Prepared(
        place,
        "".join(f"{name}." for name in group.path),
        known,
        tuple(column.members[0] for column in group.columns),
        texts,
        tuple((number, READERS[kind]) for number, kind in enumerate(kinds) if number >= texts),
        tuple((number, column.members[1:]) for number, column in enumerate(group.columns) if column.members[1:]),
        (None,) * len(kinds),
    )


def _convert(found: list[Any], holder: dict[str, Any], group: _Prepared, prefix: str, unreadable: set[str]) -> None:
    """Read what is not text, or should be and is not, in place."""
    for number, names in group.spare:
        if found[number] is None:
            found[number] = next((holder[name] for name in names if holder.get(name) is not None), None)
    if not _TEXT_OR_NOTHING.issuperset(map(type, found[: group.texts])):
        found[: group.texts] = map(text, found[: group.texts])
    for number, read in group.others:
        if (value := found[number]) is not None:
            try:
                found[number] = read(value)
            except (ValueError, OverflowError):
                found[number] = None
                unreadable.add(f"{prefix}{group.dotted}{group.members[number]}")


def text(value: Any) -> str | None:
    """Keep what a later version of the API may put where text was documented: as its JSON."""
    return value if value is None or isinstance(value, str) else _ENCODE(value).decode()


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


def _boolean(value: Any) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower()
    raise ValueError("neither true nor false")


def _timestamp(value: Any) -> str | None:
    if value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("not a timestamp")
    return instant.floored(value)


READERS: dict[Kind, Callable[[Any], str | None]] = {
    Kind.TEXT: text,
    Kind.NUMERIC: _number,
    Kind.BOOLEAN: _boolean,
    Kind.TIMESTAMP: _timestamp,
}
