"""The body of a list response: its records as bytes, and the link to more.

The whole text of a body belongs to the answer. An error beside the rows, a second document behind the first or a page
of HTML means that the answer is not whole (partner-center-api.md sections 1.5 and 6.3), whatever its status says.

The fast path is msgspec. It refuses a whole body for one character in one record, so a scanner stands behind it that
finds where records begin and end, without recursion, and leaves each to be judged by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from worker.errors import SourceUnavailable
from worker.model.codec import REFUSED

_LINKS = frozenset({"@odata.nextlink", "odata.nextlink", "@nextlink", "nextlink"})
"""How services of this family spell the link to more, in lower case (partner-center-api.md section 1.7)."""

_ERRORS = re.compile(r"error|exception|fault|^(code|statuscode|message|description)$")
"""Members that no listing has: an error in one of its three shapes (section 6.3), or one that is named so."""

_SLACK, _SLACK_PER_MEMBER = 4, 7
"""White space between members of the envelope, in bytes; more than this is looked at sign by sign."""


class _Usual(msgspec.Struct, forbid_unknown_fields=True):
    """What a listing has; anything else is looked at member by member."""

    value: list[msgspec.Raw]
    context: msgspec.Raw = msgspec.field(name="@odata.context", default_factory=msgspec.Raw)
    count: msgspec.Raw = msgspec.field(name="@odata.count", default_factory=msgspec.Raw)
    next_link: msgspec.Raw = msgspec.field(name="@odata.nextLink", default_factory=msgspec.Raw)


_USUAL = msgspec.json.Decoder(_Usual)
_USUAL_NAMES = ("@odata.context", "@odata.count", "@odata.nextLink")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder(list[msgspec.Raw])
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:"]', re.DOTALL)
_CLOSES = {b"{": b"}", b"[": b"]"}
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a body holds: each record's text, the link to more (None where there is none), and `@odata.count`."""

    records: list[bytes]
    next_link: str | None
    count: int | None


def open_envelope(body: bytes) -> Envelope:
    """Take a body apart; raises SourceUnavailable where it is no listing, or not whole."""
    try:
        usual = _USUAL.decode(body)
    except REFUSED:
        return _opened(body)
    records = list(map(bytes, usual.value))
    raws = zip(_USUAL_NAMES, map(bytes, (usual.context, usual.count, usual.next_link)), strict=True)
    others = {name: raw for name, raw in raws if raw}
    held = len('"value":[],') + sum(map(len, records)) + len(records) - bool(records)
    if _has_more(body, held, others):
        return _opened(body)  # there is white space between its records
    return _envelope(records, ((name, _decoded(raw)) for name, raw in others.items()))


def _opened(body: bytes) -> Envelope:
    try:
        members = _MEMBERS.decode(body)
        values = [bytes(raw) for raw in _VALUE.decode(members["value"])]
    except (*REFUSED, KeyError):
        return _scanned(body)
    if _has_more(body, 0, members):
        return _scanned(body)  # a member may stand in it twice, of which only the last is seen here
    return _envelope(values, ((name, _decoded(bytes(raw))) for name, raw in members.items() if name != "value"))


def _has_more(body: bytes, held: int, members: Mapping[str, bytes | msgspec.Raw]) -> bool:
    """Say whether a body is longer than what was found in it, `held` bytes and some members."""
    held += sum(len(name) + len(raw) + len('"":,') for name, raw in members.items())
    return len(body) - held > _SLACK + _SLACK_PER_MEMBER * len(members)


def error_beside(members: Iterator[tuple[str, Any]]) -> str:
    """Return the name of the first member that says an error happened, or nothing."""
    nothing: tuple[Any, ...] = (None, "", False, [])
    return next((name for name, value in members if _ERRORS.search(name.lower()) and value not in nothing), "")


def _envelope(records: list[bytes], others: Iterator[tuple[str, Any]]) -> Envelope:
    members = list(others)
    if error_beside(iter(members)):
        raise SourceUnavailable(
            "The API's answer reports an error beside its rows, so it is not whole.",
            "Nothing of it was taken; the request is repeated, and then the next run tries again.",
        )
    links = [value for name, value in members if name.lower() in _LINKS and value not in (None, "")]
    if any(not isinstance(link, str) for link in links) or len(set(links)) > 1:
        raise _no_listing()
    count = next((value for name, value in members if name.lower() == "@odata.count"), None)
    whole = isinstance(count, int) and not isinstance(count, bool)
    return Envelope(records, links[0] if links else None, count if whole else None)


def _scanned(body: bytes) -> Envelope:
    """Take a body apart by its brackets and strings alone."""
    members = list(_members(body))
    values = [raw for name, raw in members if name == "value"]
    if len(values) != 1 or not values[0].startswith(b"["):
        raise _no_listing()
    others = ((name, _decoded(raw)) for name, raw in members if name != "value")
    return _envelope(list(_elements(values[0])), others)


def _members(document: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the members of the one object that a text must be; raises SourceUnavailable where it is anything else."""
    start = len(document) - len(document.lstrip(_SPACE))
    for piece in _pieces(document, start, b"{", b"}"):
        found = _TOKEN.match(piece)
        name = _decoded(found[0]) if found is not None else None
        rest = piece[found.end() :].lstrip(_SPACE) if found is not None else b""
        if not isinstance(name, str) or not rest.startswith(b":"):
            raise _no_listing()
        yield name, rest[1:].strip(_SPACE)


def _elements(array: bytes) -> Iterator[bytes]:
    """Give the elements of an array."""
    yield from _pieces(array, 0, b"[", b"]")


def _pieces(text: bytes, start: int, opens: bytes, closes: bytes) -> Iterator[bytes]:
    """Cut what stands between two brackets at its commas; nothing but white space may come behind the second."""
    if text[start : start + 1] != opens:
        raise _no_listing()
    begin = start + 1
    for cut in _cuts(text, start):
        piece, sign = text[begin:cut].strip(_SPACE), text[cut : cut + 1]
        if piece:
            yield piece
        elif sign == b"," or begin > start + 1:
            raise _no_listing()  # a comma with nothing before or behind it
        if sign == closes and not text[cut + 1 :].strip(_SPACE):
            return
        begin = cut + 1
    raise _no_listing()


def _cuts(text: bytes, start: int) -> Iterator[int]:
    """Give the places of a bracket's own commas and of its end; ends early where brackets or strings do not close."""
    open_brackets = list[bytes]()
    for token in _TOKEN.finditer(text, start):
        sign = token[0]
        if sign in _CLOSES:
            open_brackets.append(sign)
        elif sign in _CLOSES.values():
            if _CLOSES[open_brackets.pop()] != sign:
                return
            if not open_brackets:
                yield token.start()
                return
        elif sign == b"," and len(open_brackets) == 1:
            yield token.start()
        elif sign == b'"':
            return


def member_of(record: bytes, wanted: str) -> Any:
    """Return a member of a record that cannot be decoded as a whole, such as its id; None where it is not found."""
    try:
        return next((_decoded(raw) for name, raw in _members(record) if name == wanted), None)
    except SourceUnavailable:
        return None


def _decoded(raw: bytes) -> Any:
    """Decode a small value; what cannot be decoded is something, and no link, no name and no count."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return ...


def _no_listing() -> SourceUnavailable:
    return SourceUnavailable(
        "The API's answer is not a referral listing: it is cut off, or not the JSON that is documented.",
        "Usually a proxy or an outage in between; the next run tries again.",
    )
