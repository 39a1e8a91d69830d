"""What is stored of people: customer contacts, phone numbers and notes are kept, hashed or dropped.

Applied to each record as it is received, so that nothing after it (columns, payloads, versions, rejected records, logs)
sees more. The seller's name and e-mail are business data and stay.

Under the members that hold people (`customerProfile`, `team`, `details`, `inviteContext`) only what is documented and
names nobody is stored, whatever the shape or the case in which it comes. Elsewhere a member that no document has is
stored unless its name, or what stands in it, looks like a person's.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Any

from worker.model.codec import encode
from worker.model.documented import REFERRAL_NODE, Node
from worker.model.line import values_of
from worker.model.mapping import Row
from worker.model.naming import is_name
from worker.model.record import Record, encode_record
from worker.model.schema import CHILDREN, Kind

_CONTACTS = next(child for child in CHILDREN if child.table == "referral_customer_contacts")
_NAMES = [
    len(_CONTACTS.keys) + place
    for place, column in enumerate(_CONTACTS.columns)
    if column.name in ("first_name", "last_name", "email", "phone_number")
]
_HASHED = re.compile(r"hash:[0-9a-f]{32}")


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


# -- what is known of each member ------------------------------------------------------------------------------------


class _Rule(Enum):
    """What a member holds that is no object."""

    VALUE = "a documented text that names nobody"
    FIGURE = "a number or a time"
    SWITCH = "true or false"
    STATUS = "what a validation came to"
    LOCALE = "a language, such as en-US"
    OWN = "business data of the seller"
    PERSONAL = "personal data"


@dataclass(slots=True)
class _Place:
    """An object, or each element of an array: its members by their folded names.

    `closed`: what is not among them is personal. `contacts`: all of it is, apart from a few words.
    """

    members: dict[str, _Place | _Rule] = field(default_factory=dict)
    closed: bool = False
    contacts: bool = False


_ANYTHING = _Place()
"""An object of which nothing is known, but that people may be in it under the names that hold them elsewhere."""

_STATUS = re.compile(r"(?:not ?)?(?:valid|validated|verified)|invalid|spam|unknown|none|pending", re.IGNORECASE)
_LOCALE = re.compile(r"[a-z]{2}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|\d{3}))?", re.ASCII)
_FIGURE = re.compile(r"[-+]?\d[-+.,:TZeE \d]{0,40}", re.ASCII)
_SWITCH = re.compile("true|false", re.IGNORECASE)
_WORDS = {_Rule.STATUS: _STATUS, _Rule.LOCALE: _LOCALE, _Rule.SWITCH: _SWITCH}
_TELLS_OF_PEOPLE = re.compile(
    r"phone|mobile|fax|^tel$|^cell|mail|contact|person|people|birth|salut"
    r"|^notes?|notes?$|comment|remark|memo$|firstname|lastname|givenname|surname|familyname|middlename|fullname"
    r"|displayname|nickname|username|^upn$|userprincipal"
)
"""Names, folded, of members that hold people or free text about them."""

_EMAIL = re.compile(r"[^\s@]@[^\s@]+\.[^\s@]")
_PHONE = re.compile(r"(?<![\w:])\+\d[\d ()./-]{5,}\d", re.ASCII)
"""What a text may have in it that reaches somebody: an address, and a number as it is written internationally."""


def _known() -> _Place:
    """Return what the documents say of a referral, with what that means for people."""
    root = _place(REFERRAL_NODE)
    profile, team = _inside(root, "customerprofile"), _inside(root, "team")
    contacts, ids = _inside(profile, "team"), _inside(profile, "ids")
    details, invitation = _inside(root, "details"), _inside(root, "invitecontext")
    closed = [profile, _inside(profile, "address"), ids, details, invitation, _inside(invitation, "invitedby")]
    for member in (contacts, team):
        preference = _inside(member, "contactpreference")
        preference.members["locale"] = _Rule.LOCALE
        member.members |= dict.fromkeys(("emailvalidationstatus", "phonevalidationstatus"), _Rule.STATUS)
        closed += [member, preference]
    for place in closed:
        place.closed = True
    for name in ("firstname", "lastname", "email", "title"):
        contacts.members[name], team.members[name] = _Rule.PERSONAL, _Rule.OWN
    contacts.members["phonenumber"] = team.members["phonenumber"] = _Rule.PERSONAL
    contacts.contacts = True
    ids.members |= dict.fromkeys(("duns", "external"), _Rule.VALUE)
    details.members["notes"] = invitation.members["notes"] = _Rule.PERSONAL
    _ANYTHING.members |= {"customerprofile": profile, "invitecontext": invitation, "team": contacts}
    return root


def _place(node: Node) -> _Place:
    kinds = {_folded(name): kind for name, kind in node.kinds.items() if kind is not None}
    members: dict[str, _Place | _Rule] = {
        name: _Rule.VALUE if kind is Kind.TEXT else _Rule.SWITCH if kind is Kind.BOOLEAN else _Rule.FIGURE
        for name, kind in kinds.items()
    }
    members |= {_folded(name): _place(inner) for name, inner in (node.objects | node.arrays).items()}
    return _Place(members)


def _inside(place: _Place, name: str) -> _Place:
    inner = place.members[name]
    if not isinstance(inner, _Place):
        raise TypeError(f"{name} is no object")
    return inner


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    """Return what names have in common that differ in case, or in signs between their words."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return "".join(filter(str.isalnum, name.casefold()))


@lru_cache(maxsize=4096)
def _names_no_person(name: str) -> bool:
    return is_name(name) and not _TELLS_OF_PEOPLE.search(_folded(name))


def _has_contact_details(text: str) -> bool:
    return bool(("@" in text and _EMAIL.search(text)) or ("+" in text and _PHONE.search(text)))


def _is_not_personal(value: Any, rule: _Rule) -> bool:
    """Return whether a value at a closed place is what its member is documented to hold, and so names nobody."""
    text = value if isinstance(value, str) else ""
    match rule:
        case _Rule.VALUE:
            return not _has_contact_details(text)
        case _Rule.FIGURE:
            return value is not text or not text or (_FIGURE.fullmatch(text) is not None and not _PHONE.search(text))
        case _Rule.STATUS | _Rule.LOCALE | _Rule.SWITCH:
            return value is text and (not text or _WORDS[rule].fullmatch(text) is not None)
        case _Rule.OWN:
            return value is text and not ("+" in text and _PHONE.search(text))
        case _Rule.PERSONAL:
            return False


_REFERRAL = _known()


# -- the rule --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Privacy:
    """The rules in force; `key` makes hashes that nobody outside this database can recompute from a known address."""

    contacts: Contacts = Contacts.KEEP
    after_expiry: AfterExpiry = AfterExpiry.HISTORY
    key: str = field(default="", repr=False)

    @property
    def restricts(self) -> bool:
        """Whether there is anything that may not be stored."""
        return self.contacts is not Contacts.KEEP

    def admit(self, record: Record) -> Record:
        """Return the record as it may be stored; the same one where it is that already.

        Its text is written anew, for a member that stands in it twice shows only once in what was decoded.
        """
        if not self.restricts:
            return record
        if record.tree is None:
            return self._withheld(record, record.fault)
        try:
            tree = self._object(record.tree, _REFERRAL)
            admitted = encode_record(tree, fault=record.fault, repaired=record.repaired)
        except RecursionError:
            return self._withheld(record, "nested too deeply")
        return record if admitted.raw == record.raw else admitted

    def _withheld(self, record: Record, fault: str) -> Record:
        """Return what is left of a record in which nobody can tell where people are: its id, and a digest."""
        if record.raw.startswith(b"withheld:"):
            return record
        text = b"withheld:" + self._hash(record.raw).encode()
        return Record(text, None, f"{fault}; withheld by [privacy] contacts", found_id=record.id)

    def _object(self, tree: dict[str, Any], place: _Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in tree.items():
            rule = place.members.get(_folded(name))
            if not place.closed:
                if rule.__class__ is _Rule and value.__class__ is str:
                    found[name] = value
                    continue
                if rule is None and _names_no_person(name):
                    rule = _ANYTHING
            admitted = self._personal(value) if rule is None else self._value(value, rule, place)
            if admitted is not _NOTHING:
                found[name if rule is not None or self._is_known_name(name) else self._hashed(name)] = admitted
        return found

    def _value(self, value: Any, rule: _Place | _Rule, place: _Place) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(rule, _Place):
            return self._part(value, rule)
        if rule is _Rule.PERSONAL:
            return self._personal(value)
        if isinstance(value, dict | list):
            return self._personal(value) if place.closed else self._part(value, _ANYTHING)
        return value if not place.closed or _is_not_personal(value, rule) else self._personal(value)

    def _part(self, value: Any, place: _Place) -> Any:
        """Admit an object, an array, or what stands in its place."""
        if place.contacts and self.contacts is Contacts.DROP:
            return _NOTHING
        if isinstance(value, dict):
            return self._object(value, place)
        if isinstance(value, list):
            parts = (item if item is None else self._part(item, place) for item in value)
            return [part for part in parts if part is not _NOTHING]
        if isinstance(value, bool):
            return value
        personal = place.closed or (isinstance(value, str) and _has_contact_details(value))
        return self._personal(value) if personal else value

    def _personal(self, value: Any) -> Any:
        return _NOTHING if self.contacts is Contacts.DROP else self._mapped(value)

    def _mapped(self, value: Any) -> Any:
        """Hash every scalar, and every name that may be one of a person."""
        if isinstance(value, dict):
            return {
                name if self._is_known_name(name) else self._hashed(name): self._mapped(item)
                for name, item in value.items()
            }
        return [self._mapped(item) for item in value] if isinstance(value, list) else self._hashed(value)

    def _is_known_name(self, name: str) -> bool:
        """Return whether a name says what a member is, and not whose."""
        folded = _folded(name)
        known = folded in _VOCABULARY or (is_name(name) and name.isalpha() and _TELLS_OF_PEOPLE.search(folded))
        return bool(known or name.startswith("@odata.") or _HASHED.fullmatch(name))

    def _hashed(self, value: Any) -> Any:
        if value is None or value == "" or isinstance(value, bool):
            return value
        text = value if isinstance(value, str) else encode(value).decode()
        return text if _HASHED.fullmatch(text) else self._hash(text.strip().casefold().encode())

    def _hash(self, value: bytes) -> str:
        return "hash:" + hashlib.blake2b(value, digest_size=16, key=self.key.encode()).hexdigest()


_NOTHING = object()
"""In place of what is dropped."""


def _names_in(node: Node) -> set[str]:
    names = {*node.kinds, *node.objects, *node.arrays}
    return names.union(*(_names_in(inner) for inner in (*node.objects.values(), *node.arrays.values())))


_VOCABULARY = frozenset(map(_folded, _names_in(REFERRAL_NODE)))
"""Every name that the documents have."""


def hidden(before: Row, after: Row) -> bool:
    """Return whether the source has taken the contacts of a closed referral out of sight."""
    return after.value("status") == "Closed" and _has_contacts(before) and not _has_contacts(after)


def _has_contacts(row: Row) -> bool:
    contacts = map(values_of, row.children.get(_CONTACTS.table, ()))
    return any(contact[place] for contact in contacts for place in _NAMES)


def with_contacts_of(record: Record, before: Record) -> Record:
    """Return an answer with the contacts that an earlier one had."""
    tree, profile = record.tree or {}, (before.tree or {}).get("customerProfile") or {}
    tree = tree | {"customerProfile": (tree.get("customerProfile") or {}) | {"team": profile.get("team")}}
    return encode_record(tree, repaired=record.repaired)
