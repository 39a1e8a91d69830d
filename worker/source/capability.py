"""Asking what an API may refuse: a refused query is a finding, not a failure."""

from __future__ import annotations

from worker.errors import SourceRejected
from worker.model.record import Listing
from worker.source.client import Client

REFUSED_QUERY = frozenset({400, 405, 422, 501})
"""What a server answers to an option that it does not take (partner-center-api.md section 6.2)."""


async def try_query(client: Client, query: str) -> Listing | None:
    """Ask; None when the API refuses the query itself."""
    try:
        return await client.list(query)
    except SourceRejected as error:
        if error.status in REFUSED_QUERY:
            return None
        raise
