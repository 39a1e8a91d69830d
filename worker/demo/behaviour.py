"""What a simulated server does and what it gets wrong, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import msgspec

Option = Literal["honour", "ignore", "reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Every switch of the simulator; the defaults are what the documents say, or else the likeliest guess.

    Listing
      page_size           rows on a page
      paging              offset: a token is a count of rows skipped in a list made anew for each page, so rows shift
                          under writes; keyset: a token is the last key, stable
      link                documented (http, foreign host, no /engagements), relative (`$skipToken`), full (own origin)
      link_name           how the link to more is spelt
      link_omitted        which answers with more behind them lack it: never, always, every_fifth of them
      end_link            what stands in its place where there is no more: absent, null, empty (a text)
      short_pages         every third page holds half its rows and no link
      untimed             where rows without the time that is ordered by lie: first (and last, descending), or hidden
      token_carries_query the token holds filter and order; if not, they must be sent again beside it
      count               what `@odata.count` says: rows of the page, of the whole result, or absent
      list_etag           list records carry `eTag` (a record by id always does)
      thin_list           list records lack `registrations` and `customerProfile.team`
      ties                how rows of one timestamp lie: by id, or at random for each request
    Options of a query
      filter_updated, filter_created   what a comparison of that time field does: honour, ignore (always true), reject
      order               honour, ignore (rows come by id), reject
      skip                whether `$skip` is honoured
      date_literal        which form of a date literal parses
      literal_rounding    none; second (the literal is rounded to the nearest second); string (times compared as texts)
      plus_is_space       `+` in a query means a space
    Visibility
      reveal_delay        seconds until a row written through the controls shows; null: until told to
      visible_fraction    this part of all rows is listed and found by id (a lost role)
      visible_ids         only these ids are
    Limits
      latency             seconds that each answer of the API takes, after its rows were chosen
      max_concurrent      more requests at once are answered 429; 0: no limit
      require_request_id  `client-request-id` must be a GUID never sent before
    Sign-in
      token_lifetime      seconds that an issued access token is good for
      refresh_tokens      rotate (a new one each time, old ones stay good), keep (none returned), single_use
      client_secret, password   what must be sent; empty: anything will do
      demand_claims       what the API answers to a token that was not issued for its claims: nothing (it is good),
                          challenge (403 that says which), silent (403 insufficent_claims, as the documents spell it)
      grant_claims        whether a token request with `claims` is granted, or refused
      device_polls        how often the device flow says `authorization_pending` before it gives in; -1: for ever
    """

    page_size: int = 100
    paging: Literal["offset", "keyset"] = "offset"
    link: Literal["documented", "relative", "full"] = "documented"
    link_name: str = "@odata.nextLink"
    link_omitted: Literal["never", "always", "every_fifth"] = "never"
    end_link: Literal["absent", "null", "empty"] = "absent"
    short_pages: bool = False
    untimed: Literal["first", "hidden"] = "first"
    token_carries_query: bool = True
    count: Literal["page", "total", "absent"] = "page"
    list_etag: bool = False
    thin_list: bool = False
    ties: Literal["by_id", "random"] = "by_id"
    filter_updated: Option = "honour"
    filter_created: Option = "honour"
    order: Option = "honour"
    skip: bool = True
    date_literal: Literal["unquoted", "quoted", "both"] = "unquoted"
    literal_rounding: Literal["none", "second", "string"] = "none"
    plus_is_space: bool = True
    reveal_delay: float | None = 0.0
    visible_fraction: float = 1.0
    visible_ids: tuple[str, ...] | None = None
    latency: float = 0.0
    max_concurrent: int = 0
    require_request_id: bool = True
    token_lifetime: float = 3600.0
    refresh_tokens: Literal["rotate", "keep", "single_use"] = "rotate"
    client_secret: str = ""
    password: str = ""
    device_polls: int = 1
    demand_claims: Literal["nothing", "challenge", "silent"] = "nothing"
    grant_claims: bool = True

    def __post_init__(self) -> None:
        """Refuse values with which no listing could be served."""
        if self.page_size < 1:
            raise ValueError("page_size must be at least 1.")
        if not 0 <= self.visible_fraction <= 1:
            raise ValueError("visible_fraction must lie between 0 and 1.")


def changed(behaviour: Behaviour, changes: Mapping[str, Any]) -> Behaviour:
    """Return the behaviour with some options replaced, types checked; ValueError names what is wrong."""
    unknown = set(changes) - {field.name for field in fields(Behaviour)}
    if unknown:
        raise ValueError(f"There is no behaviour called {', '.join(sorted(unknown))}.")
    try:
        return msgspec.convert({**asdict(behaviour), **changes}, Behaviour)
    except msgspec.ValidationError as fault:
        raise ValueError(str(fault)) from fault
