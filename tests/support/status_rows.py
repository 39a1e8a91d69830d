"""Rows as `status` and the status page get them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROW: dict[str, Any] = {
    "account": "contoso", "account_label": "Contoso, Wien", "health": "ok",
    "fresh_as_of": NOW - timedelta(minutes=3), "verified_through": NOW, "verified_at": NOW,
    "last_error": None, "last_run_outcome": "done", "last_reconcile_error": None,
    "sign_in_refused_because": None, "sign_in_refused_at": None, "sign_in_lapses_at": NOW + timedelta(days=80),
    "live_referrals": 5_000, "deleted_referrals": 3, "open_rejects": 0, "drift": 2, "lag_p50": 61.0,
    "overlap_too_small": False, "last_reconcile_outcome": "done",
}  # fmt: skip
RUN: dict[str, Any] = {
    "account": "contoso", "kind": "incremental", "outcome": "done", "started_at": NOW, "seconds": 1.5, "inserted": 1,
    "updated": 2, "unchanged": 3, "rejected": 0, "vanished": 0,
}  # fmt: skip
