"""The report as a page: its figures are the database's, and nothing that strangers wrote is alive in it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from html import unescape
from html.parser import HTMLParser

import asyncpg
import pytest

from tests.steps import load
from worker.demo.control import Control
from worker.store.analysis import analysis, refresh_history
from worker.sync.pipeline import Pipeline
from worker.web import charts
from worker.web.report import report

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


async def drawn(pipeline: Pipeline) -> Elements:
    await refresh_history(pipeline.database)
    page = Elements()
    page.feed(report(await analysis(pipeline.database), datetime.now(UTC)))
    return page


async def test_its_figures_are_the_databases(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(300)
    await load(pipeline)
    page = await drawn(pipeline)
    open_deals = await db.fetchval("SELECT count(*) FROM bi.referrals WHERE is_open AND NOT is_spam")
    assert f"{open_deals:,}open deals" in page.text.replace("\n", "")
    assert {"svg", "polyline", "table"} <= page.tags
    assert "contoso" in page.text
    deals = await db.fetchval("SELECT name FROM bi.awaiting_response WHERE NOT is_spam ORDER BY respond_by LIMIT 1")
    assert unescape(deals) in page.text


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
    await load(pipeline)
    page = await drawn(pipeline)
    assert not page.tags & {"script", "img", "a", "iframe", "link", "object"}
    assert page.handlers == []
    for text in HOSTILE[:2]:
        assert text in page.text, "shown as text"
    assert "49049" not in page.text


async def test_an_empty_database_has_a_page_too(pipeline: Pipeline) -> None:
    assert "No history yet" in (await drawn(pipeline)).text


def test_lines_begin_at_zero_and_labels_keep_apart() -> None:
    days = [date(2024, 1, 25) + timedelta(days=n) for n in range(20)]
    chart = charts.lines(days, {"a": [3.0] * 20, "b": [3.0] * 20})
    assert [label for _, label in chart.rows] == ["0", "2", "4"]
    assert [label for _, label in chart.columns] == ["Feb 2024"]
    first, second = chart.lines
    assert first.points == second.points
    assert abs(first.label_y - second.label_y) >= 14


@pytest.mark.parametrize(("value", "top"), [(0, "1"), (7, "8"), (130, "200"), (401, "500"), (1000, "1,000")])
def test_grid_lines_are_round(value: float, top: str) -> None:
    assert charts.lines([date(2024, 1, 1)], {"a": [value]}).rows[-1][1] == top
