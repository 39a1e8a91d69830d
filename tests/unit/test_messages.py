"""What messages say, and what strangers cannot make them say."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tools.messages import DEAL, DOCS, HEALTH, NOW, OLD, document, examples, frame, happening
from worker.auth.tokens import mfa_of
from worker.model.events import EventKind
from worker.notify import messages
from worker.notify.facts import Waiting
from worker.notify.routing import is_true
from worker.notify.words import LONGEST, address, amount, plain_text, span

EVIL = re.compile(r"[<>*_`~|\\\[\]{}#@\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|//|\w\.[a-z]{2}")


def test_the_documents_show_what_is_sent() -> None:
    assert (DOCS / "messages.md").read_text(encoding="utf-8") == document(), "`make messages` writes it anew"


@given(st.text(max_size=300) | st.text("<>@#*_`[]().:/\\ wexample.com\u202e\u200f\n&amp;", max_size=300))
@example("<!channel> <@U1> @everyone [a](http://evil.example) https://evil.example www.evil.example evil。example")
@example("a\u0301\u0301\u0301\u0301\u0301\u0301")
@example("x" * 4_000)
def test_a_strangers_text_is_plain(text: str) -> None:
    plain = plain_text(text)
    assert not EVIL.search(plain)
    assert len(plain) <= LONGEST
    assert "\n" not in plain
    assert plain_text(plain) == plain


@pytest.mark.parametrize("text", ["a@b.example", "first.last+x@sub.b-c.example", "a_b@b.example"])
def test_an_address_is_itself(text: str) -> None:
    assert address(text) == text


@pytest.mark.parametrize(
    "text", ["@everyone", "a@everyone.example", "a@b", "a b@c.example", "<a@b.example>", "a@b.example\n", None]
)
def test_what_is_no_address_is_left_out(text: str | None) -> None:
    assert address(text) == ""


@pytest.mark.parametrize("kind", examples())
@pytest.mark.parametrize("longest", [140, 1_000, 2_000, 32_768])
def test_it_fits(kind: str, longest: int) -> None:
    assert len(examples()[kind].text(longest)) <= longest


def test_many_fit_and_are_counted() -> None:
    waiting = Waiting(5_000, 0, [DEAL] * messages.SHOWN)
    page = messages.digest(messages.awaiting_title(waiting, frame()), waiting, [], frame())
    assert "... and 4,975 more" in page.text(32_768)
    assert "... and 4,999 more" in page.text(500)
    assert "... and 5,000 more" in page.text(200)
    assert "and 4,975 more" in page.html()


def test_nothing_is_said_to_wait_only_where_all_accounts_are_fresh() -> None:
    nothing = Waiting(0, 0, [])
    for accounts, said in (((HEALTH,), True), ((HEALTH, OLD), False), ((OLD,), False)):
        framed = frame(*accounts)
        page = messages.digest(messages.awaiting_title(nothing, framed), nothing, [], framed)
        assert ("othing awaits" in page.title + page.text(32_768) + page.html()) == said


def test_what_cannot_be_counted_is_said() -> None:
    framed = frame(replace(HEALTH, unknown_direction=2, rejects=1))
    text = messages.digest("x", Waiting(0, 0, []), [], framed).text(32_768)
    assert "2 referrals without a direction may await an answer too." in text
    assert "1 record could not be stored, and may too" in text


def test_html_is_bounded() -> None:
    long = replace(DEAL, name="n" * 500, customer="c" * 500, sellers=(("s" * 500, "one@contoso.example"),) * 9)
    events = [happening(kind, long) for kind in EventKind for _ in range(100)]
    html = messages.digest("Many", None, events, frame()).html()
    assert len(html) <= messages.LONGEST_HTML
    assert "more</p>" in html


def test_html_is_escaped() -> None:
    html = messages.single(happening(EventKind.NEW), frame()).html()
    assert "Move to the cloud &amp; support" in html


def test_what_is_not_true_any_more_is_not_sent() -> None:
    due = happening(EventKind.DUE)
    assert is_true(due, NOW)
    assert not is_true(due, NOW + timedelta(days=3))
    assert not is_true(happening(EventKind.OVERDUE), NOW)
    assert is_true(happening(EventKind.OVERDUE), NOW + timedelta(days=3))


def test_amounts_and_spans() -> None:
    assert amount(Decimal("1234567.5"), "EUR") == "EUR 1,234,567.50"
    assert amount(None, "EUR") == ""
    assert amount("1E+400", "EUR") == "EUR 1.000E+400"
    assert span(timedelta(days=1, minutes=5)) == "1 day"
    assert span(timedelta(hours=1, minutes=1)) == "1 hour 1 minute"
    assert span(timedelta(seconds=3)) == "less than a minute"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("opaque", None),
        ("a.b.c", None),
        ("a.W10.c", None),
        ("a.eyJhbXIiOlsicHdkIl19.c", False),
        ("a.eyJhbXIiOlsicHdkIiwibWZhIl19.c", True),
    ],
)
def test_a_token_may_say_whether_it_was_with_mfa(token: str, said: bool | None) -> None:
    assert mfa_of(token) is said
