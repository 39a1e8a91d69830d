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
    """What one run learns of lateness; it learns nothing until it is told the watermark at its start.

    `proven` is through when the copy was verified before: what changed since and lies below the overlap should have
    come with a sync, so a reconcile that finds it counts it as missed.
    """

    watermark: Instant | None = None
    overlap: timedelta = timedelta(0)
    proven: Instant | None = None
    samples: list[float] = field(default_factory=list)
    late: float | None = None
    missed: int = 0

    def learn(self, version: Instant, observed_at: datetime) -> None:
        """Take in a change that was stored: its `updatedDateTime`, and when it was asked for."""
        if self.watermark is None or not version:
            return
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(max(0.0, (from_datetime(observed_at) - version) / TICKS_PER_SECOND))
        self.late = max(self.late or 0.0, (self.watermark - version) / TICKS_PER_SECOND)
        if self.proven is not None and self.proven <= version < shift(self.watermark, -self.overlap):
            self.missed += 1

    def facts(self) -> Facts:
        """Return it as facts of the run: percentiles in seconds, None where nothing changed."""
        return Facts(
            lag_p50=self._percentile(0.5),
            lag_p95=self._percentile(0.95),
            lag_max=self._percentile(1),
            late_max=self.late,
            overlap=self.overlap.total_seconds() if self.watermark is not None else None,
            missed=self.missed,
        )

    @property
    def exceeds_overlap(self) -> bool:
        """Whether changes came later than, or nearly as late as, the overlap allows."""
        return bool(self.missed) or (self.late or 0) > self.overlap.total_seconds() / 2

    def _percentile(self, share: float) -> float | None:
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
