"""What no document describes is brought into the documented form, so that there is one path from there to a row.

Members that no document names are named and left out; a text column takes what stands in its place as JSON; a member
that cannot be read is left out, so null, and named as such. It never costs the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from worker.model.documented import REFERRAL_NODE, Node
from worker.model.naming import shown
from worker.model.schema import is_content
from worker.model.values import boolean, text

Path = tuple[str | int, ...]

_ABSENT = object()


@dataclass(slots=True)
class Conformed:
    """A record in the documented form.

    `unknown` and `unreadable` are dotted paths; `rest` is what was left out of its content, by path and in order.
    """

    structure: msgspec.Struct
    unknown: set[str]
    unreadable: set[str]
    rest: list[tuple[Path, Any]]


def conform(tree: dict[str, Any]) -> Conformed:
    """Bring a decoded record into the documented form."""
    work = _Work()
    return work.come_to(work.object(tree, REFERRAL_NODE, ()))


def without_unknown(tree: dict[str, Any]) -> Conformed:
    """Leave out only what no document names: in a fraction of the time what `conform` comes to, or an error.

    For a new member of the API, which each record then has. Raises ValidationError where something else is not as
    documented.
    """
    work, unknown = _Work(), list[tuple[Path, Any]]()
    known = _known(tree, REFERRAL_NODE, unknown)
    for path, value in unknown:
        work.leave_out(str(path[-1]), value, path[:-1])
    return work.come_to(known)


def _known(tree: dict[str, Any], node: Node, unknown: list[tuple[Path, Any]]) -> dict[str, Any]:
    """Return an object without the members that no document names, which are added to `unknown`, or itself."""
    names, kept = node.names, tree
    if not tree.keys() <= names:
        kept = {name: value for name, value in tree.items() if name in names}
        unknown += [((name,), value) for name, value in tree.items() if name not in names]
    for name, inner in node.inner.items():
        value = tree.get(name)
        if not value:
            continue
        before = len(unknown)
        if value.__class__ is dict and not inner.is_keyed:
            value = _known(value, inner, unknown)
        elif value.__class__ is list:
            value = _known_elements(value, inner, unknown)
        if len(unknown) > before:
            unknown[before:] = [((name, *path), one) for path, one in unknown[before:]]
            kept = {**kept, name: value}
    return kept


def _known_elements(array: list[Any], node: Node, unknown: list[tuple[Path, Any]]) -> list[Any]:
    elements = []
    for place, element in enumerate(array):
        before = len(unknown)
        elements.append(_known(element, node, unknown) if element.__class__ is dict else element)
        if len(unknown) > before:
            unknown[before:] = [((place, *path), one) for path, one in unknown[before:]]
    return elements


@dataclass(slots=True)
class _Work:
    """What is found on the way through a record."""

    unknown: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    rest: list[tuple[Path, Any]] = field(default_factory=list)

    def come_to(self, tree: dict[str, Any]) -> Conformed:
        structure = msgspec.convert(tree, REFERRAL_NODE.structure)
        rest = sorted(self.rest, key=lambda one: list(map(str, one[0])))
        return Conformed(structure, self.unknown, self.unreadable, rest)

    def object(self, tree: dict[str, Any], node: Node, path: Path) -> dict[str, Any]:
        regular, readers = {}, node.readers
        for name, value in tree.items():
            read = readers.get(name)
            if read is text and value.__class__ is str:
                regular[name] = value
            elif read is None and name not in node.objects and name not in node.arrays:
                self.leave_out(name, value, path)
            elif value is not None:
                found = self._value(value, read, (*path, name)) if read else self._inside(value, node, (*path, name))
                if found is not _ABSENT:
                    regular[name] = found
        return regular

    def leave_out(self, name: str, value: Any, path: Path) -> None:
        if not name.startswith("@"):
            self.unknown.add(_dotted((*path, shown(name))))
        if value is not None and (path or is_content(name)):
            self.rest.append(((*path, name), value))

    def _value(self, value: Any, read: Callable[[Any], Any], path: Path) -> Any:
        try:
            known = read(value)
        except (ValueError, OverflowError):
            return self._unreadable(value, path)
        return known if read is text else known == "true" if read is boolean else value

    def _inside(self, value: Any, node: Node, path: Path) -> Any:
        name = str(path[-1])
        if inner := node.arrays.get(name):
            return self._array(value, inner, path)
        if isinstance(value, dict):
            return self.object(value, node.objects[name], path)
        return self._unreadable(value, path)

    def _array(self, value: Any, node: Node, path: Path) -> Any:
        if isinstance(value, list):
            return [self._element(item, node, (*path, position)) for position, item in enumerate(value)]
        child = node.child
        if child is None or not isinstance(value, dict):
            return self._unreadable(value, path)
        if not child.keyed_by:
            return self.object(value, node, path)
        is_element = child.keyed_by in value
        if set(map(type, value.values())) <= {str} and (not is_element or value.keys() <= node.kinds.keys()):
            return value
        elements = [value] if is_element else [{child.keyed_by: key, child.scalar: item} for key, item in value.items()]
        return [self._element(one, node, (*path, position)) for position, one in enumerate(elements)]

    def _element(self, value: Any, node: Node, path: Path) -> Any:
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, dict) and node.child is not None:
            value = {node.child.scalar: value}
        return self.object(value, node, path)

    def _unreadable(self, value: Any, path: Path) -> Any:
        self.unreadable.add(_dotted(path))
        self.rest.append((path, value))
        return _ABSENT


def _dotted(path: Path) -> str:
    """Write a path without positions: `team[].email`."""
    return "".join("[]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
