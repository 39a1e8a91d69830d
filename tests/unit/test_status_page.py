"""The status page: what it concludes, and that nothing in it is alive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from worker.web.status_page import PER_PAGE, Part, bars, part_of, sign_in, status_page, until, verdict

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\"'&"
ROW: dict[str, Any] = {
    "account": "contoso", "health": "ok", "fresh_as_of": NOW - timedelta(minutes=3), "verified_through": NOW,
    "verified_at": NOW, "last_error": None, "last_run_outcome": "done", "last_reconcile_error": None,
    "sign_in_refused_because": None, "sign_in_refused_at": None, "sign_in_lapses_at": NOW + timedelta(days=80),
    "live_referrals": 5_000, "deleted_referrals": 3, "open_rejects": 0, "drift": 2, "lag_p50": 61.0,
    "overlap_too_small": False,
}  # fmt: skip
RUN: dict[str, Any] = {
    "account": "contoso", "kind": "incremental", "outcome": "done", "started_at": NOW, "seconds": 1.5, "inserted": 1,
    "updated": 2, "unchanged": 3, "rejected": 0, "vanished": 0,
}  # fmt: skip


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
        ({}, "good", "proven complete"),
        ({"health": "needs a person"}, "bad", "person"),
        ({"health": "failing"}, "bad", "by itself"),
        ({"health": "loading"}, "fair", "Not loaded"),
        ({"sign_in_lapses_at": NOW + timedelta(days=9)}, "fair", "lapses soon"),
        ({"verified_at": None}, "fair", "not proven"),
        ({"open_rejects": 2}, "fair", "kept aside"),
        ({"overlap_too_small": True}, "fair", "later"),
    ],
)
def test_it_concludes(changes: dict[str, Any], colour: str, words: str) -> None:
    found, sentence = verdict(ROW | changes, NOW)
    assert found == colour
    assert words in sentence


def test_a_sign_in_says_how_long_it_lasts() -> None:
    assert sign_in(ROW | {"sign_in_lapses_at": NOW + timedelta(days=9, hours=1)}, NOW) == (
        "fair",
        "lapses in 9 days unless used",
    )
    assert sign_in(ROW | {"sign_in_refused_at": NOW}, NOW)[0] == "bad"
    assert sign_in(ROW | {"sign_in_lapses_at": None}, NOW) == ("soft", "not stored here")


def test_nothing_that_strangers_wrote_is_alive() -> None:
    """Every text of every row, hostile at once."""
    row = ROW | dict.fromkeys(("account", "last_error", "last_reconcile_error", "sign_in_refused_because"), HOSTILE)
    row["last_run_outcome"] = "failed"
    run = RUN | {"account": HOSTILE, "kind": HOSTILE, "outcome": HOSTILE}
    text = status_page(Part([row]), [run], [(HOSTILE, HOSTILE, NOW)], NOW)
    page = Elements()
    page.feed(text)
    assert not page.tags & {"script", "img", "a", "iframe", "form", "link"}
    assert not [name for name in page.attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert "&lt;script&gt;" in text


def test_of_a_thousand_accounts_the_worst_are_on_the_first_page_and_any_is_found() -> None:
    rows = [ROW | {"account": f"a{number:04}"} for number in range(1000)]
    rows[700]["health"] = "needs a person"
    rows[900]["health"] = "failing"
    first = part_of(rows, "", "", NOW)
    assert [row["account"] for row in first.rows[:3]] == ["a0700", "a0900", "a0000"]
    assert (len(first.rows), first.pages, first.found) == (PER_PAGE, 1000 // PER_PAGE, 1000)
    everywhere = [
        row["account"] for page in range(1, first.pages + 1) for row in part_of(rows, "", str(page), NOW).rows
    ]
    assert sorted(everywhere) == [row["account"] for row in rows]
    assert [row["account"] for row in part_of(rows, " A0123 ", "7", NOW).rows] == ["a0123"]
    for page in ("0", "-1", "x", "9" * 99, "٣"):
        assert part_of(rows, "", page, NOW).page in (1, first.pages)
    told = status_page(part_of(rows, '"><script>', "", NOW), [], [], NOW)
    assert "No account has such a name" in told
    assert "<script>" not in told


def test_it_is_drawn_without_accounts_and_without_runs() -> None:
    assert "No account yet" in status_page(Part([]), [], [], NOW)
    assert "No run yet" in status_page(Part([ROW]), [], [], NOW)


def test_bars_stand_apart_and_within_the_chart() -> None:
    drawn = bars([RUN | {"seconds": seconds} for seconds in (0, None, 1, 400)])
    assert [bar.x for bar in drawn] == sorted({bar.x for bar in drawn})
    assert all(bar.y >= 0 and bar.y + bar.height <= 40 for bar in drawn)
    assert drawn[0].height == max(bar.height for bar in drawn), "the oldest stands first"


@pytest.mark.parametrize(("seconds", "told"), [(-5, "in 0 s"), (30, "in 30 s"), (300, "in 5 min"), (9_000, "in 2 h")])
def test_what_is_due(seconds: int, told: str) -> None:
    assert until(NOW + timedelta(seconds=seconds), NOW) == told
