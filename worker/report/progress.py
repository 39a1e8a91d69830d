"""Progress of long work: a bar with an estimate on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

LINE_SECONDS = 10.0
_log = structlog.get_logger()

Report = Callable[[str, str, int, int, int], None]
"""Called with account, kind of work, records so far, windows done, and windows in all (0: not known)."""


@contextmanager
def progress() -> Iterator[Report]:
    """Show progress for as long as the context lasts."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("windows  {task.fields[records]:,} records  {task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def report(account: str, kind: str, records: int, done: int, total: int) -> None:
            key = (account, kind)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{kind} {account}", total=None, records=0, rate="")
            elapsed = time.monotonic() - started
            bars.update(
                tasks[key],
                completed=done,
                total=total or None,
                records=records,
                rate=f"{records / elapsed:,.0f}/s, {estimate(elapsed, done, total)}" if elapsed > 0 else "",
            )

        yield report


def _lines() -> Report:
    started = last = time.monotonic()

    def report(account: str, kind: str, records: int, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            left = estimate(now - started, done, total)
            _log.info("progress", account=account, kind=kind, records=records, windows=f"{done}/{total}", left=left)

    return report


def estimate(elapsed: float, done: int, total: int) -> str:
    """Say how long the rest takes if it goes on as so far; the windows of a backfill are not equally dense."""
    if not total or not done:
        return "estimating"
    left = elapsed / done * (total - done)
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"  # noqa: PLR2004 - a minute and a half
