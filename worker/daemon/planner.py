"""When things run: due work is put into the queue, by the database's clock and whoever of the workers looks first."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from worker.config.cron import cron_trigger
from worker.config.values import Cron, plain_duration
from worker.errors import StoreError
from worker.store import schedules
from worker.store.database import Database
from worker.store.schedules import Put, WorkKind

LOOK_SECONDS = 2.0
"""So often the schedules are looked at when nothing is due before."""

AGAIN_SECONDS = 0.2
"""Never more often than this, whatever is due."""

ALIVE_SECONDS = 10.0
STILL_SECONDS = 60.0
"""A planner that has not moved for so long is stalled; the process had better be started again."""

_log = structlog.get_logger()


@dataclass(slots=True)
class Pulse:
    """When the planner moved last, by the monotonic clock; None before it began."""

    moved_at: float | None = None

    def is_stalled(self) -> bool:
        """Return whether the planner, once begun, has not moved for `STILL_SECONDS`."""
        return self.moved_at is not None and time.monotonic() - self.moved_at > STILL_SECONDS

    def beat(self) -> None:
        """Show that the planner and the loop move."""
        self.moved_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class Member:
    """A worker as others see it: its name, release, and the fingerprint of its configuration."""

    owner: str
    release: str
    configuration: str


def spec(when: timedelta | Cron, timezone: str) -> str:
    """Write a schedule as `sync.schedules` keeps it."""
    return f"{when.line} {timezone}" if isinstance(when, Cron) else plain_duration(when)


def next_due(when: timedelta | Cron, timezone: str) -> Callable[[datetime, float], datetime]:
    """Return a function that says when work is due after a moment.

    An interval is cut at its phase, a share of it that each row keeps, so that accounts neither start together nor
    drift together. Cron lines mean what they say.
    """
    if isinstance(when, Cron):
        trigger = cron_trigger(when.line, timezone)

        def by_cron(now: datetime, _: float) -> datetime:
            found: datetime = trigger.get_next_fire_time(None, now + timedelta(milliseconds=1))
            return found

        return by_cron
    seconds = when.total_seconds()

    def by_interval(now: datetime, phase: float) -> datetime:
        passed = now.timestamp() / seconds - phase
        return now + timedelta(seconds=(math.floor(passed) + 1 - passed) * seconds)

    return by_interval


async def plan_until(
    stopped: asyncio.Event,
    database: Database,
    member: Member,
    accounts: Sequence[str],
    kinds: Mapping[str, WorkKind],
    put: Put,
    wake: Callable[[], None],
    pulse: Pulse,
) -> None:
    """Put due work into the queue until `stopped`; an outage of the database is outwaited, and said once."""
    unreachable, others, seen_at = False, set[str](), -math.inf
    while not stopped.is_set():
        pulse.beat()
        wait = LOOK_SECONDS
        try:
            if time.monotonic() - seen_at >= ALIVE_SECONDS:
                seen_at = time.monotonic()
                found = await schedules.seen(database, member.owner, member.release, member.configuration)
                if found - others:
                    _log.warning(
                        "configuration_diverged",
                        why="another worker on this database has other accounts or schedules",
                        hint="Give all workers on a database one configuration.",
                    )
                others = found
            moved = await schedules.move_due(database, accounts, kinds, put)
            if moved.jobs:
                wake()
            if moved.seconds is not None:
                # Workers that all wait for the same row look one after another.
                wait = min(LOOK_SECONDS, max(AGAIN_SECONDS, moved.seconds + random.uniform(0, 0.1)))  # noqa: S311 - no secret
            unreachable = False
        except StoreError as error:
            if not unreachable:
                _log.warning("database_unreachable", error=str(error), hint=error.hint)
            unreachable = True
        await pause(stopped, wait)
    try:
        await schedules.leave(database, member.owner)
    except StoreError:
        return


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Wait for a time, or until stopped."""
    try:
        async with asyncio.timeout(seconds):
            await stopped.wait()
    except TimeoutError:
        return


def stop_on_signal(stopped: asyncio.Event) -> None:
    """Set the event at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
