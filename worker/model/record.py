"""A response body becomes records; nothing in it can make the others unreadable.

The body is taken apart in `envelope.py`; each record is decoded once, into a structure, and what msgspec refuses is
judged by itself. Numbers are kept as exact decimals from here to the database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

import msgspec

from worker.errors import SourceUnavailable
from worker.model import instant
from worker.model.codec import REFUSED, decode, encode
from worker.model.documented import REFERRAL_NODE, identifier
from worker.model.envelope import error_beside, member_of, open_envelope
from worker.model.instant import Instant
from worker.model.window import TimeField

_NUL_ESCAPE = b"\\u0000"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DOCUMENTED = msgspec.json.Decoder(REFERRAL_NODE.structure, float_hook=Decimal)
_UNREAD = Instant(-1)


@dataclass(slots=True)
class Record:
    """One referral as received.

    `raw` is its JSON text in UTF-8, what becomes the payload. Decoded it is a `structure`, where it is as documented,
    and `tree` on demand; that is None, with the reason in `fault`, where it cannot be. None shows in `repr`, for they
    hold personal data. `repaired` when NUL characters, lone surrogates or invalid UTF-8 were replaced, or control
    characters escaped, which `raw` then shows. `found_id` is the id of a record that cannot be decoded.
    """

    raw: bytes = field(repr=False)
    _tree: dict[str, Any] | None = field(repr=False)
    fault: str = ""
    repaired: bool = False
    structure: msgspec.Struct | None = field(default=None, repr=False, compare=False)
    found_id: str | None = field(default=None, compare=False)
    _created: Instant | None = field(default=_UNREAD, init=False, repr=False, compare=False)
    _updated: Instant | None = field(default=_UNREAD, init=False, repr=False, compare=False)

    @property
    def tree(self) -> dict[str, Any] | None:
        """The record as a dictionary; the first look at one that is a structure decodes it once more."""
        if self._tree is None and self.structure is not None:
            self._tree = decode(self.raw)
        return self._tree

    @property
    def id(self) -> str | None:
        """The referral's id, when it has a readable one."""
        value = self.member("id")
        return value if isinstance(value, str) and value else self.found_id

    def time(self, field: TimeField) -> Instant | None:
        """Return the record's own time, or None when it is absent, unset (`0001-01-01`) or unreadable."""
        if field is TimeField.UPDATED:
            if self._updated is _UNREAD:
                self._updated = _time(self.member(field.value))
            return self._updated
        if self._created is _UNREAD:
            self._created = _time(self.member(field.value))
        return self._created

    def member(self, name: str) -> Any:
        """Return a documented member of the record itself, None where it is not there."""
        if self.structure is not None:
            return getattr(self.structure, identifier(name))
        return self._tree.get(name) if self._tree is not None else None


def _time(value: Any) -> Instant | None:
    if not isinstance(value, str):
        return None
    try:
        return instant.parse(value) or None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Listing:
    """One list response: its records, the link to more as received, and the server's own clock when it said.

    `count` is `@odata.count` where it was a number; nothing rests on it.
    """

    records: list[Record]
    next_link: str | None
    server_time: Instant | None
    observed_at: datetime
    count: int | None = None


class Ended(StrEnum):
    """How it was verified that a window has no more records than were read."""

    ORDER = "order"
    """Records beyond the window followed in order."""
    BOTH_ENDS = "both ends"
    """The listing, asked for from its other end, begins with what was read."""
    ANCHOR = "anchor"
    """The record at the watermark was shown as the newest; nothing moves, so nothing can be passed over."""
    SKIP = "skip"
    """Behind as many rows as were read there are none."""
    UNVERIFIED = "unverified"
    """It was not: the server answers no second query, and nothing contradicted the first."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records to store, and how far (exclusive) the window is complete with them; None: nothing new is certain.

    `observed_at` is the database's clock when the request began: of two answers of one version the later request wins.
    `ended` says with the last page of a window how its end was verified. `by_id` marks an answer to a request by id,
    which is complete; a list answer may lack members.
    """

    records: list[Record]
    through: Instant | None
    observed_at: datetime
    ended: Ended | None = None
    by_id: bool = False


def spelled(page: Page, referral_id: str) -> Page:
    """Return the answer to a request by id under the id that was asked for: its own may be of another case.

    Else one referral would be two, where the listing writes its ids otherwise.
    """
    records = [
        record
        if record.id == referral_id or record.tree is None
        else encode_record({**record.tree, "id": referral_id}, repaired=record.repaired)
        for record in page.records
    ]
    return replace(page, records=records)


def parse_listing(body: bytes, *, observed_at: datetime, server_time: Instant | None = None) -> Listing:
    """Split a list response into records.

    Raises SourceUnavailable when the body is no listing, or not whole: cut off, HTML, an error in it, another shape.
    """
    envelope = open_envelope(body.removeprefix(_BYTE_ORDER_MARK))
    records = [decode_record(raw) for raw in envelope.records]
    return Listing(records, envelope.next_link, server_time, observed_at, envelope.count)


def parse_single(body: bytes) -> Record:
    """Read the answer to a request by id; raises SourceUnavailable where it reports an error."""
    record = decode_record(body.removeprefix(_BYTE_ORDER_MARK).strip())
    if b"error" in body.lower() and record.tree is not None and error_beside(iter(record.tree.items())):
        raise SourceUnavailable("The API answered a request for one referral with an error inside a 200.")
    return record


def decode_record(raw: bytes) -> Record:
    """Decode one record; what cannot be decoded keeps its bytes and says why."""
    if _NUL_ESCAPE in raw:
        return _decode_leniently(raw)
    if (structure := _structure(raw)) is not None:
        return Record(raw, None, structure=structure)
    try:
        tree = decode(raw)
    except REFUSED:
        return _decode_leniently(raw)
    return Record(raw, tree) if isinstance(tree, dict) else Record(raw, None, "not a JSON object")


def encode_record(tree: dict[str, Any], *, fault: str = "", repaired: bool = False) -> Record:
    """Return the record that a dictionary stands for; raises RecursionError for one that is nested too deeply."""
    raw = encode(tree)
    return Record(raw, tree, fault, repaired, _structure(raw))


def _structure(raw: bytes) -> msgspec.Struct | None:
    try:
        return _DOCUMENTED.decode(raw)
    except REFUSED:
        return None


def _decode_leniently(raw: bytes) -> Record:
    """Replace what PostgreSQL cannot hold (measured: NUL, lone surrogates, invalid UTF-8) and keep the rest."""
    try:
        text = raw.decode("utf-8", "replace")
        tree, controls = _parsed(text)
        clean = _clean(tree)
        if not isinstance(clean, dict):
            return Record(raw, None, "not a JSON object")
        return encode_record(clean, repaired=controls or clean != tree or _REPLACEMENT in text)
    except RecursionError:
        return Record(raw, None, "nested too deeply", found_id=_found_id(raw))
    except InvalidOperation:
        return Record(raw, None, "a number with an exponent beyond all numbers", found_id=_found_id(raw))
    except ValueError as error:
        return Record(raw, None, f"not JSON: {str(error).partition(':')[0]}", found_id=_found_id(raw))


def _parsed(text: str) -> tuple[Any, bool]:
    """Read a record; returns also whether control characters stood in its strings as they are, which JSON forbids."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant), False
    except json.JSONDecodeError as error:
        if "control character" not in error.msg:
            raise
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, strict=False), True


def _found_id(raw: bytes) -> str | None:
    """Return the id of a record that cannot be decoded, where it can be read."""
    value = member_of(raw, "id")
    return value if isinstance(value, str) and value.isprintable() and value else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return "".join(_REPLACEMENT if sign == "\0" or "\ud800" <= sign <= "\udfff" else sign for sign in value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
