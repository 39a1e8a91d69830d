"""A structure becomes the lines of a row and of its child rows; the columns of each table are in `columns.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from worker.model import columns
from worker.model.columns import Arrays
from worker.model.documented import REFERRAL_NODE, Node, identifier
from worker.model.line import GUARDED, Form, as_plain
from worker.model.schema import CHILDREN, Child

ChildLines = dict[str, list[str]]
"""The rows of each child table that has any: position and other keys, then the values."""

_POSITIONS = tuple(map(str, range(100)))
"""The text of those that are usual."""


@dataclass(frozen=True, slots=True)
class _Array:
    """An array: how its elements become rows of a child table.

    `tag` is empty where the table has one array only. `before` and `after` say how many nulls are beside an element
    that is a bare text.
    """

    child: Child
    table: str
    element: type[msgspec.Struct]
    tag: str
    line: Callable[[Any, str, str], str]
    arrays: Callable[[Any], Arrays] | None
    nested: tuple[_Array, ...]
    before: int
    after: int

    def keys(self, parent: str, between: str) -> str:
        """Write what stands between an element's position and its values."""
        tagged = between + self.tag if self.tag else ""
        return f"{tagged}{between}{parent}{between}" if parent else tagged + between


def read(record: msgspec.Struct, form: Form) -> tuple[bytes, ChildLines]:
    """Return the values of `REFERRAL_COLUMNS` and the rows of each child table, as lines.

    Raises ValueError, OverflowError or msgspec.ValidationError where a value is not what its column takes.
    """
    child_lines: ChildLines = {}
    _add_child_lines(child_lines, columns.referrals_arrays(record), _ARRAYS, "", form)
    line = columns.referrals(record, *form)
    if form is GUARDED:
        line = as_plain(line)
        child_lines = {table: [as_plain(one) for one in lines] for table, lines in child_lines.items()}
    return line.encode(), child_lines


def _add_child_lines(
    child_lines: ChildLines, found: Arrays, arrays: tuple[_Array, ...], parent: str, form: Form
) -> None:
    between, null = form
    for elements, array in zip(found, arrays):  # noqa: B905 - they are as many, and strict costs
        if not elements:
            continue
        if elements.__class__ is not list:
            elements = _listed(elements, array)  # noqa: PLW2901 - the array that it stands for
        kind, line = array.element, array.line
        lines = child_lines.setdefault(array.table, [])
        keys = array.keys(parent, between)
        positions = _POSITIONS if len(elements) <= len(_POSITIONS) else map(str, range(len(elements)))
        for position, element in zip(positions, elements):  # noqa: B905 - there may be more positions
            if element.__class__ is kind:
                lines.append(f"{position}{keys}{line(element, between, null)}")
                if array.arrays is not None:
                    _add_child_lines(child_lines, array.arrays(element), array.nested, position, form)
            elif element is not None:
                before, after = (null + between) * array.before, (between + null) * array.after
                lines.append(f"{position}{keys}{before}{element}{after}")


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
                tag,
                getattr(columns, child.table),
                getattr(columns, f"{child.table}_arrays", None),
                tuple(_arrays(element, child.nested)),
                alone,
                len(child.columns) - alone - 1,
            )


_ARRAYS = tuple(_arrays(REFERRAL_NODE, CHILDREN))
