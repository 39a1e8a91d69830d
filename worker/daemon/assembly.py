"""The daemon of a configuration: its database, schedules, lanes and endpoint, put together and run."""

from __future__ import annotations

import asyncio
from functools import partial

from worker import RELEASE
from worker.config.models import Settings
from worker.daemon.http import Queries
from worker.daemon.jobs import Jobs
from worker.daemon.kinds import (
    HEAVY,
    MESSAGES,
    QUICK,
    fingerprint,
    kinds_of,
    kinds_of_all,
    kinds_of_channels,
    put,
)
from worker.daemon.planner import Member, Pulse, plan_until
from worker.daemon.service import serve as run_service
from worker.daemon.workers import Lane, Workers
from worker.notify import outbox, records
from worker.source.client import open_session
from worker.store import queries, queue, schedules
from worker.store.database import Database, open_database
from worker.web.pages import load_templates
from worker.wiring import database_url, pool_size, prepare_database

CHANNELS_AT_ONCE = 4
ACCOUNTS_IN_METRICS = 500
"""With more, /metrics has no series of single accounts by default: 70,000 of them take seconds to write and to read."""


async def serve(settings: Settings) -> int:
    """Be the daemon until a signal: migrations, schedules, jobs, ops endpoint; returns the exit code."""
    async with (
        database_url(settings) as url,
        open_database(url, connections=pool_size(settings)) as database,
        open_session(settings.api.ca_file) as session,
    ):
        accounts = sorted(settings.accounts)
        channels = [outbox.lease_of(name) for name in sorted(settings.notify.channels)]
        kinds, of_all, of_channels = kinds_of(settings), kinds_of_all(), kinds_of_channels()
        jobs = Jobs(settings, database, session)
        at_once = settings.scale.jobs_at_once
        workers = Workers(
            database,
            (
                Lane("quick", QUICK, at_once),
                Lane("heavy", HEAVY, max(2, at_once * 2 // 5)),
                *([Lane("messages", MESSAGES, CHANNELS_AT_ONCE)] if channels else []),
            ),
            jobs.handle,
        )
        jobs.wake = workers.wake

        async def prepare() -> None:
            await prepare_database(settings, url)
            await queue.require_tables(database)
            await schedules.ensure(database, accounts, kinds, of_all=False)
            await schedules.ensure(database, accounts, of_all, of_all=True)
            await schedules.ensure(database, channels, of_channels, of_all=False)

        async def work(stopped: asyncio.Event, pulse: Pulse) -> None:
            member = Member(database.owner, RELEASE, fingerprint(settings))
            every = kinds | of_all | of_channels
            planning = plan_until(
                stopped, database, member, [*accounts, *channels], every, partial(put, every), workers.wake, pulse
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(planning)
                group.create_task(workers.work_until(stopped))

        await run_service(
            prepare=prepare,
            reachable=partial(queries.reachable, database),
            queries=_queries(settings, database, workers),
            templates=load_templates(),
            work=work,
            listen=settings.http.listen,
            token=settings.http.token.get_secret_value(),
            configured=accounts,
        )
    return 0


def _queries(settings: Settings, database: Database, workers: Workers) -> Queries:
    """Return what the ops endpoint asks the database for."""
    return Queries(
        status=partial(queries.status, database, sorted(settings.accounts)),
        totals=partial(queries.totals, database),
        leases=partial(queries.live_leases, database),
        runs=partial(queries.recent_runs, database),
        queue=partial(queries.queue, database),
        workers=partial(queries.workers, database),
        awaiting=partial(queries.awaiting, database),
        channels=partial(records.state, database, list(settings.notify.channels)),
        upcoming=partial(schedules.upcoming, database),
        connections=database.connections,
        in_hand=lambda: len(workers.in_hand),
        by_account=_by_account(settings),
    )


def _by_account(settings: Settings) -> bool:
    asked = settings.http.account_metrics
    return len(settings.accounts) <= ACCOUNTS_IN_METRICS if asked == "auto" else asked
