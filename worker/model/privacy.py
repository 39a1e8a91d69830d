"""What of people is let in: customer contacts, phone numbers and notes are kept, hashed or dropped.

Applied to each record as it is received, so that nothing behind this door (columns, payloads, versions, rejects, logs)
ever sees more. The seller's name and e-mail are business data and stay.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from worker.model.mapping import Row
from worker.model.record import Record
from worker.model.schema import CHILDREN

NOT_PERSONAL = frozenset({"contactPreference", "emailValidationStatus", "phoneValidationStatus"})
"""Members of a customer contact that name nobody; any other, also one that is not documented yet, may."""

NOTES = (("details", "notes"), ("inviteContext", "notes"))
"""Free text, which often names people."""

_CONTACTS = next(child for child in CHILDREN if child.table == "referral_customer_contacts")
_NAMES = [
    len(_CONTACTS.keys) + place
    for place, column in enumerate(_CONTACTS.columns)
    if column.name in ("first_name", "last_name", "email", "phone_number")
]
_HASHED = re.compile(r"hash:[0-9a-f]{32}")
_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


class Contacts(StrEnum):
    """What becomes of personal data: `[privacy] contacts`."""

    KEEP = "keep"
    HASH = "hash"
    DROP = "drop"


class AfterExpiry(StrEnum):
    """What stays of contacts that the source no longer shows, as it does when a lead expires.

    Only in earlier versions (`history`), also in the present row (`keep`), or nowhere (`erase`).
    """

    HISTORY = "history"
    KEEP = "keep"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Privacy:
    """The rules in force; `key` makes hashes that nobody outside this database can recompute from a known address."""

    contacts: Contacts = Contacts.KEEP
    after_expiry: AfterExpiry = AfterExpiry.HISTORY
    key: str = ""

    @property
    def keeps_out(self) -> bool:
        """Whether there is anything that may not be stored."""
        return self.contacts is not Contacts.KEEP

    def admit(self, record: Record) -> Record:
        """Return the record as it may be stored; the same one where nothing in it is personal."""
        if not self.keeps_out:
            return record
        if record.tree is None:
            if record.raw.startswith(b"withheld:"):
                return record
            identity = self._hash(record.raw).encode()
            return Record(b"withheld:" + identity, None, f"{record.fault}; withheld by [privacy] contacts")
        tree = self._without_people(record.tree)
        return record if tree is record.tree else Record(_ENCODE(tree), tree, record.fault, record.repaired)

    def _without_people(self, tree: dict[str, Any]) -> dict[str, Any]:
        replaced = self._hashed if self.contacts is Contacts.HASH else None
        found = _at(tree, ("customerProfile", "team"), lambda team: replaced and _mapped(team, replaced, _may_name))
        found = _at(found, ("team",), lambda team: _phones(team, replaced))
        for path in NOTES:
            found = _at(found, path, lambda notes: replaced and _mapped(notes, replaced, _any))
        return found

    def _hashed(self, value: Any) -> Any:
        if value is None or value == "" or isinstance(value, bool):
            return value
        text = value if isinstance(value, str) else _ENCODE(value).decode()
        return text if _HASHED.fullmatch(text) else self._hash(text.strip().casefold().encode())

    def _hash(self, value: bytes) -> str:
        return "hash:" + hashlib.blake2b(value, digest_size=16, key=self.key.encode()).hexdigest()


def hidden(before: Row, after: Row) -> bool:
    """Tell whether the source has taken the contacts of a closed referral out of sight."""
    return after.value("status") == "Closed" and _names_somebody(before) and not _names_somebody(after)


def _names_somebody(row: Row) -> bool:
    contacts = row.children.get(_CONTACTS.table, ())
    return any(contact[place] for contact in contacts for place in _NAMES)


def with_contacts_of(record: Record, before: Record) -> Record:
    """Return an answer with the contacts that an earlier one had."""
    tree, profile = record.tree or {}, (before.tree or {}).get("customerProfile") or {}
    tree = tree | {"customerProfile": (tree.get("customerProfile") or {}) | {"team": profile.get("team")}}
    return Record(_ENCODE(tree), tree, repaired=record.repaired)


def _at(tree: dict[str, Any], path: Iterable[str], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the object with one member changed, or gone where it becomes None; the same one where it is not there."""
    name, *rest = path
    value = tree.get(name)
    if value is None or (rest and not isinstance(value, dict)):
        return tree
    after = _at(value, rest, change) if rest else change(value)
    if after is None:
        return {key: item for key, item in tree.items() if key != name}
    return tree if after is value or after == value else tree | {name: after}


def _mapped(value: Any, replaced: Callable[[Any], Any], concerns: Callable[[str], bool]) -> Any:
    """Replace every scalar below the members that are concerned."""
    if isinstance(value, dict):
        return {key: _mapped(item, replaced, concerns) if concerns(key) else item for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, replaced, concerns) for item in value]
    return replaced(value)


def _phones(value: Any, replaced: Callable[[Any], Any] | None) -> Any:
    """Replace, or take out, the members that hold phone numbers."""
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            if "phone" not in key.casefold() or key in NOT_PERSONAL:
                found[key] = _phones(item, replaced)
            elif replaced is not None:
                found[key] = _mapped(item, replaced, _any)
        return found
    return [_phones(item, replaced) for item in value] if isinstance(value, list) else value


def _may_name(member: str) -> bool:
    return member not in NOT_PERSONAL


def _any(_: str) -> bool:
    return True
