"""The function that reads a structure: written from the declarations in `schema.py`, and compiled once.

A referral has some two hundred values. A loop over columns spends most of its time on itself, so the loop is unrolled,
as `dataclasses` does it; for a referral with a name, a time and tags the function would be

    def read(record, unknown):
        parts = {}
        if elements := record.m_tags:
            rows = parts.setdefault('referral_tags', [])
            for number, element in enumerate(elements):
                position = DIGITS[number] if number < 10 else str(number)
                if element.__class__ is Tag:
                    rows.append((position, v if (v := element.m_tag).__class__ is str else None))
                elif element is not None:
                    rows.append((position, element))
        return (
            v if (v := record.m_name).__class__ is str else None,
            floored(v) if (v := record.m_createdDateTime) else None,
        ), parts

Nothing that a server sends becomes program text but the names of members that were learned: as an identifier made of
ASCII letters and digits, and as a literal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from worker.model import instant
from worker.model.documented import Node, identifier
from worker.model.members import READERS, walk_to
from worker.model.naming import shown
from worker.model.schema import CHILDREN, REFERRAL, Child, Column, Group, Kind

Values = tuple[str | None, ...]
Parts = dict[str, list[Values]]
"""The rows of each table of parts: position and other keys, then the values."""

Objects = dict[tuple[str, ...], str]
"""The variables that hold the objects at some paths."""

Read = Callable[[msgspec.Struct, set[str]], tuple[Values, Parts]]
"""Returns the values of `REFERRAL_COLUMNS`, and the parts by table; raises ValueError for one that cannot be.

Adds to the set the paths of members that no document names.
"""


def reader(root: Node) -> Read:
    """Compile the function for a referral whose structures have been built."""
    source = _Source()
    source.add(0, "def read(record, unknown):")
    source.add(1, "parts = {}")
    objects = source.walk(1, root, "record", REFERRAL, CHILDREN, "")
    source.arrays(1, root, objects, CHILDREN, "", "")
    source.add(1, f"return ({_values(objects, REFERRAL)}), parts")
    read: Read = source.compiled("read")
    return read


class _Source:
    """The text of a function, and what it refers to by name."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._names: dict[str, Any] = {
            "UNSET": UNSET,
            "BOOLEAN": {UNSET: None, None: None} | {value: READERS[Kind.BOOLEAN](value) for value in (True, False)},
            "DIGITS": "0123456789",
            "floored": instant.floored,
            "numeric": READERS[Kind.NUMERIC],
        }

    def add(self, depth: int, line: str) -> None:
        self._lines.append("    " * depth + line)

    def compiled(self, name: str) -> Any:
        exec(compile("\n".join(self._lines), "<reader of referrals>", "exec"), self._names)  # noqa: S102 - see above
        return self._names[name]

    def walk(
        self,
        depth: int,
        node: Node,
        start: str,
        groups: tuple[Group, ...],
        children: tuple[Child, ...],
        prefix: str,
    ) -> Objects:
        """Go to the objects that hold groups or arrays, in whose place there is an empty one where they are absent."""
        steps, places = walk_to(groups, children)
        variables = [start, *(f"{start}_{number}" for number in range(1, len(steps) + 1))]
        objects = {path: variables[place] for path, place in places.items()}
        for path, variable in objects.items():
            if path:
                empty = self._named(node.at(path).structure(), "EMPTY")
                self.add(depth, f"{variable} = {objects[path[:-1]]}.{identifier(path[-1])} or {empty}")
            for name in sorted(node.at(path).learned):
                if not name.startswith("@"):
                    self.add(depth, f"if {variable}.{identifier(name)} is not UNSET:")
                    self.add(depth + 1, f"unknown.add({prefix + '.'.join((*path, shown(name)))!r})")
        return objects

    def arrays(
        self,
        depth: int,
        node: Node,
        objects: Objects,
        children: tuple[Child, ...],
        parent: str,
        prefix: str,
    ) -> None:
        """Collect the rows of the arrays in some objects; `parent` is the position of the element that holds them."""
        for child in children:
            for tag, path in child.arrays:
                keys = f"{tag!r}, " * bool(tag) + parent
                self._array(depth, node.at(path[:-1]).arrays[path[-1]], objects[path[:-1]], child, path, keys, prefix)

    def _array(
        self, depth: int, node: Node, holder: str, child: Child, path: tuple[str, ...], keys: str, prefix: str
    ) -> None:
        rows, element, position = f"rows_{depth}", f"element_{depth}", f"position_{depth}"
        self.add(depth, f"if elements := {holder}.{identifier(path[-1])}:")
        self.add(depth + 1, f"{rows} = parts.setdefault({child.table!r}, [])")
        self.add(depth + 1, f"for number, {element} in enumerate(elements):")
        self.add(depth + 2, f"{position} = DIGITS[number] if number < 10 else str(number)")
        self.add(depth + 2, f"if {element}.__class__ is {self._named(node.structure, 'TYPE')}:")
        beyond = f"{prefix}{'.'.join(path)}[]."
        objects = self.walk(depth + 3, node, element, child.groups, child.nested, beyond)
        self.add(depth + 3, f"{rows}.append(({position}, {keys}{_values(objects, child.groups)}))")
        self.arrays(depth + 3, node, objects, child.nested, f"{position}, ", beyond)
        self.add(depth + 2, f"elif {element} is not None:")
        scalar = "".join(f"{element}, " if one.members[0] == child.scalar else "None, " for one in child.columns)
        self.add(depth + 3, f"{rows}.append(({position}, {keys}{scalar}))")

    def _named(self, value: Any, hint: str) -> str:
        name = f"{hint}_{len(self._names)}"
        self._names[name] = value
        return name


def _values(objects: Objects, groups: tuple[Group, ...]) -> str:
    """Return the expressions of the columns of some groups, each with a comma behind it."""
    return "".join(f"{_value(objects[group.path], column)}, " for group in groups for column in group.columns)


def _value(variable: str, column: Column) -> str:
    """Return the expression of a value; where there are several members, the first that is there counts."""
    members = [f"{variable}.{identifier(member)}" for member in column.members]
    match column.kind:
        case Kind.TEXT:
            return "".join(f"v if (v := {member}).__class__ is str else " for member in members) + "None"
        case Kind.TIMESTAMP:
            return f"floored(v) if (v := {members[0]}) else None"
        case Kind.BOOLEAN:
            return " or ".join(f"BOOLEAN[{member}]" for member in members)
        case Kind.NUMERIC:
            return f"None if (v := {members[0]}) is None or v is UNSET else numeric(v)"
