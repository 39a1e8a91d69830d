"""A structure becomes the values of a row and of its child rows.

A referral has some two hundred values, so a look at each would be most of the cost. Here one call of
`operator.attrgetter` takes all values of one kind from an object and what is inside it, texts are columns as they are,
and what is left for Python is one function call for each number, boolean and time. That is why columns are ordered by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from worker.model.documented import REFERRAL_NODE, Node, identifier
from worker.model.schema import CHILDREN, REFERRAL, REFERRAL_COLUMNS, Child, Column, Group, Kind
from worker.model.values import READERS, Parts, Values

_Take = Callable[[Any], tuple[Any, ...]]
"""Takes some members of a structure."""

_PREPARED = 100
"""Positions whose text is made beforehand; a longer array is rare."""


def read(record: msgspec.Struct) -> tuple[Values, Parts]:
    """Return the values of `REFERRAL_COLUMNS` and the rows of each child table.

    Raises ValueError, AttributeError or msgspec.ValidationError where a value is not what its column takes.
    """
    parts: Parts = {}
    _fill(record)
    _add_parts(parts, record, _arrays, ())
    return _values(record), parts


# -- objects inside objects --------------------------------------------------------------------------------------------


def _filler(node: Node) -> Callable[[Any], None]:
    """Return what puts an empty object where there is null, so that every path can be followed.

    The empty one is the field's default, so it is not encoded: null and absent are the same content.
    """
    names = [identifier(name) for name in node.objects]
    empty = [inner.empty for inner in node.objects.values()]
    take = _taker(names)
    deeper = [(place, _filler(inner)) for place, inner in enumerate(node.objects.values()) if inner.objects]

    def fill(record: Any) -> None:
        found = take(record)
        if None in found:
            for name, one, instead in zip(names, found, empty, strict=True):
                if one is None:
                    force_setattr(record, name, instead)
        for place, fill_inner in deeper:
            inner = found[place]
            if inner is not None and inner is not empty[place]:
                fill_inner(inner)

    return fill


def _taker(paths: list[str]) -> _Take:
    """Return what takes members at dotted paths, always as a tuple."""
    if not paths:
        return lambda _: ()
    take = attrgetter(*paths)
    return take if len(paths) > 1 else lambda record: (take(record),)


# -- the values of one object ------------------------------------------------------------------------------------------


def _reader(groups: tuple[Group, ...]) -> Callable[[Any], Values]:
    """Return what reads an object's columns, kind by kind as `Kind` has them."""
    found = {kind: [(group, one) for group in groups for one in group.columns if one.kind is kind] for kind in Kind}
    texts = _taker([_path(group.path, column.members[0]) for group, column in found.pop(Kind.TEXT)])
    others = tuple(
        (_taker([_path(group.path, column.members[0]) for group, column in columns]), READERS[kind])
        for kind, columns in found.items()
        if columns
    )
    if not others:
        return texts

    def values(record: Any) -> Values:
        row = texts(record)
        for take, read_one in others:
            row = (*row, *map(read_one, take(record)))
        return row

    return values


def _with_spares(groups: tuple[Group, ...], columns: tuple[Column, ...]) -> Callable[[Any], Values]:
    """Return the same for an object with columns that have a second name for their member, for where there is no first."""
    plain = _reader(groups)
    paths = {column.name: group.path for group in groups for column in group.columns}
    spares = [
        (place, READERS[column.kind], attrgetter(_path(paths[column.name], member)))
        for place, column in enumerate(columns)
        for member in column.members[1:]
    ]

    def values(record: Any) -> Values:
        row = plain(record)
        for place, read_one, take in spares:
            if row[place] is None and (value := take(record)) is not None:
                row = (*row[:place], read_one(value), *row[place + 1 :])
        return row

    return values


def _path(path: tuple[str, ...], member: str) -> str:
    return ".".join(map(identifier, (*path, member)))


# -- the rows of arrays ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Array:
    """An array: how its elements become rows of a child table.

    `heads` are what a row begins with, by position, for an array that is in no other; `before` and `after` are the
    nulls beside the value of an element that is a bare text. `is_plain`: there is nothing inside the elements.
    """

    child: Child
    element: type[msgspec.Struct]
    tag: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]
    fill: Callable[[Any], None]
    values: Callable[[Any], Values]
    nested: _Arrays
    is_plain: bool
    before: tuple[None, ...]
    after: tuple[None, ...]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """All arrays of an object."""

    take: _Take
    each: tuple[_Array, ...]


def _arrays_of(node: Node, children: tuple[Child, ...]) -> _Arrays:
    paths = [(child, tag, path) for child in children for tag, path in child.arrays]
    each = tuple(_array(node.at(path[:-1]).arrays[path[-1]], child, (tag,) if tag else ()) for child, tag, path in paths)
    return _Arrays(_taker([_path(path[:-1], path[-1]) for _, _, path in paths]), each)


def _array(node: Node, child: Child, tag: tuple[str, ...]) -> _Array:
    alone = [column.members[0] for column in child.columns].index(child.scalar)
    return _Array(
        child,
        node.structure,
        tag,
        tuple((str(position), *tag) for position in range(_PREPARED)),
        _filler(node),
        _reader(child.groups),
        _arrays_of(node, child.nested),
        not node.objects and not node.arrays,
        (None,) * alone,
        (None,) * (len(child.columns) - alone - 1),
    )


def _add_parts(parts: Parts, record: Any, arrays: _Arrays, parent: tuple[str, ...]) -> None:
    for elements, array in zip(arrays.take(record), arrays.each, strict=True):
        if not elements:
            continue
        rows = parts.setdefault(array.child.table, [])
        if elements.__class__ is not list:
            elements = _listed(elements, array)  # noqa: PLW2901 - the array that it stands for
        heads = array.heads
        if parent or len(elements) > _PREPARED:
            heads = tuple((str(position), *array.tag, *parent) for position in range(len(elements)))
        if array.is_plain and elements[0].__class__ is array.element:
            try:
                rows += list(map(add, heads, map(array.values, elements)))
            except AttributeError:  # a null or a text among them
                _add_each(parts, zip(heads, elements, strict=False), array, rows)
        else:
            _add_each(parts, zip(heads, elements, strict=False), array, rows)


def _add_each(
    parts: Parts, elements: Iterable[tuple[tuple[str, ...], Any]], array: _Array, rows: list[Values]
) -> None:
    for head, element in elements:
        if element.__class__ is array.element:
            array.fill(element)
            rows.append(head + array.values(element))
            if array.nested.each:
                _add_parts(parts, element, array.nested, head[:1])
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


_fill = _filler(REFERRAL_NODE)
_values = _with_spares(REFERRAL, REFERRAL_COLUMNS)
_arrays = _arrays_of(REFERRAL_NODE, CHILDREN)
