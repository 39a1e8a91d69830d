"""The queue: PgQueuer's tables in a schema of their own, reached over our own connections.

The engine says which worker does a job, and frees the jobs of a worker that died. It delivers at least once: finishing,
retrying and heartbeats do not ask whose a job is by then. What a run writes is therefore checked against its lease, as
ever (`leases.check`); a job that is taken up twice costs a look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Self, TypeVar, cast

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.tm import TaskManager
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.domain.types import Channel
from pgqueuer.ports.driver import Driver, NotifyCallback

from worker.errors import StoreError, StoreUnavailable
from worker.store.database import Database, store_error

SCHEMA = "queue"
CHANNEL = Channel("referral_sync_queue")
SETTINGS = DBSettings(
    prefix="",
    db_schema=SCHEMA,
    channel=CHANNEL,
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
    durability=Durability.balanced,
    widen_id=True,
)
"""Every name is given: the engine would else take each from a variable of the environment, such as TRIGGER."""

AGAIN_SECONDS = 1.0
"""So long a lane waits before it asks a database again that did not answer."""

_T = TypeVar("_T")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work to put into the queue.

    `key` names it: while a job of this name waits or is in hand, no second one is taken in. Nor is one while any of
    `unless` is. Higher `priority` goes first. `account` is empty for work of the whole database; `due_at` says when it
    was due by a schedule.
    """

    kind: str
    account: str
    key: str
    priority: int = 0
    due_at: datetime | None = None
    details: dict[str, Any] = field(default_factory=dict)
    unless: Sequence[str] = ()

    def payload(self) -> bytes:
        """Write what the job is about as the engine carries it."""
        due = self.due_at.isoformat() if self.due_at is not None else None
        return json.dumps({"account": self.account, "due_at": due} | self.details).encode()


@dataclass(frozen=True, slots=True)
class Taken:
    """What a worker knows of a job that it took out of the queue."""

    kind: str
    account: str
    due_at: datetime | None
    details: dict[str, Any]

    @classmethod
    def read(cls, kind: str, payload: bytes | None) -> Taken:
        """Read a payload; raises ValueError where it is none of ours."""
        found = json.loads(payload or b"{}")
        if not isinstance(found, dict) or not isinstance(found.get("account"), str):
            raise ValueError("the payload names no account")
        due = found.pop("due_at", None)
        return cls(kind, found.pop("account"), datetime.fromisoformat(due) if due else None, found)


def install_sql() -> str:
    """Return the SQL that makes the engine's tables in their schema, as its own release writes it.

    Nobody listens for its notifications, which a transaction pooler would not pass on and which make all commits of a
    database queue for one lock; so its trigger stays, and is off.
    """
    builder = QueryBuilderEnvironment(SETTINGS)
    return "\n".join(
        (
            builder.build_install_query(create_schema=False),
            builder.build_optimize_autovacuum_query(),
            f"ALTER TABLE {SETTINGS.qualified.queue_table} DISABLE TRIGGER {SETTINGS.trigger};",
        )
    )


async def enqueue(connection: PoolConnectionProxy, jobs: Sequence[Job]) -> list[bool]:
    """Put jobs into the queue, in the transaction of a connection; says of each whether it was taken in."""
    if not jobs:
        return []
    barred = await connection.fetch(
        f"SELECT dedupe_key FROM {SETTINGS.qualified.queue_table}"  # noqa: S608 - the engine's own name
        " WHERE status IN ('queued', 'picked') AND dedupe_key = ANY($1::text[])",
        sorted({key for job in jobs for key in job.unless}),
    )
    keys = {record["dedupe_key"] for record in barred}
    wanted = [job for job in jobs if keys.isdisjoint(job.unless)]
    if not wanted:
        return [False for _ in jobs]
    ids = await _queries(AsyncpgDriver(cast("asyncpg.Connection", connection))).enqueue(
        [job.kind for job in wanted],
        [job.payload() for job in wanted],
        [job.priority for job in wanted],
        dedupe_key=[job.key for job in wanted],
        on_conflict="skip",
    )
    taken = {job.key for job, number in zip(wanted, ids, strict=True) if number is not None}
    return [job.key in taken for job in jobs]


def queries(driver: PoolDriver) -> Queries:
    """Return the engine's statements over our connections."""
    return _queries(driver)


async def require_tables(database: Database) -> None:
    """Raise StoreError unless the engine's tables are as the pinned release makes them; StoreUnavailable in outages."""
    try:
        plan = await _queries(PoolDriver(database)).plan_upgrade()
    except asyncpg.PostgresError as error:
        if isinstance(outage := store_error(error), StoreUnavailable):
            raise outage from error
        raise StoreError(
            f"The tables of the queue cannot be read: {error}", "Grant the worker's role its schema."
        ) from error
    if plan.statements:
        raise StoreError(
            f"The tables in schema {SCHEMA} are not those of PgQueuer {version('pgqueuer')}:"
            f" {len(plan.statements)} statements would make them so.",
            "Run `referral-sync migrate`; where a newer release of referral-sync is about, run that one.",
        )


async def prune_log(database: Database) -> None:
    """Empty the engine's log, which has three rows of each job and which nobody else empties."""
    await _queries(PoolDriver(database)).clear_queue_log()


async def delete_unknown(database: Database, kinds: Sequence[str], older_than: str) -> int:
    """Delete jobs that no release at work has taken for so long; returns how many went."""
    async with database.transaction() as connection:
        status = await connection.execute(
            f"DELETE FROM {SETTINGS.qualified.queue_table}"  # noqa: S608 - the engine's own name
            " WHERE NOT entrypoint = ANY($1::text[]) AND created < now() - $2::text::interval",
            list(kinds),
            older_than,
        )
    return int(status.rpartition(" ")[2])


class PoolDriver(Driver):
    """The engine's connection to the database: each statement a transaction of our own pool, and no listening.

    It polls for what other processes put in; `wake` notifies it of what this process has put in itself.

    The statements of a `lane` outlast an outage: they are tried again until the lane is `stopping`. An error would end
    the engine's loop, which then waits for all of its jobs before it can begin again, and forgets which of them ended
    meanwhile; nobody would take those accounts before the heartbeats of their jobs are stale.
    """

    def __init__(self, database: Database, *, lane: str = "", stopping: asyncio.Event | None = None) -> None:
        self._database = database
        self._lane = lane
        self._stopping = stopping
        self._unreachable = False
        self._shutdown = asyncio.Event()
        self._listeners: list[NotifyCallback] = []

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Return rows; raises the driver's own errors, which the engine knows by their SQLSTATE."""

        async def rows(connection: PoolConnectionProxy) -> list[dict[str, object]]:
            return [dict(record) for record in await connection.fetch(query, *args)]

        return await self._answered(rows)

    async def execute(self, query: str, *args: object) -> str:
        """Return PostgreSQL's status line; raises as `fetch` does."""

        async def status(connection: PoolConnectionProxy) -> str:
            line: str = await connection.execute(query, *args)
            return line

        return await self._answered(status)

    async def _answered(self, ask: Callable[[PoolConnectionProxy], Awaitable[_T]]) -> _T:
        while True:
            try:
                async with self._database.transaction() as connection:
                    answer = await ask(connection)
            except StoreError as error:
                if not isinstance(error, StoreUnavailable) or self._stopping is None or self._stopping.is_set():
                    with _as_driver():
                        raise
                if not self._unreachable:
                    _log.warning("queue_unreachable", lane=self._lane, error=str(error))
                self._unreachable = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await self._stopping.wait()
            else:
                self._unreachable = False
                return answer

    async def notify(self, channel: str, payload: str) -> None:
        """Notify this process only: the engine checks whether it receives its own notification."""
        del channel
        self._notify_listeners(payload)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Add a callback."""
        del channel
        self._listeners.append(callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Remove a callback."""
        del channel
        self._listeners.remove(callback)

    def wake(self) -> None:
        """Let the engine look at once."""
        event = {
            "channel": CHANNEL,
            "operation": "insert",
            "table": SETTINGS.queue_table,
            "type": "table_changed_event",
        }
        self._notify_listeners(json.dumps(event | {"sent_at": "2000-01-01T00:00:00Z"}))

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when it should take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """Tasks of its own, of which it has none."""
        return TaskManager()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listeners.clear()

    def _notify_listeners(self, payload: str) -> None:
        for callback in list(self._listeners):
            callback(payload)


@contextmanager
def _as_driver() -> Iterator[None]:
    """Raise the driver's own error where ours wraps one."""
    try:
        yield
    except StoreError as error:
        if isinstance(error.__cause__, asyncpg.PostgresError):
            raise error.__cause__ from None
        raise


def _queries(driver: Driver) -> Queries:
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(SETTINGS),
        qbq=QueryQueueBuilder(SETTINGS),
        qbs=QuerySchedulerBuilder(SETTINGS),
    )
