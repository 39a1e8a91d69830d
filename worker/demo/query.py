"""The query string of a listing, read raw, and what of it a server with given behaviour will do."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from worker.demo import ticks
from worker.demo.behaviour import Behaviour
from worker.demo.odata import (
    CREATED,
    TIMES,
    UPDATED,
    Always,
    BadQueryError,
    Compare,
    Junction,
    Moment,
    Node,
    parse_filter,
    parse_order,
    rewritten,
)

Order = tuple[tuple[str, bool], ...]
Bounds = dict[str, tuple[int, int]]
FOREVER = 1 << 62  # later than any tick that can be written
_KNOWN = {"$filter", "$orderby", "$select", "$top", "$skip", "$count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The options of a listing, decoded; empty where not given."""

    filter: str = ""
    orderby: str = ""
    select: str = ""
    top: int | None = None
    skip: int = 0
    count: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What the server makes of filter and order.

    `bounds` are half-open tick ranges of a time field that all rows must meet; `rest` is what remains to be tested.
    """

    bounds: Bounds
    rest: Node | None
    order: Order


def parse_query(raw: str, *, plus_is_space: bool) -> tuple[Query, str | None]:
    """Split a raw query string into its options and the untouched text of `$skiptoken`, None without one."""
    options: dict[str, str] = {}
    token: str | None = None
    for pair in filter(None, raw.split("&")):
        name, _, value = pair.partition("=")
        if name.lower() == "$skiptoken":
            token = value
            continue
        name = unquote(name)
        if name.startswith("$") and name not in _KNOWN:
            raise BadQueryError(f"The query option '{name}' is not supported.", name)
        options[name] = unquote(value.replace("+", " ") if plus_is_space else value)
    top = options.get("$top")
    query = Query(
        filter=options.get("$filter", ""),
        orderby=options.get("$orderby", ""),
        select=options.get("$select", ""),
        top=None if top is None else _number("$top", top),
        skip=_number("$skip", options.get("$skip", "0")),
        count=options.get("$count") == "true",
    )
    return query, token


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadQueryError(f"Invalid value '{text}' for {name} query option.", name)
    return int(text)


def make_plan(query: Query, behaviour: Behaviour) -> Plan:
    """Decide how to answer; BadQueryError for what the server rejects."""
    order = parse_order(query.orderby) if query.orderby else (("id", False),)
    if query.orderby and behaviour.order == "reject":
        raise BadQueryError("The query option '$orderby' is not allowed.", "$orderby")
    if behaviour.order == "ignore":
        order = (("id", False),)
    if not query.filter:
        return Plan({}, None, order)
    node = rewritten(parse_filter(query.filter), lambda compare: _settled(compare, behaviour))
    bounds, rest = _bounds(node)
    return Plan(bounds, rest, order)


def _settled(compare: Compare, behaviour: Behaviour) -> Node:
    """Return what a comparison means on this server; of the two time fields each may be honoured or not."""
    field = compare.path[0]
    if field not in TIMES:
        return compare
    option = {CREATED: behaviour.filter_created, UPDATED: behaviour.filter_updated}[field]
    if option == "reject":
        raise BadQueryError(f"The property '{field}' cannot be used in the $filter query option.")
    if option == "ignore":
        return Always()
    kind, text = compare.literal.kind, compare.literal.value
    forms = {"unquoted": {"date"}, "quoted": {"string"}, "both": {"date", "string"}}[behaviour.date_literal]
    instant = ticks.parse(text)
    if kind not in forms or instant is None:
        raise BadQueryError(f"A binary operator with incompatible types was detected at '{field}'.")
    if behaviour.literal_rounding == "string":
        return Moment(field, compare.operator, str(text))
    if behaviour.literal_rounding == "second":
        instant = (instant + ticks.SECOND // 2) // ticks.SECOND * ticks.SECOND
    return Moment(field, compare.operator, instant)


def _bounds(node: Node) -> tuple[Bounds, Node | None]:
    """Split off what an index can answer: the top-level `and` of exact time comparisons."""
    parts = node.parts if isinstance(node, Junction) and node.word == "and" else (node,)
    bounds: Bounds = {}
    rest: list[Node] = []
    for part in parts:
        if isinstance(part, Always):
            continue
        if not isinstance(part, Moment) or isinstance(part.bound, str) or part.operator == "ne":
            rest.append(part)
            continue
        lower, upper = bounds.get(part.field, (0, FOREVER))
        least, end = {
            "ge": (part.bound, FOREVER),
            "gt": (part.bound + 1, FOREVER),
            "lt": (0, part.bound),
            "le": (0, part.bound + 1),
            "eq": (part.bound, part.bound + 1),
        }[part.operator]
        bounds[part.field] = max(lower, least), min(upper, end)
    if not rest:
        return bounds, None
    return bounds, rest[0] if len(rest) == 1 else Junction("and", tuple(rest))
