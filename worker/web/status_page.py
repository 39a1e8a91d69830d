"""The status page: is the data fresh, complete, and will it stay so? One page, without scripts or assets."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jinja2 import Environment

from worker.model.account_state import loading, sign_in
from worker.model.pace import ago, until

SOON = timedelta(days=14)
"""A sign-in that lapses sooner is shown as a warning."""

PER_PAGE = 50
"""Accounts on a page; those that need somebody come first, so that the first page is the one to look at."""

REFRESH_SECONDS = 30
_BAR_WIDTH, _BAR_HEIGHT = 6, 40

RUNS_SHOWN = 60
"""Places of the chart, so that a bar is as wide after one run as after many."""

NEEDS_ACTION = "action required"
OUTCOMES = {
    "done": "done",
    "running": "running",
    "stopped": "stopped on request",
    "failed": "failed",
    "refused": "refused: action required",
    "abandoned": "its process died",
}
KINDS = {"incremental": "incremental sync"}


@dataclass(frozen=True, slots=True)
class RunBar:
    """A run in the small chart: where it stands, how high, and what it was."""

    x: int
    y: float
    height: float
    outcome: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Recent runs: bars, the labels of the scale from the top, when the oldest began, and what the colours mean."""

    bars: list[RunBar]
    scale: list[str]
    first: datetime
    legend: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Selection:
    """The accounts that one page shows, of `found` that match `search`, of `known` in all; pages count from 1."""

    rows: Sequence[Mapping[str, Any]]
    search: str = ""
    page: int = 1
    pages: int = 1
    found: int = 0
    known: int = 0


def part_of(rows: Sequence[Mapping[str, Any]], search: str, page: str, now: datetime) -> Selection:
    """Choose what to show: the worst first, those whose names or labels hold what is searched for."""
    text = search.strip().casefold()
    rank = {"bad": 0, "fair": 1, "good": 2}
    matching = sorted(
        (row for row in rows if text in f"{row['account']}\n{row.get('account_label') or ''}".casefold()),
        key=lambda row: (row["health"] != NEEDS_ACTION, rank[verdict(row, now)[0]], row["account"]),
    )
    pages = max(1, -(-len(matching) // PER_PAGE))
    number = min(max(1, int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 1), pages)  # noqa: PLR2004 - digits of any page that there can be
    shown = matching[(number - 1) * PER_PAGE : number * PER_PAGE]
    return Selection(shown, search.strip(), number, pages, len(matching), len(rows))


def status_page(
    part: Selection,
    runs: Sequence[Mapping[str, Any]],
    upcoming: Sequence[tuple[str, str, datetime]],
    now: datetime,
    templates: Environment,
) -> str:
    """Write the page from rows of `sync.status`, recent runs (newest first) and what is due next."""
    of_account = defaultdict[str, list[Mapping[str, Any]]](list)
    for run in runs:
        of_account[run["account"]].append(run)
    due = defaultdict[str, list[tuple[str, str]]](list)
    for account, kind, moment in upcoming:
        due[account].append((kind, until(moment, now)))
    return templates.get_template("status.html").render(
        style=_style(templates),
        refresh=REFRESH_SECONDS,
        now=now,
        part=part,
        rows=part.rows,
        runs=of_account,
        charts={account: chart(found) for account, found in of_account.items()},
        kinds=KINDS,
        width=_BAR_WIDTH,
        breadth=RUNS_SHOWN * (_BAR_WIDTH + 2),
        height=_BAR_HEIGHT,
        due=due,
        fix=fix,
        took=lambda seconds: took(float(seconds or 0)),
        loading=lambda row: loading(row, now),
        ago=lambda moment: ago(moment, now),
        sign_in=lambda row: (sign_in_colour(row, now), sign_in(row, now) or "not stored here"),
        verdict=lambda row: verdict(row, now),
    )


def policy(templates: Environment) -> str:
    """Return the page's Content-Security-Policy: nothing but its own style sheet, known by its hash."""
    known = base64.b64encode(hashlib.sha256(_style(templates).encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{known}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _style(templates: Environment) -> str:
    return templates.get_template("style.css").render() + templates.get_template("status.css").render()


def verdict(row: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """Say in a sentence how an account is, with a word for its colour: good, fair or bad."""
    if row["health"] == NEEDS_ACTION:
        return "bad", "Action required."
    if row["health"] == "failing":
        return "bad", "Failing; it tries again by itself."
    if row["health"] == "loading" or row.get("loading_since"):
        return "fair", "First backfill."
    if row["health"] != "ok":
        return "fair", "No backfill yet; the first run begins it."
    concerns = []
    if _lapses_soon(row, now):
        concerns.append("the sign-in lapses soon")
    if row["verified_at"] is None:
        concerns.append("not verified complete yet")
    if row["open_rejects"]:
        concerns.append("some records were rejected")
    if row["overlap_too_small"]:
        concerns.append("the replication lag comes near to the overlap")
    return ("fair", f"Fresh; {', '.join(concerns)}.") if concerns else ("good", "Fresh, and verified complete.")


def fix(row: Mapping[str, Any]) -> list[str]:
    """Return commands to run, each after what it is for, where an account does not recover by itself."""
    account = row["account"]
    if row["sign_in_refused_at"] is not None:
        return [f"sign in again: referral-sync login --account {account}"]
    if row["health"] != NEEDS_ACTION:
        return []
    if row.get("last_reconcile_outcome") == "refused":
        return [
            f"see what a reconcile would mark: referral-sync reconcile --account {account} --dry-run",
            f"where that is right: referral-sync reconcile --account {account} --accept-vanished",
        ]
    return ["see what is refused: referral-sync check"]


def sign_in_colour(row: Mapping[str, Any], now: datetime) -> str:
    """Return the word for the colour of how long the sign-in lasts; empty where it needs none."""
    if row["sign_in_refused_at"] is not None:
        return "bad"
    if row["sign_in_lapses_at"] is None:
        return "soft"
    return "fair" if _lapses_soon(row, now) else ""


def _lapses_soon(row: Mapping[str, Any], now: datetime) -> bool:
    return row["sign_in_lapses_at"] is not None and row["sign_in_lapses_at"] - now < SOON


def chart(runs: Sequence[Mapping[str, Any]]) -> Chart:
    """Lay out runs, newest first, as bars with their scale; height is duration, on a root scale: see `bars`."""
    longest = max(float(run["seconds"] or 0) for run in runs)
    seen = {run["outcome"] for run in runs}
    legend = [(outcome, meaning) for outcome, meaning in OUTCOMES.items() if outcome in seen]
    return Chart(bars(runs), [took(longest), took(longest / 4), "0"], runs[-1]["started_at"], legend)


def bars(runs: Sequence[Mapping[str, Any]]) -> list[RunBar]:
    """Lay out runs, oldest first, the newest at the right edge.

    Height is duration on a square root scale, so that a backfill does not flatten the syncs.
    """
    longest = max((float(run["seconds"] or 0) for run in runs), default=0) or 1
    drawn = []
    first = max(0, RUNS_SHOWN - len(runs))
    for place, run in enumerate(reversed(runs), first):
        height = round(3 + (_BAR_HEIGHT - 3) * (float(run["seconds"] or 0) / longest) ** 0.5, 1)
        title = f"{KINDS.get(run['kind'], run['kind'])} {run['outcome']}, {run['started_at']:%H:%M:%S} UTC, "
        title += took(float(run["seconds"] or 0))
        drawn.append(RunBar(place * (_BAR_WIDTH + 2), round(_BAR_HEIGHT - height, 1), height, run["outcome"], title))
    return drawn


def took(seconds: float) -> str:
    """Say how long something took."""
    if seconds < 0.1:  # noqa: PLR2004 - less is not measured well
        return "< 0.1 s"
    if seconds < 120:  # noqa: PLR2004 - minutes say no more below that
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"  # noqa: PLR2004 - two hours
