"""The report: the pipeline as one page of HTML, without scripts, network or assets, for screen, phone and paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from jinja2 import Environment

from worker.model.pace import ago
from worker.web import charts

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]
"""What `store.analysis` returns: rows by part of the report."""

NOT_BACKFILLED = ("never ran", "loading")
"""Healths of an account whose copy is not there yet: what is counted of it says nothing."""

FEW_HOURS = 48
"""Below two days, hours say more."""

_MONEY_SHOWN = _NAMED = 2


def report(rows: Rows, now: datetime, templates: Environment) -> str:
    """Write the page with its templates; whatever strangers wrote into names stands in it as text."""
    accounts = rows["accounts"]
    trends = _trends(rows["money"])
    return templates.get_template("report.html").render(
        now=now,
        rows=rows,
        figures=rows["figures"][0],
        accounts=accounts,
        title=title(accounts),
        several=len(accounts) > 1,
        is_backfilled=any(row["fresh_as_of"] or row["live_referrals"] for row in accounts),
        missing=[row for row in accounts if row["health"] in NOT_BACKFILLED],
        oldest=_oldest(accounts),
        daily=_daily(rows["daily"]),
        trends=trends,
        seen_from=trends[0].seen_from if trends else None,
        funnel=charts.bars([(row["stage"], row["referrals"], f"{row['referrals']:,}") for row in rows["funnel"]]),
        response=charts.bars([_answered(row) for row in rows["response"]]),
        closing=charts.bars([_closing(row) for row in rows["closing"]]),
        largest=[(currency, list(deals)) for currency, deals in groupby(rows["top"], lambda row: row["currency"])],
        amount=amount,
        sums=sums,
        days=days,
        day=_day,
        move=_move,
        ago=lambda moment: ago(moment, now),
    )


def title(accounts: Sequence[Row]) -> str:
    """Name whose referrals these are: one or two accounts, or how many."""
    labels = [str(row["account_label"]) for row in accounts]
    if len(labels) > _NAMED:
        return f"Referrals of {len(labels)} accounts"
    return f"Referrals of {' and '.join(labels)}" if labels else "Referrals"


def _oldest(accounts: Sequence[Row]) -> Row | None:
    """Return the account whose data is the oldest, of those that were backfilled."""
    backfilled = [row for row in accounts if row["fresh_as_of"]]
    return min(backfilled, key=lambda row: row["fresh_as_of"], default=None)


def _daily(rows: Sequence[Row]) -> charts.Lines | None:
    found = charts.series(rows)
    return charts.lines(found) if found else None


def _trends(rows: Sequence[Row]) -> list[charts.Lines]:
    """Draw one small chart for each currency, those of the most deals first: they have no common scale."""
    found = charts.series(rows)
    if found is None:
        return []
    deals = {row["name"]: row["deals"] for row in rows if row["day"] == found.days[-1]}
    return [charts.lines(found, [name]) for name in sorted(found.values, key=lambda name: (-deals.get(name, 0), name))]


def _answered(row: Row) -> tuple[str, float, str, str]:
    """Write a month's median; while some wait for an answer, or the month is not over, it is what is known so far."""
    duration = "nobody yet" if row["hours"] is None else hours(row["hours"])
    notes = []
    if row["unanswered"]:
        notes.append(f"{row['unanswered']:,} unanswered")
    if not row["is_over"]:
        notes.append("month not over")
    look = "open" if notes else ""
    return f"{row['month']:%b %Y}", row["hours"] or 0, "; ".join([duration, *notes]), look


def _closing(row: Row) -> tuple[str, float, str, str]:
    names = {0: "day is past", 2: "later", 3: "no date"}
    label = names.get(row["step"]) or f"{row['month']:%b %Y}"
    worth = sums(row)
    return label, row["deals"], f"{row['deals']:,}{': ' if worth else ''}{worth}", "late" if row["step"] == 0 else ""


def sums(row: Row) -> str:
    """Write sums of different currencies beside each other: those of the most deals, and how many more there are."""
    pairs = list(zip(row["currencies"] or (), row["values"] or (), strict=True))
    texts = [f"{currency} {amount(value)}" for currency, value in pairs[:_MONEY_SHOWN]]
    more = len(pairs) - len(texts)
    return ", ".join(texts) + (f" and {more} more {'currency' if more == 1 else 'currencies'}" if more else "")


def _move(row: Row) -> str:
    """Say what happened to a deal."""
    if row["move"] != "value":
        return f"{row['move']}, now {row['to_stage']}" if row["move"] in ("moved", "listed again") else str(row["move"])
    old, new = (
        "no value" if value is None else f"{currency or ''} {amount(value)}".strip()
        for value, currency in ((row["old_value"], row["old_currency"]), (row["new_value"], row["currency"]))
    )
    return f"{old} → {new}"


def amount(value: Decimal | float | None) -> str:
    """Write an amount without its decimals, grouped by thousands."""
    return "" if value is None else f"{value:,.0f}"


def hours(value: float) -> str:
    """Write a duration in hours, or in days from two days on."""
    return f"{value:,.0f} h" if abs(value) < FEW_HOURS else f"{value / 24:,.1f} days"


def days(value: Decimal | float | None) -> str:
    """Write a number of days, with the hours beside it below two days."""
    if value is None:
        return ""
    number = float(value)
    return f"{number:,.1f} ({number * 24:,.0f} h)" if abs(number) < FEW_HOURS / 24 else f"{number:,.0f}"


def _day(moment: datetime | date | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"
