"""The objects of a record as they are documented, and the structures that msgspec fills with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from worker.model.schema import CHILDREN, KNOWN_UNSTORED, REFERRAL, Child, Group, Kind

_TYPES: dict[Kind | None, Any] = {
    Kind.TEXT: str | None | UnsetType,
    Kind.TIMESTAMP: str | None | UnsetType,
    Kind.BOOLEAN: bool | None | UnsetType,
    Kind.NUMERIC: Any,
    None: Any,
}


@dataclass(slots=True)
class Node:
    """An object: its members by name, each a kind of value, an object, or an array (of these elements).

    `learned` are members of `kinds` that no document names; `structure` is the type that `build` made of all.
    """

    name: str
    kinds: dict[str, Kind | None] = field(default_factory=dict)
    objects: dict[str, Node] = field(default_factory=dict)
    arrays: dict[str, Node] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    structure: type[msgspec.Struct] = msgspec.Struct

    def knows(self, member: str) -> bool:
        """Tell whether it has such a member."""
        return member in self.kinds or member in self.objects or member in self.arrays

    def at(self, path: tuple[str, ...]) -> Node:
        """Return the object at a path inside this one, made where there was none."""
        node = self
        for name in path:
            node = node.objects.setdefault(name, Node(f"{node.name}.{name}"))
        return node

    def build(self) -> type[msgspec.Struct]:
        """Make the types of this and all inside, members in the order of their names: that of the canonical encoding.

        Absent members are UNSET, so that they are absent again when it is encoded.
        """
        types: dict[str, Any] = {name: _TYPES[kind] for name, kind in self.kinds.items()}
        types |= {name: node.build() | None | UnsetType for name, node in self.objects.items()}
        for name, node in self.arrays.items():
            element: Any = node.build()
            types[name] = list[element | str | None] | None | UnsetType
        self.structure = msgspec.defstruct(
            self.name,
            [(identifier(name), types[name], UNSET) for name in sorted(types)],
            rename={identifier(name): name for name in types},
            forbid_unknown_fields=True,
            gc=False,
        )
        return self.structure


@cache
def identifier(member: str) -> str:
    """Name a structure's field after a member; the prefix keeps it from being a keyword, or one of its own."""
    return "m_" + "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}_" for sign in member)


def documented() -> Node:
    """Return a referral as the documents describe it."""
    root = _node("Referral", REFERRAL, CHILDREN)
    root.kinds |= dict.fromkeys(KNOWN_UNSTORED, None) | {"id": Kind.TEXT}
    return root


def _node(name: str, groups: tuple[Group, ...], children: tuple[Child, ...]) -> Node:
    node = Node(name)
    for group in groups:
        holder = node.at(group.path)
        holder.kinds |= {member: column.kind for column in group.columns for member in column.members}
    for child in children:
        for _, path in child.arrays:
            node.at(path[:-1]).arrays[path[-1]] = _node(".".join((name, *path)), child.groups, child.nested)
    return node
