"""Paging strategies: what the API was seen to do for a time field, and so how its listing is paged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Paging(StrEnum):
    """How a listing is paged, best first."""

    KEYSET = "keyset"
    """Filtered by time in ascending order; each request begins at the last time seen."""
    SCAN = "scan"
    """Newest first, following links until a page lies below the window."""
    SWEEP = "sweep"
    """Everything, in no order that could be relied on."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A paging strategy for one time field, with its evidence.

    `quoted`: the filter's literal stands in quotes. `bounded_above`: an upper bound in the filter is honoured too.
    `links`: next page links were seen to carry order and filter on; where they do not, only a listing without either
    can be followed. `evidence` says what the probe saw; where that was not `conclusive`, it is probed again soon.
    `page_size` is the largest page that was seen, 0 where none was.
    """

    paging: Paging
    quoted: bool = False
    bounded_above: bool = False
    evidence: str = ""
    conclusive: bool = True
    links: bool = True
    page_size: int = 0

    def downgraded(self, evidence: str, *, conclusive: bool) -> Strategy:
        """Return the next strategy, because this one was contradicted; inconclusive, it is probed again soon."""
        lower = Paging.SCAN if self.paging is Paging.KEYSET and self.links else Paging.SWEEP
        return replace(self, paging=lower, evidence=evidence, conclusive=conclusive)
