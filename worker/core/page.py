"""A response body becomes records; nothing in it can make the others unreadable.

The fast way is msgspec: the page as raw slices, then each record once, typed. It refuses a whole page for one lone
surrogate or `NaN` anywhere in it, so a slower splitter stands behind it, and each record is judged by itself. Numbers
are kept as exact decimals from here to the database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from worker.core import instant
from worker.core.instant import Instant
from worker.core.typed import Decoder, Typed
from worker.core.window import TimeField
from worker.errors import SourceUnavailable

_NUL_ESCAPE = b"\\u0000"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class _Envelope(msgspec.Struct):
    value: list[msgspec.Raw]
    next_link: str | None = msgspec.field(name="@odata.nextLink", default=None)
    count: Any = msgspec.field(name="@odata.count", default=None)


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(slots=True)
class Record:
    """One referral as received.

    `raw` is its JSON text in UTF-8, what becomes the payload. Decoded it is `typed`, where it is as documented, and
    `tree` on demand; that is None, with the reason in `fault`, where it cannot be. None of them shows in `repr`, for
    they hold personal data. `repaired` when NUL characters, lone surrogates or invalid UTF-8 were replaced, which `raw`
    then shows.
    """

    raw: bytes = field(repr=False)
    _tree: dict[str, Any] | None = field(repr=False)
    fault: str = ""
    repaired: bool = False
    typed: Typed | None = field(default=None, repr=False, compare=False)
    _times: dict[TimeField, Instant | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def tree(self) -> dict[str, Any] | None:
        """The record as a dictionary; the first look at one that is typed decodes it once more."""
        if self._tree is None and self.typed is not None:
            self._tree = _DECODER.decode(self.raw)
        return self._tree

    @property
    def id(self) -> str | None:
        """The referral's id, when it has a readable one."""
        value = self._member("id")
        return value if isinstance(value, str) and value else None

    def time(self, field: TimeField) -> Instant | None:
        """Return the record's own time, or None when it is absent, unset (`0001-01-01`) or unreadable."""
        if field not in self._times:
            self._times[field] = _time(self._member(field.value))
        return self._times[field]

    def _member(self, name: str) -> Any:
        if self.typed is not None:
            return self.typed.member(name)
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


@dataclass(frozen=True, slots=True)
class Page:
    """Records to store, and how far (exclusive) the window is complete with them; None: nothing new is certain.

    `observed_at` is the database's clock when the request began: of two answers of one version the later request wins.
    `by_id` marks an answer to a request by id, which is complete; a list answer may lack members.
    """

    records: list[Record]
    through: Instant | None
    observed_at: datetime
    by_id: bool = False


def parse_listing(
    body: bytes, *, observed_at: datetime, server_time: Instant | None = None, decoder: Decoder | None = None
) -> Listing:
    """Split a list response into records, which are typed where there is a decoder for that.

    Raises SourceUnavailable when the body is no listing at all: cut off, HTML, or another shape.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        envelope = _ENVELOPE.decode(body)
        raws, next_link, count = [bytes(raw) for raw in envelope.value], envelope.next_link, envelope.count
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        (raws, next_link), count = _split(body), None
    records = [decode_record(raw, decoder) for raw in raws]
    return Listing(records, next_link, server_time, observed_at, count if isinstance(count, int) else None)


def decode_record(raw: bytes, decoder: Decoder | None = None) -> Record:
    """Decode one record; what cannot be decoded keeps its bytes and says why."""
    if _NUL_ESCAPE in raw:
        return _decode_leniently(raw)
    if decoder is not None and (typed := decoder.decode(raw)) is not None:
        return Record(raw, None, typed=typed)
    try:
        tree = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_leniently(raw)
    if not isinstance(tree, dict):
        return Record(raw, None, "not a JSON object")
    if decoder is not None:
        decoder.learn(tree)
    return Record(raw, tree)


def _decode_leniently(raw: bytes) -> Record:
    """Replace what PostgreSQL cannot hold (measured: NUL, lone surrogates, invalid UTF-8) and keep the rest."""
    try:
        text = raw.decode("utf-8", "replace")
        tree = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
        clean = _clean(tree)
        if not isinstance(clean, dict):
            return Record(raw, None, "not a JSON object")
        return Record(_ENCODER.encode(clean), clean, repaired=clean != tree or _REPLACEMENT in text)
    except RecursionError:
        return Record(raw, None, "nested too deeply")
    except ValueError as error:
        return Record(raw, None, f"not JSON: {str(error).partition(':')[0]}")


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


def _split(body: bytes) -> tuple[list[bytes], str | None]:
    """Find the records of a listing that msgspec refuses as a whole, without reading more into them than their ends."""
    text = body.decode("utf-8", "surrogateescape")
    scan = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode
    raws: list[bytes] | None = None
    next_link: str | None = None
    try:
        at = _skip(text, 0, "{")
        while text[at] != "}":
            key, at = scan(text, at)
            at = _skip(text, at, ":")
            if key == "value" and text[at] == "[":
                raws, at = _slices(text, at, scan)
            else:
                is_text = text[at] == '"'
                value, at = scan(text, at)
                if key == "@odata.nextLink" and (is_text or value is None):
                    next_link = value
                elif key == "@odata.nextLink":
                    raise ValueError(key)  # noqa: TRY301 - one place below says what is wrong
            at = _skip(text, at, ",") if text[_skip(text, at)] == "," else _skip(text, at)
    except (ValueError, IndexError, RecursionError):
        raws = None
    if raws is None:
        raise SourceUnavailable(
            "The API's answer is not a referral listing: it is cut off, or not the JSON that is documented.",
            "Usually a proxy or an outage in between; the next run tries again.",
        )
    return raws, next_link


def _slices(text: str, at: int, scan: Any) -> tuple[list[bytes], int]:
    raws = []
    at = _skip(text, at, "[")
    while text[at] != "]":
        start = at
        _, at = scan(text, start)
        raws.append(text[start:at].encode("utf-8", "surrogateescape"))
        at = _skip(text, at, ",") if text[_skip(text, at)] == "," else _skip(text, at)
    return raws, at + 1


def _skip(text: str, at: int, expected: str = "") -> int:
    """Step over white space, then over the expected sign, then over white space again."""
    while text[at] in " \t\r\n":
        at += 1
    if not expected:
        return at
    if text[at] != expected:
        raise ValueError(expected)
    at += 1
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
