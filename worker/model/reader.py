"""A structure becomes the values of a row and of its child rows; the columns of each table are in `columns.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from worker.model import columns
from worker.model.columns import Arrays
from worker.model.documented import REFERRAL_NODE, Node, identifier
from worker.model.schema import CHILDREN, Child
from worker.model.values import ChildRows, Values

_POSITIONS = tuple(map(str, range(100)))
"""The text of those that are usual."""


@dataclass(frozen=True, slots=True)
class _Array:
    """An array: how its elements become rows of a child table.

    `before` and `after` are the nulls beside the value of an element that is a bare text.
    """

    child: Child
    table: str
    element: type[msgspec.Struct]
    tag: tuple[str, ...]
    values: Callable[[Any], Values]
    arrays: Callable[[Any], Arrays] | None
    nested: tuple[_Array, ...]
    before: tuple[None, ...]
    after: tuple[None, ...]


def read(record: msgspec.Struct) -> tuple[Values, ChildRows]:
    """Return the values of `REFERRAL_COLUMNS` and the rows of each child table.

    Raises ValueError, OverflowError or msgspec.ValidationError where a value is not what its column takes.
    """
    child_rows: ChildRows = {}
    _add_child_rows(child_rows, columns.referrals_arrays(record), _ARRAYS, ())
    return columns.referrals(record), child_rows


def _add_child_rows(child_rows: ChildRows, found: Arrays, arrays: tuple[_Array, ...], parent: tuple[str, ...]) -> None:
    for elements, array in zip(found, arrays):  # noqa: B905 - they are as many, and strict costs
        if not elements:
            continue
        if elements.__class__ is not list:
            elements = _listed(elements, array)  # noqa: PLW2901 - the array that it stands for
        table, kind, values = array.table, array.element, array.values
        keys = array.tag + parent
        rows = child_rows.get(table)
        if rows is None:
            rows = child_rows[table] = []
        positions = _POSITIONS if len(elements) <= len(_POSITIONS) else map(str, range(len(elements)))
        for position, element in zip(positions, elements):  # noqa: B905 - there may be more positions
            if element.__class__ is kind:
                rows.append((position, *keys, *values(element)))
                if array.arrays is not None:
                    _add_child_rows(child_rows, array.arrays(element), array.nested, (position,))
            elif element is not None:
                rows.append((position, *keys, *array.before, element, *array.after))


def _listed(value: Any, array: _Array) -> list[Any]:
    """Read an object in place of an array: its members are the elements, or it is the only one."""
    child = array.child
    if value.__class__ is array.element:
        return [value]
    if child.keyed_by in value:
        return [msgspec.convert(value, array.element)]
    key, item = identifier(child.keyed_by), identifier(child.scalar)
    return [array.element(**{key: name, item: one}) for name, one in value.items()]


def _arrays(node: Node, children: tuple[Child, ...]) -> Iterator[_Array]:
    for child in children:
        alone = [column.members[0] for column in child.columns].index(child.scalar)
        for tag, path in child.arrays:
            element = node.at(path[:-1]).arrays[path[-1]]
            yield _Array(
                child,
                child.table,
                element.structure,
                (tag,) if tag else (),
                getattr(columns, child.table),
                getattr(columns, f"{child.table}_arrays", None),
                tuple(_arrays(element, child.nested)),
                (None,) * alone,
                (None,) * (len(child.columns) - alone - 1),
            )


_ARRAYS = tuple(_arrays(REFERRAL_NODE, CHILDREN))
