"""How a listing is read: what the API was seen to do for a time field, and so which way can be relied on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Method(StrEnum):
    """The three ways of reading, best first."""

    KEYSET = "keyset"
    """Filtered by time in ascending order; each request begins at the last time seen."""
    SCAN = "scan"
    """Newest first, following links until a page lies below the window."""
    SWEEP = "sweep"
    """Everything, in no order that could be relied on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A way to read one time field, with what it rests on.

    `quoted`: the filter's literal stands in quotes. `bounded_above`: an upper bound in the filter is honoured too.
    `links`: next page links were seen to carry order and filter on; where they do not, only a listing without either
    can be followed. `evidence` says what was seen; `proven` is false while there was too little to see, and then it is
    asked again. `page_size` is the largest page that was seen, 0 where none was.
    """

    method: Method
    quoted: bool = False
    bounded_above: bool = False
    evidence: str = ""
    proven: bool = True
    links: bool = True
    page_size: int = 0

    def demoted(self, evidence: str, *, proven: bool) -> Reading:
        """Return the next way down, because this one contradicted itself; unproven, it is looked at again soon."""
        lower = Method.SCAN if self.method is Method.KEYSET and self.links else Method.SWEEP
        return replace(self, method=lower, evidence=evidence, proven=proven)
