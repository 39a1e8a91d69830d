"""Queries as the API reads them, and the one thing we take from a `nextLink`.

Query strings are built and kept as raw text: the skip token's own percent-escapes must come back byte for byte
(partner-center-api.md section 1.7), and a space is `%20`, which every server reads alike.
"""

from __future__ import annotations

from urllib.parse import quote

from worker.errors import SourceContradicted
from worker.model.instant import Instant, render
from worker.model.window import TimeField

_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x21, 0x7E


def list_query(
    *,
    field: TimeField,
    descending: bool = False,
    lower: Instant | None = None,
    upper: Instant | None = None,
    quoted: bool = False,
) -> str:
    """Build the raw query of a listing ordered by `field`, optionally bounded to `[lower, upper)`.

    The lower bound is inclusive (`ge`): equal timestamps must never fall between two queries. `quoted` writes the
    literals in quotes, the second form that `check` tries.
    """
    terms = []
    for operator, bound in (("ge", lower), ("lt", upper)):
        if bound is not None:
            literal = f"'{render(bound)}'" if quoted else render(bound)
            terms.append(f"{field.value} {operator} {literal}")
    options = {"$filter": " and ".join(terms)} if terms else {}
    options["$orderby"] = f"{field.value} {'desc' if descending else 'asc'}"
    return "&".join(f"{name}={quote(value, safe=':')}" for name, value in options.items())


def query_of_next_link(link: str) -> str:
    """Return the raw query of a `nextLink`, untouched; its scheme, host and path are never used.

    The documents show it with `http`, another path, relative or absolute. Raises SourceContradicted when there is no
    query to use.
    """
    _, mark, query = link.partition("?")
    query = query.partition("#")[0].replace(" ", "%20")
    if not mark or not query or any(not _FIRST_PRINTABLE <= ord(sign) <= _LAST_PRINTABLE for sign in query):
        raise SourceContradicted(
            "The API answered with a next page link that has no usable query.",
            "Nothing past this page was read; run `referral-sync check` and report the request id.",
        )
    return query
