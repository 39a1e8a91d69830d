"""The usual record, decoded straight into the shape of the declarations in `schema.py`.

A dictionary for every object of every record, and a look at each member, is most of what a load would cost. Here
msgspec fills one structure for each object, checks the types on the way, and leaves nothing for the garbage collector
to walk through. A record that is not as documented is refused as a whole, and read member by member instead
(`members.py`), which stays the one definition of what a record means; a member that no document names is learned, so
that it costs the slow way once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET

from worker.model.documented import Node, documented, identifier
from worker.model.reader import Parts, Read, Values, reader
from worker.model.schema import is_content

MAX_LEARNED = 50
"""A source that names its members at random is not learned: its records are read the slow way."""

_UNNAMEABLE = re.compile(r'[\x00-\x1f"\\]')
CANONICAL = msgspec.json.Encoder(decimal_format="number", order="sorted")
"""What the hash of a record's content is made of: the same for a structure and for a dictionary."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything that follows from the members that are known."""

    decoder: msgspec.json.Decoder[msgspec.Struct]
    read: Read
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

    def read(self, unknown: set[str]) -> tuple[Values, Parts]:
        """Return the values of `REFERRAL_COLUMNS`, and the parts by table; raises ValueError for one that cannot be.

        Adds to `unknown` the paths of members that no document names.
        """
        return self.prepared.read(self.found, unknown)

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
        self._root = documented()
        self._learned = 0
        self._prepared = _prepared(self._root)

    def decode(self, raw: bytes) -> Typed | None:
        """Return a record as a structure, or None where it has to be read the slow way."""
        try:
            return Typed(self._prepared.decoder.decode(raw), self._prepared)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def learn(self, tree: dict[str, Any]) -> None:
        """Take in the members of a record that no document names, so that the next one like it is read quickly.

        A name that msgspec cannot give to a member of a structure is left alone: such records are read the slow way.
        """
        unknown = {(id(node), name): node for node, name in _unknown(self._root, tree) if not _UNNAMEABLE.search(name)}
        if not unknown or self._learned + len(unknown) > MAX_LEARNED:
            return
        self._learned += len(unknown)
        for (_, member), node in unknown.items():
            node.kinds[member] = None
            node.learned.add(member)
        self._prepared = _prepared(self._root)


def _prepared(root: Node) -> _Prepared:
    return _Prepared(
        msgspec.json.Decoder(root.build(), float_hook=Decimal),
        reader(root),
        tuple(identifier(name) for name in root.kinds if not is_content(name)),
    )


def _unknown(node: Node, tree: dict[str, Any]) -> Iterator[tuple[Node, str]]:
    for name, value in tree.items():
        if not node.knows(name):
            yield node, name
        elif name in node.objects and isinstance(value, dict):
            yield from _unknown(node.objects[name], value)
        elif name in node.arrays and isinstance(value, list):
            for element in value:
                if isinstance(element, dict):
                    yield from _unknown(node.arrays[name], element)
