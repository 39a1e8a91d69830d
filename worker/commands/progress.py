"""Progress of long work: a bar with an estimate on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from worker.commands.render import estimate
from worker.errors import LeaseError
from worker.model.escape import line
from worker.sync.pipeline import Step

LINE_SECONDS = 10.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Shown:
    """Where to report how far work is (`report`), and what lease is waited for (`waiting`)."""

    report: Callable[[Step], None]
    waiting: Callable[[LeaseError], None]


@contextmanager
def progress() -> Iterator[Shown]:
    """Show progress for as long as the context lasts."""
    if sys.stderr.isatty():
        with _bars() as shown:
            yield shown
    else:
        yield Shown(_lines(), _waiting_line())


@contextmanager
def _bars() -> Iterator[Shown]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}
        waits: list[TaskID] = []

        def waiting(error: LeaseError) -> None:
            if not waits:
                waits.append(bars.add_task("waiting", total=None, text=""))
            left = f"; if it is dead, {error.seconds_left:.0f} s" if error.seconds_left is not None else ""
            bars.update(waits[0], text=escape(line(f"{error}{left}")))

        def report(step: Step) -> None:
            key = (step.account, step.kind)
            while waits:
                bars.remove_task(waits.pop())
            if key not in tasks:
                tasks[key] = bars.add_task(escape(f"{step.kind} {step.account}"), total=None, text="")
            task = next(task for task in bars.tasks if task.id == tasks[key])
            text = _step_text(task.elapsed or 0.0, step)
            bars.update(tasks[key], completed=step.done, total=step.total or None, text=text)

        yield Shown(report, waiting)


def _step_text(elapsed: float, step: Step) -> str:
    text = f"{step.counts.records:,} read"
    if elapsed > 0:
        text += f", {step.counts.records / elapsed:,.0f}/s"
    left = estimate(elapsed, step.done, step.total)
    return f"{text}, {step.done}/{step.total} windows, {left}" if step.total else text


def _waiting_line() -> Callable[[LeaseError], None]:
    said = False

    def waiting(error: LeaseError) -> None:
        nonlocal said
        if not said:
            left = None if error.seconds_left is None else round(error.seconds_left)
            _log.warning("lease_waiting", error=str(error), holder=error.holder, at_most_seconds=left)
        said = True

    return waiting


def _lines() -> Callable[[Step], None]:
    started = last = time.monotonic()

    def report(step: Step) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            _log.info(
                "run_progressed",
                account=step.account,
                kind=step.kind,
                records=step.counts.records,
                windows=f"{step.done}/{step.total}",
                left=estimate(now - started, step.done, step.total),
            )

    return report
