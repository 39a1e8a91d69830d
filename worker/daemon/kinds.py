"""The kinds of work that are scheduled, which lane does each, and how what is due becomes jobs."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

from asyncpg.pool import PoolConnectionProxy

from worker.config.models import Settings
from worker.daemon.planner import next_due, spec
from worker.store import queue, schedules
from worker.store.queue import Job
from worker.store.schedules import Due, WorkKind

HOUR = timedelta(hours=1)
DELIVERY = timedelta(seconds=5)
"""So often each channel is sent what is due."""

QUICK = ("incremental", "history")
MESSAGES = ("delivery",)
HEAVY = ("reconcile", "backfill", "window", "housekeeping")


def kinds_of(settings: Settings) -> dict[str, WorkKind]:
    """Return the kinds of scheduled work of each account."""
    schedule, zone = settings.schedule, settings.schedule.timezone
    return {
        kind.name: kind
        for kind in (
            WorkKind(
                "incremental",
                spec(schedule.incremental, zone),
                next_due(schedule.incremental, zone),
                priority=10,
                at_once=True,
            ),
            WorkKind("reconcile", spec(schedule.reconcile, zone), next_due(schedule.reconcile, zone), priority=0),
        )
    }


def kinds_of_all() -> dict[str, WorkKind]:
    """Return the kinds of scheduled work that are of the whole database.

    A further one is an entry here, its name in a lane (`QUICK` or `HEAVY`), and what it does in `Jobs._handle`.
    """
    return {
        "housekeeping": WorkKind("housekeeping", spec(HOUR, "UTC"), next_due(HOUR, "UTC"), priority=0),
        schedules.HISTORY: WorkKind(schedules.HISTORY, "after a change", None, priority=5),
    }


def kinds_of_channels() -> dict[str, WorkKind]:
    """Return the kind of scheduled work of each channel."""
    return {
        "delivery": WorkKind("delivery", spec(DELIVERY, "UTC"), next_due(DELIVERY, "UTC"), priority=5, at_once=True),
    }


async def put(kinds: dict[str, WorkKind], connection: PoolConnectionProxy, due: list[Due]) -> list[bool]:
    """Put what is due into the queue."""
    jobs = [
        Job(one.kind, one.account, f"{one.kind}:{one.account}", kinds[one.kind].priority, one.due_at) for one in due
    ]
    return await queue.enqueue(connection, jobs)


def fingerprint(settings: Settings) -> str:
    """Return what workers on one database should have in common: accounts, and when they are due."""
    kinds = {name: kind.spec for name, kind in kinds_of(settings).items()}
    return hashlib.sha256(json.dumps([sorted(settings.accounts), kinds]).encode()).hexdigest()[:16]
