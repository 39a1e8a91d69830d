"""The report as a page: its figures are the database's, and nothing that strangers wrote is alive in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import asyncpg
import pytest

from tests.support.steps import backfill_all, sync_once
from worker.demo.control import Control
from worker.model.escape import line
from worker.store import view_settings
from worker.store.analysis import SHOWN, analysis, refresh_history
from worker.sync.pipeline import Pipeline
from worker.web import charts
from worker.web.pages import load_templates
from worker.web.report import days, report

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ 7007 * 7 }}",
    "\x1b[31mred",
)


class Elements(HTMLParser):
    """Collects what a browser would make elements of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = set[str]()
        self.handlers = list[str]()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


async def drawn(pipeline: Pipeline, account: str | None = None, labels: dict[str, str] | None = None) -> Elements:
    await refresh_history(pipeline.database)
    page = Elements()
    page.feed(report(await analysis(pipeline.database, account, labels), datetime.now(UTC), load_templates()))
    page.text = " ".join(page.text.split())
    return page


async def test_its_figures_are_the_databases(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(300)
    await backfill_all(pipeline)
    page = await drawn(pipeline)
    open_deals = await db.fetchval("SELECT count(*) FROM bi.referrals WHERE is_open AND NOT is_spam")
    assert f"{open_deals:,}open deals" in page.text
    assert {"svg", "polyline", "table"} <= page.tags
    assert "Referrals of contoso" in page.text
    first = await db.fetchrow("SELECT id, name FROM bi.awaiting_response WHERE NOT is_spam ORDER BY respond_by LIMIT 1")
    assert first is not None
    assert first["name"] in page.text
    assert first["id"] in page.text


async def test_tile_and_chart_agree(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.reset(600)
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    rows = await analysis(pipeline.database)
    days = charts.series(rows["daily"])
    assert days is not None
    assert sum(values[-1] for values in days.values.values()) == rows["figures"][0]["open"]
    assert rows["figures"][0]["spam"], "which is in neither"
    assert days.estimated >= len(days.days) - 1, "loaded today: the past is estimated"
    assert 'class="c0 derived"' in report(rows, datetime.now(UTC), load_templates())
    assert "this copy had not seen all of these deals yet" in (await drawn(pipeline)).text


async def test_it_says_what_it_leaves_out(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(900)
    await backfill_all(pipeline)
    page = await drawn(pipeline)
    waiting = await db.fetchval("SELECT count(*) FROM bi.awaiting_response WHERE NOT is_spam")
    assert waiting > SHOWN
    assert f"{SHOWN} of {waiting}; the rest is in bi.awaiting_response." in page.text
    in_all = await db.fetchval("SELECT count(*) FROM bi.data_quality WHERE awaiting_with_unknown_direction > 0")
    assert ("more may wait" in page.text) == bool(in_all)
    rows = await analysis(pipeline.database)
    sums = await db.fetch(
        "SELECT DISTINCT category, direction, currency FROM bi.referrals WHERE is_open AND NOT is_spam"
    )
    assert len(rows["pipeline"]) == len(sums), "all of them are there, some folded"
    assert "details" in page.tags


async def test_one_account_of_two(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """`--account` limits every part, and an account that was never loaded is not one without deals."""
    await simulator.reset(60)
    await backfill_all(pipeline)
    await simulator.create([{"name": "only the other has it", "status": "New", "substatus": "Pending",
                             "direction": "Incoming", "isSpam": False}])  # fmt: skip
    await backfill_all(replace(pipeline, account="fabrikam"))
    await view_settings.put_labels(pipeline.database, {"contoso": "Contoso, Wien", "fabrikam": "Fabrikam Nord"})
    both = await drawn(pipeline)
    assert "Referrals of Contoso, Wien and Fabrikam Nord" in both.text
    assert both.text.count("Account") > 4, "a column of each table"
    assert "only the other has it" in both.text
    one = await drawn(pipeline, "contoso")
    assert "Fabrikam" not in one.text + str(await analysis(pipeline.database, "contoso"))
    assert "only the other has it" not in one.text
    deals = await db.fetchval("SELECT count(*) FROM bi.referrals WHERE is_open AND NOT is_spam AND account = 'contoso'")
    assert f"{deals}open deals" in one.text
    three = await drawn(pipeline, None, {"contoso": "x", "third": "Tailspin"})
    assert "Referrals of 3 accounts" in three.text
    assert "Tailspin has no backfill yet: its figures are unknown, not zero." in three.text
    assert "sync --account third" in three.text


async def test_what_changed_this_week(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.reset(200)
    await backfill_all(pipeline)
    listed = (await simulator.state(full=True))["records"]
    active = sorted(key for key, record in listed.items() if record["status"] == "Active" and not record.get("isSpam"))
    await simulator.update(active[0], {"status": "Closed", "substatus": "Won"})
    await simulator.update(active[1], {"details": {"dealValue": 123456, "currency": "EUR"}})
    await sync_once(pipeline)
    page = await drawn(pipeline)
    assert "1 won" in page.text
    assert "1 with a new value" in page.text
    assert "→ EUR 123,456" in page.text
    moves = (await analysis(pipeline.database))["moves"]
    assert {row["id"] for row in moves if row["move"] in ("won", "value")} == set(active[:2])
    aged = "UPDATE partner_center.referrals SET valid_from = valid_from - interval '8 days'"
    async with pipeline.database.transaction() as connection:
        await connection.execute("DELETE FROM partner_center.referral_versions")
        await connection.execute(aged)
        await connection.execute("UPDATE partner_center.referrals SET created_at = created_at - interval '8 days'")
    assert (await analysis(pipeline.database))["week"] == []


async def test_a_month_that_is_not_final_is_marked(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.reset(900)
    await backfill_all(pipeline)
    rows = await analysis(pipeline.database)
    assert [row["is_over"] for row in rows["response"]] == [True] * (len(rows["response"]) - 1) + [False]
    page = await drawn(pipeline)
    assert "month not over" in page.text
    assert "Hatched: not final" in page.text
    waiting = sum(row["unanswered"] for row in rows["response"])
    assert waiting == rows["figures"][0]["awaiting"], "nobody who waits is missing from the median silently"


async def test_twenty_currencies_are_never_added(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.create(
        [
            {"status": "Active", "substatus": "Accepted", "isSpam": False, "direction": "Outgoing",
             "details": {"currency": f"X{n:02}", "dealValue": 1000 + n, "closingDateTime": "2099-01-01T00:00:00Z"}}
            for n in range(20)
        ]
    )  # fmt: skip
    await backfill_all(pipeline)
    rows = await analysis(pipeline.database)
    assert [len(row["currencies"]) for row in rows["closing"]] == [20]
    page = await drawn(pipeline)
    assert all(f"X{n:02}" in page.text for n in range(20))
    assert "X00 1,000, X01 1,001 and 18 more currencies" in page.text
    assert "12 more currencies" in page.text


async def test_nothing_that_strangers_wrote_is_alive(pipeline: Pipeline, simulator: Control) -> None:
    await simulator.create(
        [
            {
                "name": text,
                "isSpam": False,
                "status": "New",
                "substatus": "Pending",
                "direction": "Incoming",
                "type": "Shared",
                "customerProfile": {"name": text, "address": {"country": text}},
                "details": {"currency": text, "dealValue": 5, "notes": text},
            }
            for text in HOSTILE
        ]
    )
    await backfill_all(pipeline)
    page = await drawn(pipeline)
    assert not page.tags & {"script", "img", "a", "iframe", "link", "object"}
    assert page.handlers == []
    for text in HOSTILE[:2]:
        assert text in page.text, "shown as text"
    assert "<script>alert(1)</script>" in page.text, "decoded once, by the database"
    assert "\x1b" not in page.text
    assert "\\x1b[31mred" in page.text
    assert "49049" not in page.text


async def test_never_backfilled_is_not_nothing_open(pipeline: Pipeline) -> None:
    page = await drawn(pipeline)
    assert "No account is known yet. To fix:" in page.text
    assert "open deals" not in page.text
    page = await drawn(pipeline, None, {"contoso": "Contoso, Wien"})
    assert "Contoso, Wien has no backfill yet" in page.text
    assert "open deals" not in page.text
    await backfill_all(pipeline)
    page = await drawn(pipeline)
    assert "0open deals" in page.text, "loaded, and the source has none"
    assert "Nothing awaits an answer." in page.text


async def test_the_age_of_the_data_is_not_that_of_the_page(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(3)
    await backfill_all(pipeline)
    await db.execute("UPDATE sync.runs SET started_at = started_at - interval '3 hours'")
    assert "3 hours ago; drawn" in (await drawn(pipeline)).text


def row(day: date, name: str, deals: int, estimated: int = 0) -> dict[str, Any]:
    return {"day": day, "name": name, "value": float(deals), "deals": deals, "estimated": estimated}


def test_lines_begin_at_zero() -> None:
    days = [date(2024, 1, 25) + timedelta(days=n) for n in range(20)]
    found = charts.series([row(day, name, 3) for day in days for name in ("a", "b")])
    assert found is not None
    chart = charts.lines(found)
    assert [label for _, label in chart.rows] == ["0", "2", "3"]
    assert [label for _, label in chart.columns] == ["Feb 2024"]
    first, second = chart.lines
    assert first.seen == second.seen
    assert first.colour != second.colour
    assert not first.estimated


def test_what_is_estimated_is_drawn_apart_and_joins_what_was_seen() -> None:
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(10)]
    rows = [row(day, "a", 200, 200 if n < 4 else 1) for n, day in enumerate(days)]
    found = charts.series(rows)
    assert found is not None
    assert found.estimated == 4, "one deal of 200 that was read a little late is no estimate"
    chart = charts.lines(found)
    (line,) = chart.lines
    assert chart.seen_from == days[4]
    assert line.estimated.split()[-1] == line.seen.split()[0]
    assert len(line.estimated.split()) + len(line.seen.split()) == len(days) + 1


def test_a_day_without_a_row_had_none() -> None:
    found = charts.series([row(date(2024, 1, 1), "a", 3), row(date(2024, 1, 3), "a", 5)])
    assert found is not None
    assert found.values == {"a": [3.0, 0, 5.0]}
    assert charts.series([]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3, "0.3 (7 h)"), (-1.5, "-1.5 (-36 h)"), (1.9, "1.9 (46 h)"), (2, "2"), (13.6, "14"), (None, "")],
)
def test_hours_stand_beside_few_days(value: float | None, text: str) -> None:
    assert days(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"), ("a\u202eb", "a\\u202eb"), ("a\u2066b", "a\\u2066b"), ("\x1b[31m", "\\x1b[31m"),
        ("שלום", "שלום"), ("a\u00a0b", "a\u00a0b"), ("👩\u200d💻", "👩\u200d💻"),
    ],
)  # fmt: skip
def test_what_is_not_seen_is_spelled_out(text: str, shown: str) -> None:
    assert line(text) == shown


@pytest.mark.parametrize(("value", "top"), [(0, "1"), (7, "8"), (130, "150"), (401, "500"), (1000, "1,000")])
def test_grid_lines_are_round(value: int, top: str) -> None:
    found = charts.series([row(date(2024, 1, 1), "a", value)])
    assert found is not None
    assert charts.lines(found).rows[-1][1] == top
