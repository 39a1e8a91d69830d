"""`$filter` and `$orderby` as the simulated server reads them: parsed, checked, and turned into tests of a row."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from worker.demo import ticks

CREATED, UPDATED = "createdDateTime", "updatedDateTime"
TIMES = (CREATED, UPDATED)
MEMBERS = frozenset(
    (
        *("id", "engagementId", "name", "organizationId", "organizationName", "externalReferenceId", CREATED, UPDATED),
        *("expirationDateTime", "acceptedDateTime", "closedDateTime", "status", "substatus", "statusReason", "type"),
        *("qualification", "direction", "eTag", "favorite", "campaignId", "referralProgram", "salesStage", "quality"),
        *("isSpam", "mpnId", "dealSensitivity", "createdVia", "lastModifiedVia", "lastRunId", "tags", "callToAction"),
        *("referralSource", "offerId", "registrationStatus", "customerMarketplaceIntent", "customerProfile", "team"),
        *("details", "consent", "inviteContext", "target", "links", "trackingInfo", "registrations"),
    )
)

Value = str | float | bool | None
Kind = Literal["string", "date", "guid", "number", "word"]


class BadQueryError(ValueError):
    """A query that the server answers with 400; `target` is the option at fault."""

    def __init__(self, message: str, target: str = "$filter") -> None:
        super().__init__(message)
        self.target = target


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: the form in which it was written, and its value (of dates and GUIDs, the text)."""

    kind: Kind
    value: Value


@dataclass(frozen=True, slots=True)
class Compare:
    """`path operator literal`."""

    path: tuple[str, ...]
    operator: str
    literal: Constant


@dataclass(frozen=True, slots=True)
class Junction:
    """`and` or `or` over two and more parts."""

    word: Literal["and", "or"]
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`not (...)`."""

    part: Node


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`path/any(v: ...)`; paths in `part` that begin with `variable` mean the member of the array."""

    path: tuple[str, ...]
    variable: str
    part: Node


@dataclass(frozen=True, slots=True)
class Moment:
    """A comparison of one of the two time fields, by exact ticks or, where `bound` is a text, as texts."""

    field: str
    operator: str
    bound: int | str


@dataclass(frozen=True, slots=True)
class Always:
    """A comparison that the server ignores."""


Node = Compare | Junction | Not | AnyOf | Moment | Always

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<date>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))
    | (?P<guid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*)
    | (?P<sign>[():])
    )""",
    re.VERBOSE | re.ASCII,
)
_END = ("end", "")


class _Tokens:
    """The tokens of one filter with a look at the next."""

    def __init__(self, text: str) -> None:
        self._rest = self._split(text)
        self.next = next(self._rest)

    @staticmethod
    def _split(text: str) -> Iterator[tuple[str, str]]:
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise BadQueryError(f"Syntax error at position {position} in '{text}'.")
            yield match.lastgroup, match[match.lastgroup]
            position = match.end()
        yield _END

    def take(self, *wanted: str) -> str:
        """Pass the next token, whose text or kind must be among `wanted`, and return its text."""
        kind, text = self.next
        if text not in wanted and kind not in wanted:
            raise BadQueryError(f"Expected {' or '.join(wanted)}, found '{text}'.")
        if kind != "end":
            self.next = next(self._rest)
        return text


def parse_filter(text: str) -> Node:
    """Parse a `$filter`; BadQueryError where the server would answer 400."""
    tokens = _Tokens(text)
    node = _either(tokens, None)
    tokens.take("end")
    return node


def _either(tokens: _Tokens, variable: str | None) -> Node:
    return _joined(tokens, variable, "or")


def _joined(tokens: _Tokens, variable: str | None, word: Literal["and", "or"]) -> Node:
    def part() -> Node:
        return _joined(tokens, variable, "and") if word == "or" else _term(tokens, variable)

    parts = [part()]
    while tokens.next[1] == word:
        tokens.take(word)
        parts.append(part())
    return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))


def _term(tokens: _Tokens, variable: str | None) -> Node:
    if tokens.next[1] == "not":
        tokens.take("not")
        return Not(_term(tokens, variable))
    if tokens.next[1] == "(":
        tokens.take("(")
        node = _either(tokens, variable)
        tokens.take(")")
        return node
    path = tuple(tokens.take("word").split("/"))
    if path[0] != variable and path[0] not in MEMBERS:
        raise BadQueryError(f"Could not find a property named '{path[0]}' on type 'Referral'.")
    if path[-1] == "any" and tokens.next[1] == "(":
        tokens.take("(")
        inner = tokens.take("word")
        tokens.take(":")
        node = _either(tokens, inner)
        tokens.take(")")
        return AnyOf(path[:-1], inner, node)
    sign = tokens.take("word")
    if sign not in OPERATORS:
        raise BadQueryError(f"Unknown operator '{sign}'.")
    return Compare(path, sign, _literal(tokens))


def _literal(tokens: _Tokens) -> Constant:
    kind, text = tokens.next
    tokens.take("string", "date", "guid", "number", "true", "false", "null")
    match kind:
        case "string":
            return Constant("string", text[1:-1].replace("''", "'"))
        case "number":
            return Constant("number", float(text))
        case "date" | "guid":
            return Constant("date" if kind == "date" else "guid", text)
        case _:
            return Constant("word", {"true": True, "false": False}.get(text))


def rewritten(node: Node, change: Callable[[Compare], Node]) -> Node:
    """Return the filter with every comparison outside `any` replaced by what `change` says."""
    match node:
        case Compare():
            return change(node)
        case Junction():
            return Junction(node.word, tuple(rewritten(part, change) for part in node.parts))
        case Not():
            return Not(rewritten(node.part, change))
        case _:
            return node


def test_of(node: Node) -> Callable[[Any], bool]:
    """Turn a filter into a test of a decoded record."""
    match node:
        case Compare():
            return _comparison(node)
        case Junction():
            tests = [test_of(part) for part in node.parts]
            every = all if node.word == "and" else any
            return lambda record: every(test(record) for test in tests)
        case Not():
            negated = test_of(node.part)
            return lambda record: not negated(record)
        case AnyOf():
            inner = test_of(node.part)
            return lambda record: any(inner({node.variable: item}) for item in _items(record, node.path))
        case Moment():
            return _moment(node)
        case Always():
            return lambda _: True


def _moment(node: Moment) -> Callable[[Any], bool]:
    compare, bound = OPERATORS[node.operator], node.bound
    if isinstance(bound, str):
        return lambda record: _safely(compare, record.get(node.field), bound)
    return lambda record: _safely(compare, ticks.parse(record.get(node.field)), bound)


def _comparison(node: Compare) -> Callable[[Any], bool]:
    compare, wanted = OPERATORS[node.operator], node.literal.value
    if node.literal.kind == "date":
        instant = ticks.parse(wanted)
        return lambda record: _safely(compare, ticks.parse(member(record, node.path)), instant)
    return lambda record: _safely(compare, member(record, node.path), wanted)


def _safely(compare: Callable[[Any, Any], bool], found: Any, wanted: Any) -> bool:
    """Compare as OData does: a null is neither before nor after anything, and types do not mix."""
    if compare is operator.eq or compare is operator.ne:
        return compare(found, wanted)
    try:
        return found is not None and wanted is not None and compare(found, wanted)
    except TypeError:
        return False


def member(record: Any, path: tuple[str, ...]) -> Any:
    """Return the member at a path, None where any step is missing."""
    for name in path:
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record


def _items(record: Any, path: tuple[str, ...]) -> list[Any]:
    found = member(record, path)
    return found if isinstance(found, list) else []


def parse_order(text: str) -> tuple[tuple[str, bool], ...]:
    """Parse an `$orderby` into (field, descending) pairs, the two times and `id` only."""
    keys: list[tuple[str, bool]] = []
    for clause in text.split(","):
        field, *way = clause.split() or [""]
        if field not in {*TIMES, "id"} or way not in ([], ["asc"], ["desc"]):
            raise BadQueryError(f"The $orderby clause '{clause.strip()}' is not supported.", "$orderby")
        keys.append((field, way == ["desc"]))
    return tuple(keys)
