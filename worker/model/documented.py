"""The objects of a record as they are documented, and the structures that msgspec fills with them.

A dictionary for every object of every record, and a look at each member, is most of what a backfill would cost. msgspec
fills one structure for each object, checks the types on the way, and leaves nothing for the garbage collector to walk
through. A member takes every form that the documents show for it: an array may be one object, an element a bare text,
a number a text. What is not documented at all is brought into this form first (`conform.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from worker.model.schema import ANNOTATIONS, CHILDREN, KNOWN_UNSTORED, REFERRAL, Child, Group, Kind
from worker.model.values import READERS

_TYPES: dict[Kind | None, Any] = {
    Kind.TEXT: str | None,
    Kind.TIMESTAMP: str | None,
    Kind.BOOLEAN: bool | None,
    Kind.NUMERIC: Any,
    None: Any,
}


@dataclass(slots=True)
class Node:
    """An object: its members by name, each a kind of value, an object, or an array (of these elements).

    `child` is the table of the array whose element it is. `build` makes the rest: the `readers` of the members that are
    no objects, the `names` of all, the `inner` objects and elements, and the `structure` that is filled.
    """

    name: str
    child: Child | None = None
    kinds: dict[str, Kind | None] = field(default_factory=dict)
    objects: dict[str, Node] = field(default_factory=dict)
    arrays: dict[str, Node] = field(default_factory=dict)
    readers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    inner: dict[str, Node] = field(default_factory=dict)
    structure: type[msgspec.Struct] = msgspec.Struct

    @property
    def is_keyed(self) -> bool:
        """Whether it is the element of an array that may also be an object with elements by their names."""
        return self.child is not None and bool(self.child.keyed_by)

    @property
    def members(self) -> list[str]:
        """The names of all members, in the order that the structure has."""
        return sorted((*self.kinds, *self.objects, *self.arrays))

    def at(self, path: tuple[str, ...]) -> Node:
        """Return the object at a path inside this one, made where there was none."""
        node = self
        for name in path:
            node = node.objects.setdefault(name, Node(f"{node.name}.{name}"))
        return node

    def build(self) -> type[msgspec.Struct]:
        """Make the types of this and all inside, members in the order of their names: that of the canonical encoding.

        What is null or absent is None, and is absent when it is encoded.
        """
        self.readers = {name: READERS[kind] if kind else _unchanged for name, kind in self.kinds.items()}
        self.names = frozenset(self.members)
        self.inner = self.objects | self.arrays
        types = {name: _TYPES[kind] for name, kind in self.kinds.items()}
        types |= {name: node.build() | None for name, node in self.objects.items()}
        for name, node in self.arrays.items():
            element: Any = node.build()
            one: Any = dict[str, str] if node.child and node.child.keyed_by else element
            types[name] = list[element | str | None] | one | None
        self.structure = msgspec.defstruct(
            self.name,
            [(identifier(name), types[name], None) for name in self.members],
            rename={identifier(name): name for name in types},
            forbid_unknown_fields=True,
            omit_defaults=True,
            gc=False,
        )
        return self.structure


def _unchanged(value: Any) -> Any:
    return value


@cache
def identifier(member: str) -> str:
    """Name a structure's field after a member; the prefix keeps it from being a keyword, or one of its own."""
    return "m_" + "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}_" for sign in member)


def documented() -> Node:
    """Return a referral as the documents describe it."""
    root = _node("Referral", REFERRAL, CHILDREN, None)
    root.kinds |= dict.fromkeys(KNOWN_UNSTORED | ANNOTATIONS, None) | {"id": Kind.TEXT}
    root.build()
    return root


def _node(name: str, groups: tuple[Group, ...], children: tuple[Child, ...], child: Child | None) -> Node:
    node = Node(name, child)
    for group in groups:
        holder = node.at(group.path)
        holder.kinds |= {member: column.kind for column in group.columns for member in column.members}
    for inner in children:
        for _, path in inner.arrays:
            node.at(path[:-1]).arrays[path[-1]] = _node(".".join((name, *path)), inner.groups, inner.nested, inner)
    return node


def empty(table: str, path: tuple[str, ...]) -> Any:
    """Return what stands in place of an object that is absent: one with nothing in it, inside a row of some table."""
    node = REFERRAL_NODE if table == "referrals" else next(_elements(REFERRAL_NODE, table))
    return node.at(path).structure()


def _elements(node: Node, table: str) -> Iterator[Node]:
    for inner in (*node.objects.values(), *node.arrays.values()):
        if inner.child is not None and inner.child.table == table:
            yield inner
        yield from _elements(inner, table)


REFERRAL_NODE = documented()
"""A referral, with the structures that are filled with it."""
