"""Metrics for Prometheus, made from the rows of `sync.status` whenever they are asked for.

They come from the database and not from this process, so that any replica says the same, a standby too. Labels are
account names and fixed words; no personal data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

HEALTHS = ("ok", "loading", "never ran", "failing", "needs a person")

_AGES = {
    "data_age_seconds": ("fresh_as_of", "How long ago the last good run began to ask: older changes are in the copy."),
    "watermark_age_seconds": ("watermark", "How old the newest change is that the copy has."),
    "proof_age_seconds": ("verified_at", "How long ago a full listing last agreed with the copy."),
}
_VALUES = {
    "rejects": ("open_rejects", "Records kept aside."),
    "lag_median_seconds": ("lag_p50", "From a change at the source until it was read, in the last tick with a change."),
    "lag_p95_seconds": ("lag_p95", "The same, for 95 of 100 changes."),
    "late_seconds": ("late_max", "How far below the watermark a change appeared at most, in 7 days."),
    "overlap_seconds": ("overlap", "How far below the watermark ticks read."),
    "missed": ("missed", "Changes that the last reconcile found and ticks should have brought."),
    "overlap_too_small": ("overlap_too_small", "1 when changes come near to escaping the overlap, or did."),
    "runs_under_way": ("running", "Runs that have not ended."),
}
_FLAGS = {
    "reconcile_refused": (
        lambda row: row["last_reconcile_outcome"] == "refused",
        "1 when the last reconcile marked nothing because too many rows had vanished, or it was not permitted.",
    ),
    "last_run_good": (lambda row: row["last_run_outcome"] == "done", "1 when the last tick or load went well."),
}


def exposition(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write the rows of `sync.status` in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Status(list(rows), datetime.now(UTC)))
    return generate_latest(registry)


class _Status(Collector):
    def __init__(self, rows: list[Mapping[str, Any]], now: datetime) -> None:
        self._rows, self._now = rows, now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (column, meaning) in _AGES.items():
            yield self._gauge(name, meaning, lambda row, c=column: row[c] and (self._now - row[c]).total_seconds())
        for name, (column, meaning) in _VALUES.items():
            yield self._gauge(name, meaning, lambda row, c=column: row[c])
        for name, (holds, meaning) in _FLAGS.items():
            yield self._gauge(name, meaning, holds)
        referrals = _family("referrals", "Rows of the copy: listed by the source, or gone from it.", "state")
        health = _family("health", "1 at the account's health.", "health")
        for row in self._rows:
            referrals.add_metric([row["account"], "listed"], row["live_referrals"] or 0)
            referrals.add_metric([row["account"], "gone"], row["deleted_referrals"] or 0)
            for word in HEALTHS:
                health.add_metric([row["account"], word], float(row["health"] == word))
        yield referrals
        yield health

    def _gauge(self, name: str, meaning: str, value: Any) -> GaugeMetricFamily:
        family = _family(name, meaning)
        for row in self._rows:
            number = value(row)
            if number is not None:
                family.add_metric([row["account"]], float(number))
        return family


def _family(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"referral_sync_{name}", meaning, labels=["account", *labels])
