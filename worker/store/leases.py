"""Leases and the record of runs: who may work, and what came of it.

One lease for each (account, kind). It names its owner's process and term, ends by itself, and has a fencing token
that every write checks; so a process that was paused beyond its lease cannot write over its successor.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.errors import DeletionCapError, LeaseError, SignInError, StoreError, StoreUnavailable, SyncError
from worker.model.counts import Counts, Traffic
from worker.model.lag import Lag
from worker.model.privacy import Privacy
from worker.store.database import Database
from worker.store.owner import has_exited, owner_name

LEASE_SECONDS = 30
RENEW_SECONDS = 10
_RETRY_SECONDS = 1.0
_SHORT_RETRY_SECONDS = 0.1
_STOP_SECONDS = 2.0
"""So long a run that is asked to stop tries to record its end; any other tries for as long as it has the lease."""

_KEEP = Privacy()

RULES_LOCK = 0x72756C6573
"""Number of the advisory lock that every writer shares and that a change of the rules takes alone.

A lock on the row of settings itself would be a write of each save to one and the same page, for all accounts, and where
two overlap a list of holders that PostgreSQL keeps on disk (docs/decisions/0024).
"""

_FIRST_LEASE = """
INSERT INTO sync.leases (account, kind, owner, fence, acquired_at, expires_at)
VALUES ($1, $2, $3, 1, now(), now() + make_interval(secs => $4))
ON CONFLICT DO NOTHING RETURNING fence
"""
"""Without naming a key: two that come first at once would else meet in the other unique index, which is an error."""

_NEXT_LEASE = """
UPDATE sync.leases
SET owner = $3, fence = fence + 1, acquired_at = now(), expires_at = now() + make_interval(secs => $4)
WHERE account = $1 AND kind = $2 AND expires_at <= now() RETURNING fence
"""
_DEAD_OWNERS_LEASE = """
UPDATE sync.leases
SET owner = $3, fence = fence + 1, acquired_at = now(), expires_at = now() + make_interval(secs => $4)
WHERE account = $1 AND kind = $2 AND owner = $5 RETURNING fence
"""
_END_LEASE = "UPDATE sync.leases SET expires_at = now() WHERE account = $1 AND kind = $2 AND fence = $3"
_ADD_TOTALS = """
INSERT INTO sync.totals AS t (account, kind, name, value)
SELECT $1, $2, * FROM unnest($3::text[], $4::float8[])
ON CONFLICT (account, kind, name) DO UPDATE SET value = t.value + excluded.value
"""
ASK_FOR_HISTORY = (
    "UPDATE sync.schedules SET due_at = now() WHERE account = '' AND kind = 'history' AND due_at = 'infinity'"
)
"""Ask for a refresh of what is refreshed as a whole; where that is asked for already, it neither waits nor writes."""

_T = TypeVar("_T")

OWNER = owner_name(secrets.token_hex(4))
"""This process and term; a host name alone would let a successor take itself for its predecessor."""

LIVING_SECONDS = 15.0
"""So long a command waits for work that a living process does: most syncs are over by then."""

Waiting = Callable[[LeaseError], None]
"""Called each second while a lease of another process is waited for."""


@dataclass(slots=True)
class Run:
    """One recorded attempt, and the lease to write as it. The flow fills in its figures.

    `only_by_id`: members that the list lacks and answers by id have; None until somebody looked. `changed`: whether it
    stored a change. `saved`: pages and records in commits that PostgreSQL confirmed. Its counts are kept in its row
    only; `map_seconds` and `store_seconds` are of all its readers. `slot` tells the readers of one backfill apart.
    """

    id: int
    account: str
    kind: str
    fence: int
    slot: str | None = None
    traffic: Traffic = field(default_factory=Traffic)
    began: float = field(default_factory=time.monotonic)
    map_seconds: float = 0.0
    store_seconds: float = 0.0
    deleted: int = 0
    paging: str = ""
    unknown_fields: set[str] = field(default_factory=set)
    lag: Lag = field(default_factory=Lag)
    privacy: Privacy = _KEEP
    only_by_id: set[str] | None = None
    changed: bool = False
    saved: int = 0

    @property
    def lease(self) -> str:
        """The lease that it works under."""
        return lease_name(self.kind, self.slot)


def lease_name(kind: str, slot: str | None) -> str:
    """Name the lease of a kind of work, or of one reader of it."""
    return kind if slot is None else f"{kind}#{slot}"


@asynccontextmanager
async def run(
    database: Database,
    account: str,
    kind: str,
    *,
    wait_seconds: float = 0,
    privacy: Privacy = _KEEP,
    waiting: Waiting | None = None,
    slot: str | None = None,
    due_at: datetime | None = None,
) -> AsyncIterator[Run]:
    """Take the lease, record the run, keep the lease alive, and record the outcome.

    Waits up to `wait_seconds` for a holder that may be dead, and at most `LIVING_SECONDS` for one that renews its
    lease; then raises LeaseError that names it. That of a process of this machine that has exited is taken at once.
    """
    current = await _within(wait_seconds, lambda: _begin(database, account, kind, slot, due_at), waiting=waiting)
    current.privacy = privacy
    renewal = asyncio.create_task(_renew(database, current))
    outcome, error = "failed", "ended by an unexpected error; the log of this process has it"
    try:
        yield current
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
            await asyncio.shield(_finish_surely(database, current, outcome, error))
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
            OWNER,
            outcome,
            _storable(error),
            seconds,
        )
        if recorded is not None:
            await connection.execute(_ADD_TOTALS, account, kind, [f"runs.{outcome}"], [1.0])


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL cannot hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


async def check(connection: PoolConnectionProxy, current: Run) -> None:
    """Hold the run's lease until the transaction ends, so that nobody can take it over in between; raises LeaseError.

    The lock keeps off whoever changes the fence, which a unique index makes part of a key, and not our own renewal: it
    would wait for a moment without any writer, which two busy ones never leave it, until the lease is over.

    Everything that is written as a run begins with this. What the run stores of people must still be what is asked
    for, and stays so until the transaction ends: raises StoreError when another process changed that. Raises
    StoreUnavailable when PostgreSQL crashed without the latest commits, which nothing may then pass over.
    """
    saved = current.saved
    await connection.execute(f"SELECT pg_advisory_xact_lock_shared({RULES_LOCK})")
    found = await connection.fetchrow(
        """
        SELECT s.value AS contacts, r.inserted + r.updated + r.unchanged + r.rejected + r.pages AS saved
        FROM sync.leases l JOIN sync.settings s ON s.name = 'privacy.contacts'
        LEFT JOIN sync.runs r ON r.id = $5
        WHERE l.account = $1 AND l.kind = $2 AND l.fence = $3 AND l.owner = $4
        FOR KEY SHARE OF l
        """,
        current.account,
        current.lease,
        current.fence,
        OWNER,
        current.id,
    )
    if found is None:
        raise LeaseError(
            f"Another process took over the {current.kind} of {current.account}; this one wrote nothing more.",
            "It was paused or cut off for longer than its lease. Nothing is lost: the other one goes on.",
        )
    if found["contacts"] != current.privacy.contacts:
        raise StoreError(
            f"Another process set privacy.contacts to {found['contacts']}; this one has {current.privacy.contacts}"
            " and stopped.",
            "Give all processes on this database one configuration, and start this one again.",
        )
    _require_saved(found["saved"], saved)


def _require_saved(stored: int | None, saved: int) -> None:
    if (stored or 0) < saved:
        raise StoreUnavailable(
            "PostgreSQL crashed, or a standby took over, without the latest pages that this run had stored.",
            "The next run reads them again: the checkpoint went back with them.",
        )


async def count(connection: PoolConnectionProxy, current: Run, counts: Counts) -> None:
    """Add to the run's counts, in the transaction that they are of."""
    await connection.execute(
        """
        UPDATE sync.runs SET inserted = inserted + $2, updated = updated + $3, unchanged = unchanged + $4,
            rejected = rejected + $5, pages = pages + $6
        WHERE id = $1
        """,
        current.id,
        counts.inserted,
        counts.updated,
        counts.unchanged,
        counts.rejected,
        counts.pages,
    )


@asynccontextmanager
async def short_lease(database: Database, account: str, kind: str, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold a lease for a short piece of work that is no run; raises LeaseError as `run` does.

    It is not renewed: the work must be safe when somebody else begins it after `LEASE_SECONDS`.
    """

    async def take() -> int:
        async with database.transaction() as connection:
            return await _take(connection, account, kind)

    fence = await _within(wait_seconds, take, every=_SHORT_RETRY_SECONDS)
    try:
        yield
    finally:
        await asyncio.shield(_give_back(database, account, kind, fence))


async def free(database: Database, account: str, *, wait_seconds: float, waiting: Waiting | None = None) -> None:
    """Wait until no process works on an account, as `run` does for one kind of work; raises LeaseError."""

    async def look() -> None:
        async with database.transaction() as connection:
            found = await connection.fetch(
                """
                SELECT kind, owner, acquired_at, expires_at, extract(epoch FROM expires_at - now())::float8 AS seconds
                FROM sync.leases WHERE account = $1 AND expires_at > now() ORDER BY expires_at DESC
                """,
                account,
            )
        for lease in found:
            if not has_exited(lease["owner"]):
                raise _lease_error(account, lease["kind"], lease)

    await _within(wait_seconds, look, waiting=waiting)


async def _within(
    wait_seconds: float,
    take: Callable[[], Awaitable[_T]],
    every: float = _RETRY_SECONDS,
    waiting: Waiting | None = None,
) -> _T:
    clock = asyncio.get_running_loop().time
    began, first = clock(), None
    while True:
        try:
            return await take()
        except LeaseError as taken:
            first = first or taken
            lives = (taken.holder, taken.expires_at) != (first.holder, first.expires_at)
            if clock() - began >= (min(wait_seconds, LIVING_SECONDS) if lives else wait_seconds):
                raise
            if waiting is not None:
                waiting(taken)
            await asyncio.sleep(every)


async def _take(connection: PoolConnectionProxy, account: str, kind: str) -> int:
    """Take the lease and return its fencing token; raises LeaseError that names its holder."""
    taken = account, kind, OWNER, LEASE_SECONDS
    fence: int | None = await connection.fetchval(_FIRST_LEASE, *taken) or await connection.fetchval(
        _NEXT_LEASE, *taken
    )
    if fence is not None:
        return fence
    holder = await connection.fetchrow(
        """
        SELECT owner, acquired_at, expires_at, extract(epoch FROM expires_at - now())::float8 AS seconds
        FROM sync.leases WHERE account = $1 AND kind = $2
        """,
        account,
        kind,
    )
    if holder is None:
        raise LeaseError(f"Another {kind} of {account} is running.", "Try again in a moment.")
    if has_exited(holder["owner"]):
        fence = await connection.fetchval(_DEAD_OWNERS_LEASE, *taken, holder["owner"])
    if fence is None:
        raise _lease_error(account, kind, holder)
    return fence


def _lease_error(account: str, kind: str, lease: asyncpg.Record) -> LeaseError:
    return LeaseError(
        f"Another {kind} of {account} runs: {lease['owner']}, since {lease['acquired_at']:%H:%M:%S} UTC.",
        f"Wait until it ends, or stop it; that of a dead process is taken over within {LEASE_SECONDS} seconds.",
        holder=lease["owner"],
        expires_at=lease["expires_at"],
        seconds_left=lease["seconds"],
    )


async def _give_back(database: Database, account: str, kind: str, fence: int) -> None:
    """Release the lease; when the database is unreachable, the lease ends by itself."""
    try:
        async with database.transaction() as connection:
            await connection.execute(_END_LEASE, account, kind, fence)
    except StoreError:
        pass


async def _begin(database: Database, account: str, kind: str, slot: str | None, due_at: datetime | None) -> Run:
    lease = lease_name(kind, slot)
    async with database.transaction() as connection:
        fence = await _take(connection, account, lease)
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
            OWNER,
            fence,
            due_at,
        )
    return Run(run_id, account, kind, fence, slot)


async def _renew(database: Database, current: Run) -> None:
    """Push the expiry forward by compare-and-set; an outage is outwaited, a lost lease is found by the next write."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            async with database.transaction() as connection:
                await connection.execute(
                    """
                    UPDATE sync.leases SET expires_at = now() + make_interval(secs => $5)
                    WHERE account = $1 AND kind = $2 AND fence = $3 AND owner = $4
                    """,
                    current.account,
                    current.lease,
                    current.fence,
                    OWNER,
                    LEASE_SECONDS,
                )
        except StoreError:
            continue


async def _finish_surely(database: Database, current: Run, outcome: str, error: str) -> None:
    """Record the outcome, and try again while the database is unreachable, until the lease would be over anyway.

    So an account that lost the database is free as soon as the database is back. A text that PostgreSQL cannot hold is
    cleaned before. What cannot be recorded ends with the lease: the next run of the kind closes it.
    """
    message, began = _storable(error), time.monotonic()
    patience = _STOP_SECONDS if outcome == "stopped" else LEASE_SECONDS
    while True:
        try:
            return await _finish(database, current, outcome, message)
        except StoreUnavailable:
            if time.monotonic() - began >= patience:
                if outcome == "done":
                    raise
                return None
            await asyncio.sleep(_RETRY_SECONDS)


async def _finish(database: Database, current: Run, outcome: str, error: str) -> None:
    """Record the outcome and give the lease back; raises StoreUnavailable when the database is."""
    traffic = current.traffic
    try:
        async with database.transaction() as connection:
            counted = await connection.fetchrow(
                """
                UPDATE sync.runs SET outcome = $2, error = nullif($3, ''), finished_at = clock_timestamp(),
                    requests = $4, paging = nullif($5, ''), unknown_fields = $6::text[], deleted = $7, retries = $8,
                    lag_p50 = $9, lag_p95 = $10, lag_max = $11, below_watermark_max = $12, overlap = $13, missed = $14,
                    api_seconds = $15, decode_seconds = $16, map_seconds = $17, store_seconds = $18,
                    throttled_seconds = $19
                WHERE id = $1 AND outcome = 'running'
                RETURNING inserted, updated, unchanged, rejected, pages
                """,
                current.id,
                outcome,
                error,
                traffic.requests,
                current.paging,
                sorted(current.unknown_fields),
                current.deleted,
                traffic.retries,
                current.lag.percentile(0.5),
                current.lag.percentile(0.95),
                current.lag.percentile(1),
                current.lag.below_watermark,
                current.lag.overlap.total_seconds() if current.lag.watermark is not None else None,
                current.lag.missed,
                traffic.api_seconds,
                traffic.decode_seconds,
                current.map_seconds,
                current.store_seconds,
                traffic.throttled_seconds,
            )
            if counted is not None:
                _require_saved(sum(counted.values()), current.saved)
                totals = _totals(current, outcome, dict(counted))
                await connection.execute(
                    _ADD_TOTALS,
                    current.account,
                    current.kind,
                    list(totals),
                    [float(value) for value in totals.values()],
                )
            if current.changed:
                await connection.execute(ASK_FOR_HISTORY)
            await connection.execute(_END_LEASE, current.account, current.lease, current.fence)
    except StoreUnavailable:
        raise
    except (StoreError, asyncpg.PostgresError):
        if outcome == "done":
            raise


def _totals(current: Run, outcome: str, counted: dict[str, int]) -> dict[str, float]:
    """Name what a run adds to the totals of its kind; what is nothing adds nothing."""
    traffic = current.traffic
    added = {
        f"runs.{outcome}": 1,
        **counted,
        "deleted": current.deleted,
        "retries": traffic.retries,
        "throttled_seconds": traffic.throttled_seconds,
        **{f"answers.{status}": number for status, number in traffic.answers.items()},
    }
    return {name: value for name, value in sorted(added.items()) if value}
