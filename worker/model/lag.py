"""Replication lag: how far behind their own `updatedDateTime` records appear, which the overlap has to cover.

Nobody documents when a change becomes visible in the listing (partner-center-api.md section 9.2). A sync sees by itself
what appears within the overlap; what appears later only a reconcile finds, and then the overlap is too small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.model.counts import Facts
from worker.model.instant import TICKS_PER_SECOND, Instant, from_datetime, shift

MAX_SAMPLES = 10_000
"""Changes of one run that percentiles are taken from; memory stays flat in a run that reads millions."""


@dataclass(slots=True)
class Lag:
    """The replication lag that one run measures; nothing before `watermark`, the one at its start, is set.

    `verified_through` is through when the copy was verified before: what changed since and lies below the overlap
    should have come with a sync, so a reconcile that finds it counts it as missed. `below_watermark` is how many
    seconds below the watermark a change appeared, at most.
    """

    watermark: Instant | None = None
    overlap: timedelta = timedelta(0)
    verified_through: Instant | None = None
    samples: list[float] = field(default_factory=list)
    below_watermark: float | None = None
    missed: int = 0

    def learn(self, version: Instant, observed_at: datetime) -> None:
        """Take in a change that was stored: its `updatedDateTime`, and when it was asked for."""
        if self.watermark is None or not version:
            return
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(max(0.0, (from_datetime(observed_at) - version) / TICKS_PER_SECOND))
        self.below_watermark = max(self.below_watermark or 0.0, (self.watermark - version) / TICKS_PER_SECOND)
        looked_from = shift(self.watermark, -self.overlap)
        if self.verified_through is not None and self.verified_through <= version < looked_from:
            self.missed += 1

    def facts(self) -> Facts:
        """Return it as facts of the run: percentiles in seconds, None where nothing changed."""
        return Facts(
            lag_p50=self._percentile(0.5),
            lag_p95=self._percentile(0.95),
            lag_max=self._percentile(1),
            below_watermark_max=self.below_watermark,
            overlap=self.overlap.total_seconds() if self.watermark is not None else None,
            missed=self.missed,
        )

    @property
    def exceeds_overlap(self) -> bool:
        """Whether the replication lag went beyond the overlap, or came near to it."""
        return bool(self.missed) or (self.below_watermark or 0) > self.overlap.total_seconds() / 2

    def _percentile(self, share: float) -> float | None:
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
