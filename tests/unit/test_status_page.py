"""The status page: what it concludes, and that nothing in it is alive."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.support.status_rows import NOW, ROW, RUN
from worker.model.account_state import Loading, loading, sign_in
from worker.model.pace import until
from worker.web.pages import load_templates
from worker.web.status_page import (
    PER_PAGE,
    Selection,
    bars,
    chart,
    part_of,
    sign_in_colour,
    status_page,
    verdict,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\"'&"


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags = set[str]()
        self.attributes = set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    ("changes", "colour", "words"),
    [
        ({}, "good", "verified complete"),
        ({"health": "action required"}, "bad", "Action required"),
        ({"health": "failing"}, "bad", "by itself"),
        ({"health": "loading"}, "fair", "First backfill"),
        ({"health": "never ran"}, "fair", "No backfill yet"),
        ({"sign_in_lapses_at": NOW + timedelta(days=9)}, "fair", "lapses soon"),
        ({"verified_at": None}, "fair", "not verified"),
        ({"open_rejects": 2}, "fair", "rejected"),
        ({"overlap_too_small": True}, "fair", "replication lag"),
    ],
)
def test_it_concludes(changes: dict[str, Any], colour: str, words: str) -> None:
    found, sentence = verdict(ROW | changes, NOW)
    assert found == colour
    assert words in sentence


def test_a_sign_in_says_how_long_it_lasts() -> None:
    soon, refused = {"sign_in_lapses_at": NOW + timedelta(days=9, hours=1)}, {"sign_in_refused_at": NOW}
    assert sign_in(ROW | soon, NOW) == "lapses in 9 days unless used"
    assert sign_in(ROW | {"sign_in_lapses_at": NOW}, NOW) == "lapses within two days unless used"
    assert sign_in(ROW | refused, NOW) == "refused just now"
    assert sign_in(ROW | {"sign_in_lapses_at": None}, NOW) == ""
    colours = [sign_in_colour(ROW | one, NOW) for one in ({}, soon, refused, {"sign_in_lapses_at": None})]
    assert colours == ["", "fair", "bad", "soft"]
    assert "not stored here" in status_page(
        Selection([ROW | {"sign_in_lapses_at": None}]), [], [], NOW, load_templates()
    )


def test_nothing_that_strangers_wrote_is_alive() -> None:
    """Every text of every row, hostile at once."""
    row = ROW | dict.fromkeys(
        ("account", "account_label", "last_error", "last_reconcile_error", "sign_in_refused_because"), HOSTILE
    )
    row["last_run_outcome"] = "failed"
    run = RUN | {"account": HOSTILE, "kind": HOSTILE, "outcome": HOSTILE}
    row |= {"health": "action required", "sign_in_refused_at": NOW}
    text = status_page(Selection([row]), [run], [(HOSTILE, HOSTILE, NOW)], NOW, load_templates())
    page = Elements()
    page.feed(text)
    assert not page.tags & {"script", "img", "a", "iframe", "form", "link"}
    assert not [name for name in page.attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def test_of_a_thousand_accounts_the_worst_are_on_the_first_page_and_any_is_found() -> None:
    rows = [ROW | {"account": f"a{number:04}", "account_label": f"Label {number}"} for number in range(1000)]
    rows[700]["health"] = "action required"
    rows[600]["health"] = "failing"
    first = part_of(rows, "", "", NOW)
    assert [row["account"] for row in first.rows[:3]] == ["a0700", "a0600", "a0000"], "a person first"
    assert (len(first.rows), first.pages, first.found) == (PER_PAGE, 1000 // PER_PAGE, 1000)
    everywhere = [
        row["account"] for page in range(1, first.pages + 1) for row in part_of(rows, "", str(page), NOW).rows
    ]
    assert sorted(everywhere) == [row["account"] for row in rows]
    assert [row["account"] for row in part_of(rows, " A0123 ", "7", NOW).rows] == ["a0123"]
    assert [row["account"] for row in part_of(rows, "label 123", "", NOW).rows] == ["a0123"], "what people call it"
    for page in ("0", "-1", "x", "9" * 99, "٣"):
        assert part_of(rows, "", page, NOW).page in (1, first.pages)
    text = status_page(part_of(rows, '"><script>', "", NOW), [], [], NOW, load_templates())
    assert "No account has such a name" in text
    assert "<script>" not in text


def test_it_is_drawn_without_accounts_and_without_runs() -> None:
    assert "No account yet" in status_page(Selection([]), [], [], NOW, load_templates())
    assert "No run yet" in status_page(Selection([ROW]), [], [], NOW, load_templates())


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"health": "ok"}, None),
        ({"health": "failing"}, None),
        ({"health": "action required", "sign_in_refused_at": NOW}, "referral-sync login --account contoso"),
        ({"health": "action required", "last_reconcile_outcome": "refused"}, "--accept-vanished"),
        ({"health": "action required", "last_run_outcome": "refused"}, "referral-sync check"),
    ],
)
def test_what_to_do_stands_beside_what_is_required(changes: dict[str, Any], command: str | None) -> None:
    text = status_page(Selection([ROW | changes]), [], [], NOW, load_templates())
    assert ("To fix:" in text) == (command is not None)
    assert command is None or command in text


def test_a_first_backfill_shows_how_far_it_is() -> None:
    row = ROW | {"health": "loading", "fresh_as_of": None, "live_referrals": 0}
    assert loading(row, NOW) is None, "a database without these columns"
    row |= {"loading_since": NOW - timedelta(minutes=10), "loading_records": 1_000, "loading_windows": 0}
    assert loading(row, NOW) == Loading("1,000 records since 11:50 UTC.", None)
    row |= {"loading_windows": 40, "loading_windows_done": 0}
    assert loading(row, NOW) == Loading("0 of 40 windows, 1,000 records since 11:50 UTC.", 0.0)
    row |= {"loading_windows_done": 10}
    assert loading(row, NOW) == Loading("10 of 40 windows, 1,000 records since 11:50 UTC; ready in about 30 min.", 0.25)
    text = status_page(Selection([row]), [], [], NOW, load_templates())
    assert "First backfill." in text
    assert '<progress max="1" value="0.250">25%</progress>' in text
    assert "never" not in text.replace("data as of</dt><dd>never", "")


def test_the_chart_has_a_scale_and_a_legend_of_what_is_in_it() -> None:
    runs = [RUN | {"seconds": seconds, "outcome": outcome} for seconds, outcome in ((1, "done"), (400, "refused"))]
    drawn = chart(runs)
    assert drawn.scale == ["7 min", "100.0 s", "0"], "half the height is a quarter: a root scale"
    assert drawn.legend == [("done", "done"), ("refused", "refused: action required")]
    text = status_page(Selection([ROW]), runs, [], NOW, load_templates())
    assert "height is how long each took" in text
    assert "refused: action required" in text


def test_bars_stand_apart_and_within_the_chart() -> None:
    drawn = bars([RUN | {"seconds": seconds} for seconds in (0, None, 1, 400)])
    assert [bar.x for bar in drawn] == sorted({bar.x for bar in drawn})
    assert all(bar.y >= 0 and bar.y + bar.height <= 40 for bar in drawn)
    assert drawn[0].height == max(bar.height for bar in drawn), "the oldest stands first"


@pytest.mark.parametrize(("seconds", "text"), [(-5, "in 0 s"), (30, "in 30 s"), (300, "in 5 min"), (9_000, "in 2 h")])
def test_what_is_due(seconds: int, text: str) -> None:
    assert until(NOW + timedelta(seconds=seconds), NOW) == text
