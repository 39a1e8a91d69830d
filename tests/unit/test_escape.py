"""Whatever is printed, logged or drawn steers nobody's terminal and reads as what it is."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from tests.support.status_rows import ROW, RUN
from worker import logs as log_lines
from worker.commands import process, render
from worker.commands.outlet import tell, warn
from worker.errors import ConfigError, SyncError
from worker.logs import LibraryFormatter, configure, traced
from worker.model.escape import block, line
from worker.store.rejects import Kept
from worker.web.pages import load_templates
from worker.web.status_page import Selection, status_page

STEERING = "\x1b]0;owned\x07 \x9b31m \u202eevil\u2066 \u200f\x00\x7f\r\u2028"
SIGNS = set(STEERING) - {" "} - set("]0;owned31mevil")
SHOWN = r"\x1b]0;owned\x07 \x9b31m \u202eevil\u2066 \u200f\x00\x7f\r\u2028"
NOW = datetime(2024, 5, 1, tzinfo=UTC)
PASSWORD = "hidden-password"  # not in a line that a traceback quotes


@pytest.fixture(autouse=True)
def _logging() -> Any:
    yield
    structlog.reset_defaults()


def test_what_steers_is_shown_and_what_reads_is_left() -> None:
    assert line(STEERING) == SHOWN
    assert line("a\nb\tc") == r"a\nb\tc"
    assert block(f"a\n{STEERING}") == f"a\n{SHOWN}"
    for harmless in ("Zoë, 株式会社 \xa0 \u3000 🙂 [bold]x[/] :warning:", "", "a\\x1b"):
        assert line(harmless) == harmless
    assert line("\udc80") == r"\udc80", "what is no text can be printed too"


def test_every_print_passes_the_outlet(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"a\n{STEERING} [bold]x[/] :warning:")
    warn(STEERING)
    assert capsys.readouterr() == (f"a\n{SHOWN} [bold]x[/] :warning:\n", f"{SHOWN}\n")


@pytest.mark.parametrize("error", [SyncError(f"a\n{STEERING}", STEERING), ConfigError([f"a\n{STEERING}"], STEERING)])
def test_errors_are_harmless_and_forge_no_line(error: SyncError, capsys: pytest.CaptureFixture[str]) -> None:
    process.print_error(error)
    assert capsys.readouterr().err == f"Error: a\\n{SHOWN}\n{SHOWN}\n"


def test_what_is_stored_is_shown_on_its_own_line() -> None:
    row = ROW | dict.fromkeys(("last_error", "last_reconcile_error", "not_verified", "verified_by"), f"a\n{STEERING}")
    row |= {"last_run_outcome": "failed", "configured": True, "backing_off_until": None, "verified_through": NOW,
            "watermark": NOW, "last_run_kind": "incremental", "last_run_at": NOW, "below_watermark_max": None,
            "missed": 0, "overlap": 0.0, "overlap_too_small": False, "lag_p50": None,
            "loading_since": None}  # fmt: skip
    text = render.status(row)
    assert text.count(f"a\\n{SHOWN}") == 4
    assert not SIGNS & set(text)
    kept = Kept("k", STEERING, STEERING, STEERING, b"", NOW, NOW, 1, None, None)
    assert not (SIGNS | {"\n"}) & set(render.rejected_line("contoso", kept))


def test_pages_show_what_would_make_a_text_read_as_another() -> None:
    row = ROW | {"account": STEERING, "last_error": STEERING, "last_run_outcome": "failed"}
    templates = load_templates()
    page = status_page(
        Selection([row]), [RUN | {"account": STEERING, "kind": STEERING}], [(STEERING, STEERING, NOW)], NOW, templates
    )
    assert not SIGNS & set(page)
    assert SHOWN in page
    assert templates.from_string("{{ a }} {{ b|safe }}").render(a="<\u202e", b="<b>") == r"&lt;\u202e <b>"


@pytest.mark.parametrize("form", ["console", "json"])
def test_log_lines_are_harmless(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", form)
    structlog.get_logger().error("run_failed", account="contoso", error=f"a\n{STEERING}", fields=[STEERING])
    text = capfd.readouterr().err
    assert text.count("\n") == 1
    assert not SIGNS & set(text)
    if form == "json":
        assert json.loads(text)["error"] == f"a\n{STEERING}"


def _raised(secret: str) -> Exception:
    try:
        int(secret)
    except ValueError as error:
        group = ExceptionGroup(secret, [OSError(2, secret), SyncError("a sentence of ours")])
        group.__cause__ = error
        return group
    raise AssertionError


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_says_where_and_not_what(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is what people are asked to report: messages of others may quote passwords and data."""
    configure("debug", form)
    try:
        raise _raised(PASSWORD)
    except ExceptionGroup as error:
        process.unforeseen(error)
    try:
        raise _raised(PASSWORD)
    except ExceptionGroup:
        structlog.get_logger().exception("run_crashed", account="contoso")
    text = capfd.readouterr().err
    assert "hidden" not in text
    assert text.count("test_escape.py") >= 2
    for kind in ("ValueError", "ExceptionGroup", "FileNotFoundError: errno 2", "SyncError: a sentence of ours"):
        assert kind in text
    assert "_raised" in traced(_raised(PASSWORD))


def test_a_library_s_line_is_one_line_without_the_messages_of_errors() -> None:
    error = _raised(PASSWORD)
    record = logging.LogRecord(
        "asyncio", logging.ERROR, "x.py", 1, "Task \x1b failed\nfuture: <Task exception=%r>", (error,),
        (type(error), error, error.__traceback__),
    )  # fmt: skip
    text = LibraryFormatter().format(record)
    assert text.startswith("ERROR asyncio Task \\x1b failed\n")
    assert "hidden" not in text
    assert "ValueError" in text
    assert (
        log_lines.LibraryFormatter().format(logging.LogRecord("a", 30, "x", 1, "plain", (), None)) == "WARNING a plain"
    )
