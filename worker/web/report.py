"""The report: the pipeline as one page of HTML, without scripts, network or assets, for screen, phone and paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.model.escape import block
from worker.web import charts

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""What `store.analysis` returns: rows by part of the report."""

PAGES = Environment(
    loader=PackageLoader("worker.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: block(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
)
"""The templates; whatever is put into them is escaped, also what would make a text read as another."""


def report(rows: Rows, now: datetime) -> str:
    """Write the page; whatever strangers wrote into names stands in it as text."""
    return PAGES.get_template("report.html").render(
        now=now,
        figures=rows["figures"][0],
        freshness=rows["freshness"],
        pipeline=rows["pipeline"],
        expiring=rows["expiring"],
        daily=_daily(rows["daily"]),
        funnel=charts.bars([(row["stage"], row["referrals"], f"{row['referrals']:,}") for row in rows["funnel"]]),
        response=charts.bars([_answered(row) for row in rows["response"]]),
        amount=_amount,
        plain=_plain,
        ago=lambda moment: ago(moment, now),
    )


def _daily(rows: Sequence[Mapping[str, Any]]) -> charts.Lines | None:
    """Put every day on the axis: a day without a row of a direction had none."""
    if not rows:
        return None
    by_direction = defaultdict[str, dict[date, int]](dict)
    for row in rows:
        by_direction[row["direction"]][row["day"]] = row["deals"]
    first, last = rows[0]["day"], rows[-1]["day"]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    series = {name: [counts.get(day, 0) for day in days] for name, counts in sorted(by_direction.items())}
    return charts.lines(days, series)


def _answered(row: Mapping[str, Any]) -> tuple[str, float, str]:
    return f"{row['month']:%b %Y}", row["hours"], f"{row['hours']:,.0f} h"


def _plain(text: str | None) -> str:
    """Read the HTML entities that the source puts into names (`&amp;`); the template escapes the result again."""
    return unescape(text or "")


def _amount(value: Decimal | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def ago(moment: datetime | None, now: datetime) -> str:
    """Say how long a moment is ago, in its largest unit."""
    if moment is None:
        return "never"
    minutes = (now - moment.astimezone(UTC)).total_seconds() / 60
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        number = int(minutes // size)
        if number >= 1:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
