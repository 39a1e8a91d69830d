"""Metrics for Prometheus, made from what the database knows whenever they are asked for.

They come from the database and not from this process, so that any worker says the same; only
`connections`, `work_in_hand` and `build_info` are the process's own. Labels are account names, fixed words and the
owners of leases (host, process); no personal data.
"""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from worker import RELEASE
from worker.model.counts import FIGURES
from worker.model.figures import Counter

HEALTHS = ("ok", "loading", "never ran", "failing", "action required")

_AGES = {
    "data_age_seconds": ("fresh_as_of", "How long ago the last good run began to ask: older changes are in the copy."),
    "watermark_age_seconds": ("watermark", "How old the newest change is that the copy has."),
    "verified_age_seconds": ("verified_at", "How long ago a full listing last agreed with the copy."),
}
_VALUES = {
    "rejects": ("open_rejects", "Open rejected records."),
    "lag_median_seconds": ("lag_p50", "From a change at the source until it was read, in the last sync with a change."),
    "lag_p95_seconds": ("lag_p95", "The same, for 95 of 100 changes."),
    "below_watermark_seconds": (
        "below_watermark_max",
        "How far below the watermark a change appeared at most, in 7 days.",
    ),
    "overlap_seconds": ("overlap", "How far below the watermark a sync reads."),
    "missed": ("missed", "Changes that the last reconcile found and syncs should have brought."),
    "overlap_too_small": ("overlap_too_small", "1 when changes come near to escaping the overlap, or did."),
    "runs_under_way": ("running", "Runs that have not ended."),
    "drift_rows": ("drift", "Rows that the last reconcile had to insert, update or mark as deleted."),
    "deleted_rows": ("deleted", "Rows that the last reconcile marked as deleted."),
    "last_run_seconds": ("last_run_seconds", "How long the last sync or backfill took."),
} | {f"last_run_{figure.name}": (figure.name, figure.gauge) for figure in FIGURES if figure.gauge}
_FLAGS = {
    "reconcile_refused": (
        lambda row: row["last_reconcile_outcome"] == "refused",
        "1 when the last reconcile was refused: too many rows were no longer listed, or no permission.",
    ),
    "sign_in_refused": (
        lambda row: row["sign_in_refused_at"] is not None,
        "1 when the identity service refused the stored sign-in: action required.",
    ),
    "last_run_good": (lambda row: row["last_run_outcome"] == "done", "1 when the last sync or backfill succeeded."),
}
_COUNTERS = {"runs": Counter("runs", "Runs that ended, by kind and outcome.", "outcome")} | {
    figure.name: figure.counter for figure in FIGURES if figure.counter is not None
}
"""By the name in `sync.totals` that a counter is made of."""

_QUEUE = (
    ("jobs_waiting", "waiting", "Jobs that could begin now, by kind."),
    ("jobs_in_hand", "in_hand", "Jobs that some worker has in hand, by kind."),
    ("oldest_seconds", "oldest_seconds", "For how long the oldest job has waited, by kind."),
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """What metrics are made of.

    Rows of `sync.status`, of `sync.totals` and of the current leases; this process's connections by state, and
    the jobs that it has in hand; the queue of all, and who takes from it; what awaits an answer for each account, and
    how each channel is.
    """

    status: Sequence[Mapping[str, Any]]
    totals: Sequence[Mapping[str, Any]]
    leases: Sequence[Mapping[str, Any]]
    connections: Mapping[str, int]
    in_hand: int
    queue: Sequence[Mapping[str, Any]]
    workers: int
    waiting: Sequence[Mapping[str, Any]] = ()
    channels: Sequence[Mapping[str, Any]] = ()
    by_account: bool = True


def exposition(scrape: Scrape) -> bytes:
    """Write what a scrape shows in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    if scrape.by_account:
        registry.register(_Status(scrape.status, datetime.now(UTC)))
    registry.register(_Work(scrape))
    registry.register(_People(scrape, datetime.now(UTC)))
    return generate_latest(registry)


class _Work(Collector):
    """What runs came to, who holds what, and what this process has in hand."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily]:
        counters = {
            one.name: CounterMetricFamily(
                f"referral_sync_{one.name}", one.meaning, labels=["account", "kind", *filter(None, [one.label])]
            )
            for one in _COUNTERS.values()
        }
        for row in self._scrape.totals if self._scrape.by_account else _summed(self._scrape.totals):
            name, _, detail = row["name"].partition(".")
            counter = _COUNTERS.get(name)
            if counter is not None:
                labels = [row["account"], row["kind"], *([detail or name] if counter.label else [])]
                counters[counter.name].add_metric(labels, row["value"])
        yield from counters.values()
        holders = _family("lease_held", "1 for the owner of a lease.", "kind", "owner")
        for lease in self._scrape.leases if self._scrape.by_account else ():
            holders.add_metric([lease["account"], lease["kind"], lease["owner"]], 1.0)
        yield holders
        connections = GaugeMetricFamily(
            "referral_sync_connections", "This process's connections to the database.", labels=["state"]
        )
        for state, number in self._scrape.connections.items():
            connections.add_metric([state], number)
        yield connections
        in_hand = GaugeMetricFamily("referral_sync_work_in_hand", "Jobs that this process has begun and not ended.")
        in_hand.add_metric([], self._scrape.in_hand)
        yield in_hand
        for name, column, meaning in _QUEUE:
            family = GaugeMetricFamily(f"referral_sync_queue_{name}", meaning, labels=["kind"])
            for row in self._scrape.queue:
                family.add_metric([row["kind"]], float(row[column]))
            yield family
        accounts = GaugeMetricFamily("referral_sync_accounts", "Accounts by health.", labels=["health"])
        for word in HEALTHS:
            accounts.add_metric([word], sum(row["health"] == word for row in self._scrape.status))
        yield accounts
        ages = [
            (datetime.now(UTC) - row["fresh_as_of"]).total_seconds()
            for row in self._scrape.status
            if row["fresh_as_of"] is not None
        ]
        oldest = GaugeMetricFamily(
            "referral_sync_oldest_data_age_seconds", "The data age of the account that is worst."
        )
        oldest.add_metric([], max(ages, default=0.0))
        yield oldest
        workers = GaugeMetricFamily("referral_sync_workers", "Workers that take jobs from the queue.")
        workers.add_metric([], self._scrape.workers)
        yield workers
        yield InfoMetricFamily("referral_sync_build", "The release of this process.", value={"version": RELEASE})


def _summed(totals: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the totals of all accounts; the label of the account says "all"."""
    sums = Sums[tuple[str, str]]()
    for row in totals:
        sums[row["kind"], row["name"]] += row["value"]
    return [{"account": "all", "kind": kind, "name": name, "value": value} for (kind, name), value in sums.items()]


class _People(Collector):
    """What awaits an answer, and whether messages are sent."""

    def __init__(self, scrape: Scrape, now: datetime) -> None:
        self._scrape, self._now = scrape, now

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        awaiting = _family("awaiting_response", "Incoming referrals that await an answer.")
        overdue = _family("overdue", "Of those, with a deadline that has passed.")
        deadline = _family("next_deadline_seconds", "Until the next deadline of one that awaits an answer passes.")
        unknown = _family("unknown_fields", "Members of the API that no document names, in 30 days.")
        for row in self._scrape.waiting:
            unknown.add_metric([row["account"]], row["unknown_fields"])
            awaiting.add_metric([row["account"]], row["awaiting"])
            overdue.add_metric([row["account"]], row["overdue"])
            if row["next_at"] is not None:
                deadline.add_metric([row["account"]], (row["next_at"] - self._now).total_seconds())
        yield from (awaiting, overdue, deadline, unknown)
        depth = GaugeMetricFamily("referral_sync_outbox_events", "Events not sent yet.", labels=["channel"])
        age = GaugeMetricFamily(
            "referral_sync_outbox_age_seconds", "How old the oldest message is that waits.", labels=["channel"]
        )
        sent = CounterMetricFamily(
            "referral_sync_deliveries", "Attempts to send a message, by what came of them; given_up: whole messages.",
            labels=["channel", "outcome"],
        )  # fmt: skip
        for row in self._scrape.channels:
            name, oldest = row["channel"], row["oldest_at"]
            depth.add_metric([name], row["waiting_events"])
            age.add_metric([name], (self._now - oldest).total_seconds() if oldest else 0.0)
            for outcome in ("sent", "failed", "given_up"):
                sent.add_metric([name, outcome], row[outcome])
        yield from (depth, age, sent)


class _Status(Collector):
    def __init__(self, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
        self._rows, self._now = rows, now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (column, meaning) in _AGES.items():
            yield self._gauge(name, meaning, lambda row, c=column: row[c] and (self._now - row[c]).total_seconds())
        for name, (column, meaning) in _VALUES.items():
            yield self._gauge(name, meaning, lambda row, c=column: row[c])
        for name, (holds, meaning) in _FLAGS.items():
            yield self._gauge(name, meaning, holds)
        yield self._gauge(
            "sign_in_days_left",
            "Days until the stored sign-in lapses unless it is used before.",
            lambda row: row["sign_in_lapses_at"] and (row["sign_in_lapses_at"] - self._now).total_seconds() / 86_400,
        )
        referrals = _family("referrals", "Rows of the copy: listed by the source, or deleted there.", "state")
        health = _family("health", "1 at the account's health.", "health")
        for row in self._rows:
            referrals.add_metric([row["account"], "listed"], row["live_referrals"] or 0)
            referrals.add_metric([row["account"], "deleted"], row["deleted_referrals"] or 0)
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
