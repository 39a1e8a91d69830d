"""When things run: one tick and one reconcile at a time for each account, until a signal.

APScheduler only says when: its jobs start tasks of ours, because its shutdown cancels the coroutines it runs itself.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from worker.config.cron import cron_trigger
from worker.config.models import Cron
from worker.errors import SyncError

STOP_SECONDS = 8.0
"""A container's grace period is longer; whatever a run is doing is rolled back by then."""

BEAT_SECONDS = 5
STEP_SECONDS = 2.0
"""A wall clock that moved so much more or less than the monotonic one was set; a smaller difference is its drift."""

STILL_SECONDS = 60.0
"""A scheduler that has not moved for so long stands still; the process had better be started again."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work for an account, when it is due, and whether it also runs at the start."""

    account: str
    kind: str
    when: timedelta | Cron
    work: Callable[[], Awaitable[None]]
    at_start: bool = False


@dataclass(slots=True)
class Running:
    """The tasks in hand, by account and kind."""

    tasks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, job: Job) -> None:
        """Start a job unless it still runs; a failure is logged, and the next time comes all the same.

        A coroutine function, because APScheduler gives others to a thread.
        """
        key = (job.account, job.kind)
        if key in self.tasks:
            _log.info("still_running", account=job.account, kind=job.kind)
            return
        task = asyncio.create_task(_logged(job))
        self.tasks[key] = task
        task.add_done_callback(lambda _: self.tasks.pop(key, None))

    async def stop(self) -> None:
        """Cancel what runs and wait for it: the page in hand is rolled back, its run recorded as stopped."""
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)


@dataclass(slots=True)
class Clockwork:
    """What the scheduler shows of itself: when it last moved (monotonic), what is due, and what is in hand."""

    moved_at: float | None = None
    due: Callable[[], list[tuple[str, str, datetime]]] = list
    running: Running = field(default_factory=Running)

    def stands_still(self) -> bool:
        """Tell whether the scheduler, once begun, has not moved for `STILL_SECONDS`."""
        return self.moved_at is not None and time.monotonic() - self.moved_at > STILL_SECONDS

    async def beat(self) -> None:
        """Show that the scheduler and the loop move."""
        self.moved_at = time.monotonic()


async def run_until(stopped: asyncio.Event, jobs: list[Job], timezone: str, clockwork: Clockwork) -> None:
    """Run the jobs by their schedules until `stopped` is set, then stop within `STOP_SECONDS`."""
    running = clockwork.running
    scheduler = AsyncIOScheduler(
        timezone=timezone, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    for job in jobs:
        first: dict[str, Any] = {"next_run_time": datetime.now(UTC)} if job.at_start else {}
        scheduler.add_job(running.start, trigger(job.when, timezone), args=[job], **first)
    scheduler.add_job(clockwork.beat, IntervalTrigger(seconds=BEAT_SECONDS), next_run_time=datetime.now(UTC))
    clockwork.due = lambda: sorted(
        (
            (one.args[0].account, one.args[0].kind, one.next_run_time)
            for one in scheduler.get_jobs()
            if one.args and one.next_run_time is not None
        ),
        key=lambda one: one[2],
    )
    scheduler.start()
    following = asyncio.create_task(_follow_clock(scheduler))
    try:
        await stopped.wait()
    finally:
        following.cancel()
        scheduler.shutdown(wait=False)
        await running.stop()


async def _follow_clock(scheduler: AsyncIOScheduler) -> None:
    """Work out anew when jobs are due whenever the wall clock is set: APScheduler would wait for the old times.

    Set back, an interval keeps what was left of it, and a cron line is asked for its next time by the new clock. Set
    forward, what fell in between is due at once.
    """
    wall, steady = time.time(), time.monotonic()
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        now_wall, now_steady = time.time(), time.monotonic()
        step = (now_wall - wall) - (now_steady - steady)
        wall, steady = now_wall, now_steady
        if abs(step) < STEP_SECONDS:
            continue
        _log.warning("clock_stepped", seconds=round(step, 1))
        for job in scheduler.get_jobs():
            if isinstance(job.trigger, IntervalTrigger):
                due = job.next_run_time + timedelta(seconds=step)
            else:
                due = job.trigger.get_next_fire_time(None, datetime.now(UTC))
            job.modify(next_run_time=min(due, job.next_run_time))


def trigger(when: timedelta | Cron, timezone: str) -> Any:
    """Build APScheduler's trigger; an interval gets a jitter of a tenth, so that accounts drift apart."""
    if isinstance(when, Cron):
        return cron_trigger(when.line, timezone)
    seconds = when.total_seconds()
    return IntervalTrigger(seconds=seconds, jitter=seconds / 10, timezone=timezone)


def stop_on_signal(stopped: asyncio.Event) -> None:
    """Set the event at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)


async def _logged(job: Job) -> None:
    try:
        await job.work()
    except SyncError as error:
        _log.error("run_failed", account=job.account, kind=job.kind, error=str(error), hint=error.hint)
    except asyncio.CancelledError:
        _log.info("run_stopped", account=job.account, kind=job.kind)
    except Exception:  # noqa: BLE001 - see below
        # A bug: said loudly, with its traceback, and the other accounts go on.
        _log.exception("run_broken", account=job.account, kind=job.kind)
