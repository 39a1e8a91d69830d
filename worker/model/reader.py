"""A structure becomes the values of a row and of its child rows.

A referral has some two hundred values, so a look at each would be most of the cost. Here an object and all inside it are
laid out as one flat tuple, and one call of `operator.itemgetter` takes all values of one kind from it. Texts are columns
as they are; Python is left with one function call for each number, boolean and time. So columns are ordered by kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import add, itemgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from worker.model.documented import REFERRAL_NODE, Node, identifier
from worker.model.schema import CHILDREN, REFERRAL, Child, Group, Kind
from worker.model.values import READERS, Parts, Values

_Flat = tuple[Any, ...]
"""The members of an object in the order of its structure, then those of the objects inside it."""

_Take = Callable[[Any], tuple[Any, ...]]

_QUICK = READERS | {Kind.BOOLEAN: {None: None, True: "true", False: "false"}.__getitem__}
"""Booleans are no texts any more where they have a structure."""

_PREPARED = 100
"""Positions whose text is made beforehand; a longer array is rare."""


def read(record: msgspec.Struct) -> tuple[Values, Parts]:
    """Return the values of `REFERRAL_COLUMNS` and the rows of each child table.

    Raises ValueError, OverflowError or msgspec.ValidationError where a value is not what its column takes.
    """
    parts: Parts = {}
    flat = _LAYOUT.flatten(record)
    _add_parts(parts, flat, _ARRAYS, ())
    return _VALUES(flat), parts


# -- objects inside objects --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an object becomes flat, and the place of each member in that."""

    flatten: Callable[[Any], _Flat]
    places: dict[tuple[str, ...], int]


def _layout(node: Node) -> _Layout:
    places = {(name,): place for place, name in enumerate(node.members)}
    inside = []
    for name, inner in node.objects.items():
        layout, start = _layout(inner), len(places)
        places |= {(name, *path): start + place for path, place in layout.places.items()}
        inside.append((places[name,], layout.flatten, (None,) * len(layout.places)))

    def flatten(record: Any) -> _Flat:
        flat: _Flat = astuple(record)
        for place, flatten_inner, absent in inside:
            one = flat[place]
            flat += absent if one is None else flatten_inner(one)
        return flat

    return _Layout(flatten if inside else astuple, places)


def _taker(places: list[int]) -> _Take:
    """Return what takes the members at some places, always as a tuple."""
    if not places:
        return lambda _: ()
    take = itemgetter(*places)
    return take if len(places) > 1 else lambda flat: (take(flat),)


# -- the values of one object ------------------------------------------------------------------------------------------


def _reader(groups: tuple[Group, ...], layout: _Layout) -> Callable[[_Flat], Values]:
    """Return what reads an object's columns, kind by kind; a second name of a member counts where there is no first."""
    columns = [(column, group.path) for kind in Kind for group in groups for column in group.columns if column.kind is kind]
    found = {
        kind: [layout.places[*path, column.members[0]] for column, path in columns if column.kind is kind] for kind in Kind
    }
    texts = _taker(found.pop(Kind.TEXT))
    others = tuple((_taker(places), _QUICK[kind]) for kind, places in found.items() if places)
    spares = tuple(
        (number, _QUICK[column.kind], layout.places[*path, member])
        for number, (column, path) in enumerate(columns)
        for member in column.members[1:]
    )
    if not others:
        return texts

    def values(flat: _Flat) -> Values:
        row = texts(flat)
        for take, read_one in others:
            row = (*row, *map(read_one, take(flat)))
        for number, read_one, place in spares:
            if row[number] is None and flat[place] is not None:
                row = (*row[:number], read_one(flat[place]), *row[number + 1 :])
        return row

    return values


# -- the rows of arrays ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Array:
    """An array: how its elements become rows of a child table.

    `heads` are what a row begins with, by position, for an array that is in no other; `before` and `after` are the
    nulls beside the value of an element that is a bare text. `is_plain`: nothing is inside the elements.
    """

    child: Child
    table: str
    element: type[msgspec.Struct]
    tag: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]
    flatten: Callable[[Any], _Flat]
    values: Callable[[_Flat], Values]
    nested: _Arrays
    is_plain: bool
    before: tuple[None, ...]
    after: tuple[None, ...]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """All arrays of an object."""

    take: _Take
    each: tuple[_Array, ...]


def _arrays_of(node: Node, layout: _Layout, children: tuple[Child, ...]) -> _Arrays:
    each, places = [], []
    for child in children:
        for tag, path in child.arrays:
            each.append(_array(node.at(path[:-1]).arrays[path[-1]], child, (tag,) if tag else ()))
            places.append(layout.places[path])
    return _Arrays(_taker(places), tuple(each))


def _array(node: Node, child: Child, tag: tuple[str, ...]) -> _Array:
    layout = _layout(node)
    alone = [column.members[0] for column in child.columns].index(child.scalar)
    return _Array(
        child,
        child.table,
        node.structure,
        tag,
        tuple((str(position), *tag) for position in range(_PREPARED)),
        layout.flatten,
        _reader(child.groups, layout),
        _arrays_of(node, layout, child.nested),
        not node.objects and not node.arrays,
        (None,) * alone,
        (None,) * (len(child.columns) - alone - 1),
    )


def _add_parts(parts: Parts, holder: _Flat, arrays: _Arrays, parent: tuple[str, ...]) -> None:
    for elements, array in zip(arrays.take(holder), arrays.each):  # noqa: B905 - made together
        if elements:
            if elements.__class__ is not list:
                elements = _listed(elements, array)  # noqa: PLW2901 - the array that it stands for
            rows = parts.get(array.table)
            if rows is None:
                rows = parts[array.table] = []
            heads = array.heads
            if parent or len(elements) > _PREPARED:
                heads = tuple((str(position), *array.tag, *parent) for position in range(len(elements)))
            if array.is_plain and {array.element}.issuperset(map(type, elements)):
                rows += map(add, heads, map(array.values, map(astuple, elements)))
            else:
                _add_each(parts, rows, heads, elements, array)


def _add_each(
    parts: Parts, rows: list[Values], heads: tuple[tuple[str, ...], ...], elements: list[Any], array: _Array
) -> None:
    for head, element in zip(heads, elements):  # noqa: B905 - there may be more heads
        if element.__class__ is array.element:
            flat = array.flatten(element)
            rows.append(head + array.values(flat))
            if array.nested.each:
                _add_parts(parts, flat, array.nested, head[:1])
        elif element is not None:
            rows.append((*head, *array.before, element, *array.after))


def _listed(value: Any, array: _Array) -> list[Any]:
    """Read an object in place of an array: its members are the elements, or it is the only one."""
    child = array.child
    if value.__class__ is array.element:
        return [value]
    if child.keyed_by in value:
        return [msgspec.convert(value, array.element)]
    key, item = identifier(child.keyed_by), identifier(child.scalar)
    return [array.element(**{key: name, item: one}) for name, one in value.items()]


_LAYOUT = _layout(REFERRAL_NODE)
_VALUES = _reader(REFERRAL, _LAYOUT)
_ARRAYS = _arrays_of(REFERRAL_NODE, _LAYOUT, CHILDREN)
