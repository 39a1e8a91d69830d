"""Skip tokens and next links, with the hazards of the real ones."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from worker.demo.behaviour import Behaviour
from worker.demo.odata import BadQueryError
from worker.demo.query import Query

LIST_PATH = "/v1.0/engagements/referrals"
CONTEXT = "http://api.partner.microsoft.com/v1.0/$metadata#Referrals"
# Every token begins with these, so that each holds escapes that a careless client changes.
_MARK = "k181/+"
# Lower case, as the real server writes them; %2F would be another token.
_ESCAPES = (("/", "%2f"), ("+", "%2b"), ("=", "%3d"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the next page begins: after `offset` rows, or behind the key `after`.

    `query` is None where the token does not carry it; `left` is what `$top` still allows; `turn` makes tokens differ.
    """

    query: Query | None
    offset: int = 0
    after: tuple[Any, str] | None = None
    left: int | None = None
    turn: int = 0


def write_token(position: Position) -> str:
    """Return the raw text of a token, escapes included."""
    text = _MARK + base64.b64encode(msgspec.json.encode(position)).decode()
    for letter, escape in _ESCAPES:
        text = text.replace(letter, escape)
    return text


def read_token(raw: str) -> Position:
    """Read a token that came back; BadQueryError unless it is byte for byte one of ours."""
    text = raw
    if not any(letter in text for letter, _ in _ESCAPES):
        for letter, escape in _ESCAPES:
            text = text.replace(escape, letter)
        if text.startswith(_MARK) and "%" not in text:
            try:
                position = msgspec.json.decode(base64.b64decode(text[len(_MARK) :], validate=True), type=Position)
            except (binascii.Error, ValueError):
                position = None
            if position is not None:
                return position
    raise BadQueryError("The skiptoken is invalid or was changed on its way.", "$skiptoken")


def next_link(token: str, behaviour: Behaviour, origin: str) -> str:
    """Return the link in the shape that this server uses."""
    match behaviour.link:
        case "documented":
            return f"http://api.partner.microsoft.com/v1.0/referrals?$skiptoken={token}"
        case "relative":
            return f"{LIST_PATH[1:]}?$skipToken={token}"
        case "full":
            return f"{origin}{LIST_PATH}?$skiptoken={token}"


def deep_tuple(value: Any) -> Any:
    """Return a key as it was before JSON made lists of its tuples."""
    return tuple(deep_tuple(each) for each in value) if isinstance(value, list) else value
