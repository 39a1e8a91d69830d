"""The record of runs: one row each, from the lease that it works under to what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.errors import (
    CommitsLost,
    DeletionCapError,
    LeaseError,
    SignInError,
    StoreError,
    StoreUnavailable,
    SyncError,
)
from worker.model.counts import Counts, Facts, values
from worker.model.privacy import Privacy
from worker.store import leases, sql
from worker.store.database import Database
from worker.store.leases import Lease, Waiting, lease_name

_STOP_SECONDS = 2.0
"""So long a run that is asked to stop tries to record its end; any other tries for as long as it has the lease."""

_ADD_TOTALS = """
INSERT INTO sync.totals AS t (account, kind, name, value)
SELECT $1, $2, * FROM unnest($3::text[], $4::float8[])
ON CONFLICT (account, kind, name) DO UPDATE SET value = t.value + excluded.value
"""
ASK_FOR_HISTORY = (
    "UPDATE sync.schedules SET due_at = now() WHERE account = '' AND kind = 'history' AND due_at = 'infinity'"
)
"""Ask for a refresh of what is refreshed as a whole; where that is asked for already, it neither waits nor writes."""


@dataclass(slots=True)
class Recording:
    """A run that is being recorded: its lease, and what it learned, which is set before its end."""

    lease: Lease
    facts: Facts = field(default_factory=Facts)


@asynccontextmanager
async def recorded(
    database: Database,
    account: str,
    kind: str,
    *,
    wait_seconds: float = 0,
    privacy: Privacy = leases.KEEP,
    waiting: Waiting | None = None,
    slot: str | None = None,
    due_at: datetime | None = None,
) -> AsyncIterator[Recording]:
    """Take the lease, record the run, keep the lease alive, and record the outcome.

    Waits up to `wait_seconds` for a holder that may be dead, and at most `LIVING_SECONDS` for one that renews its
    lease; then raises LeaseError that names it. That of a process of this machine that has exited is taken at once.
    """
    lease = await leases.within(
        wait_seconds, lambda: _begin(database, account, kind, slot, due_at, privacy), waiting=waiting
    )
    record = Recording(lease)
    renewal = asyncio.create_task(leases.renew(database, lease))
    outcome, error = "failed", "ended by an unexpected error; the log of this process has it"
    try:
        yield record
        outcome, error = "done", ""
    except asyncio.CancelledError:
        outcome, error = "stopped", "asked to stop"
        raise
    except SyncError as failure:
        needs_action = isinstance(failure, SignInError | DeletionCapError)
        outcome, error = "refused" if needs_action else "failed", str(failure)
        raise
    finally:
        try:
            await asyncio.shield(_finish_surely(database, record, outcome, error))
        finally:
            renewal.cancel()  # whatever happened: a lease that is renewed for ever keeps every replica out


@asynccontextmanager
async def failures_recorded(database: Database, account: str, kind: str) -> AsyncIterator[None]:
    """Record a failed run for work that failed before it could begin one, so that nothing fails without a trace.

    What another process has in hand, and a stop, are no failures; while the database is unavailable nothing is
    recorded.
    """
    began = time.monotonic()
    try:
        yield
    except (LeaseError, StoreUnavailable):
        raise
    except Exception as error:
        message = (
            str(error) if isinstance(error, SyncError) else f"an unexpected {type(error).__name__}; the log has it"
        )
        outcome = "refused" if isinstance(error, SignInError) else "failed"
        with suppress(StoreError):
            await _record_failure(database, account, kind, time.monotonic() - began, outcome, message)
        raise


async def _record_failure(
    database: Database, account: str, kind: str, seconds: float, outcome: str, error: str
) -> None:
    async with database.transaction() as connection:
        recorded = await connection.fetchval(
            """
            INSERT INTO sync.runs (account, kind, owner, fence, outcome, error, started_at, finished_at)
            SELECT $1, $2, $3, 0, $4, $5, now() - make_interval(secs => $6), now()
            WHERE NOT EXISTS (
                SELECT FROM sync.runs
                WHERE account = $1 AND owner = $3 AND started_at >= now() - make_interval(secs => $6 + 0.5)
            ) RETURNING id
            """,
            account,
            kind,
            database.owner,
            outcome,
            _storable(error),
            seconds,
        )
        if recorded is not None:
            await connection.execute(_ADD_TOTALS, account, kind, [f"runs.{outcome}"], [1.0])


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL cannot hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


async def count(connection: PoolConnectionProxy, lease: Lease, counts: Counts) -> None:
    """Add to the run's counts, in the transaction that they are of."""
    await connection.execute(sql.ADD_COUNTS, lease.id, *astuple(counts))


async def _begin(
    database: Database, account: str, kind: str, slot: str | None, due_at: datetime | None, privacy: Privacy
) -> Lease:
    lease = lease_name(kind, slot)
    async with database.transaction() as connection:
        fence = await leases.take(connection, account, lease, database.owner)
        abandoned = await connection.execute(
            """
            UPDATE sync.runs SET outcome = 'abandoned', finished_at = now(),
                error = 'its end could not be recorded: its process ended, or lost the database'
            WHERE account = $1 AND lease = $2 AND outcome = 'running'
            """,
            account,
            lease,
        )
        if abandoned != "UPDATE 0":  # it may have stored changes and not come to say so
            await connection.execute(ASK_FOR_HISTORY)
        run_id = await connection.fetchval(
            """
            INSERT INTO sync.runs (account, kind, slot, owner, fence, due_at) VALUES ($1, $2, $3, $4, $5, $6)
            RETURNING id
            """,
            account,
            kind,
            slot,
            database.owner,
            fence,
            due_at,
        )
    return Lease(run_id, account, kind, database.owner, fence, slot, privacy)


async def _finish_surely(database: Database, record: Recording, outcome: str, error: str) -> None:
    """Record the outcome, and try again while the database is unreachable, until the lease would be over anyway.

    So an account that lost the database is free as soon as the database is back. A text that PostgreSQL cannot hold is
    cleaned before. What cannot be recorded ends with the lease: the next run of the kind closes it.
    """
    message, began = _storable(error), time.monotonic()
    patience = _STOP_SECONDS if outcome == "stopped" else leases.LEASE_SECONDS
    while True:
        try:
            return await _finish(database, record, outcome, message)
        except CommitsLost as lost:
            await _finish_surely(database, record, "failed", str(lost))
            raise
        except StoreUnavailable:
            if time.monotonic() - began >= patience:
                if outcome == "done":
                    raise
                return None
            await asyncio.sleep(leases.RETRY_SECONDS)


async def _finish(database: Database, record: Recording, outcome: str, error: str) -> None:
    """Record the outcome and give the lease back; raises StoreUnavailable when the database is."""
    lease, facts = record.lease, record.facts
    learned = [_column(getattr(facts, name)) for name in sql.LEARNED]
    try:
        async with database.transaction() as connection:
            counted = await connection.fetchrow(sql.FINISH_RUN, lease.id, outcome, error, *learned)
            if counted is not None:
                if outcome == "done":
                    leases.require_saved(sum(counted.values()), lease.confirmed.number)
                totals = _totals(outcome, Counts(*counted.values()), facts)
                numbers = [float(value) for value in totals.values()]
                await connection.execute(_ADD_TOTALS, lease.account, lease.kind, list(totals), numbers)
                if counted["inserted"] or counted["updated"] or facts.deleted:
                    await connection.execute(ASK_FOR_HISTORY)
            await connection.execute(leases.END_LEASE, lease.account, lease.name, lease.fence)
    except StoreUnavailable:
        raise
    except (StoreError, asyncpg.PostgresError):
        if outcome == "done":
            raise


def _column(value: Any) -> Any:
    """Return a figure as its column takes it."""
    return sorted(value) if isinstance(value, frozenset) else value or None if isinstance(value, str) else value


def _totals(outcome: str, counts: Counts, facts: Facts) -> dict[str, float]:
    """Name what a run adds to the totals of its kind; what is nothing adds nothing."""
    added: dict[str, float] = {f"runs.{outcome}": 1}
    for figure, value in values(counts, facts).items():
        if isinstance(value, Mapping):
            added |= {f"{figure.name}.{part}": number for part, number in value.items()}
        elif figure.counter is not None:
            added[figure.name] = value
    return {name: value for name, value in sorted(added.items()) if value}
