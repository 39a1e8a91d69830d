"""Paging a window so that nothing is missed, and saying how far it is complete and how its end was verified.

Three paging strategies, best first: keyset (`keyset.py`), scan and sweep (`scan.py`). Each checks every page
against what it asked for and raises SourceContradicted when an answer contradicts it; the flow then downgrades.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from worker.errors import SourceContradicted, SourceRejected
from worker.model.record import Page
from worker.model.strategy import Paging, Strategy
from worker.model.window import Window
from worker.source.capability import REFUSED_QUERY
from worker.source.checks import Anchor
from worker.source.client import Client
from worker.source.keyset import keyset
from worker.source.scan import scan, sweep


async def pages(
    client: Client, window: Window, strategy: Strategy, anchor: Anchor | None = None
) -> AsyncGenerator[Page]:
    """Read a window; every page says how far (exclusive) the window is complete with it.

    `anchor` is the newest record known at or below the watermark. Raises SourceContradicted when the answers contradict
    each other, or when the API refuses a query that it was seen to accept.
    """
    async with aclosing(_by_paging(client, window, strategy, anchor)) as found:
        try:
            async for page in found:
                yield page
        except SourceRejected as refusal:
            if refusal.status in REFUSED_QUERY and strategy.paging is not Paging.SWEEP:
                raise SourceContradicted(
                    f"The API refuses what it was seen to accept. {refusal}", lasting=False
                ) from refusal
            raise


def _by_paging(client: Client, window: Window, strategy: Strategy, anchor: Anchor | None) -> AsyncGenerator[Page]:
    match strategy.paging:
        case Paging.KEYSET:
            return keyset(client, window, strategy, anchor)
        case Paging.SCAN:
            return scan(client, window, anchor, links=strategy.links)
        case Paging.SWEEP:
            return sweep(client, window, anchor)
