"""Leases: who may work.

One lease for each (account, kind). It names its owner's process and term, ends by itself, and has a fencing token
that every write checks; so a process that was paused beyond its lease cannot write over its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.errors import CommitsLost, LeaseError, StoreError
from worker.model.privacy import Privacy
from worker.store.database import Database
from worker.store.owner import has_exited

LEASE_SECONDS = 30
RENEW_SECONDS = 10
RETRY_SECONDS = 1.0
_SHORT_RETRY_SECONDS = 0.1
KEEP = Privacy()

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
END_LEASE = "UPDATE sync.leases SET expires_at = now() WHERE account = $1 AND kind = $2 AND fence = $3"
_T = TypeVar("_T")

LIVING_SECONDS = 15.0
"""So long a command waits for work that a living process does: most syncs are over by then."""

Waiting = Callable[[LeaseError], None]
"""Called each second while a lease of another process is waited for."""


@dataclass(slots=True)
class Confirmed:
    """Pages and records of a run in commits that PostgreSQL confirmed: each later look must find them."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease to write as one recorded run (`id`), and the rule for what may be stored of people.

    `owner` is the process that holds it. `slot` tells the readers of one backfill apart.
    """

    id: int
    account: str
    kind: str
    owner: str
    fence: int
    slot: str | None = None
    privacy: Privacy = KEEP
    confirmed: Confirmed = field(default_factory=Confirmed)

    @property
    def name(self) -> str:
        """Its name in `sync.leases`."""
        return lease_name(self.kind, self.slot)


def lease_name(kind: str, slot: str | None) -> str:
    """Name the lease of a kind of work, or of one reader of it."""
    return kind if slot is None else f"{kind}#{slot}"


async def check(connection: PoolConnectionProxy, lease: Lease) -> None:
    """Hold the run's lease until the transaction ends, so that nobody can take it over in between; raises LeaseError.

    The lock keeps off whoever changes the fence, which a unique index makes part of a key, and not our own renewal: it
    would wait for a moment without any writer, which two busy ones never leave it, until the lease is over.

    Everything that is written as a run begins with this. What the run stores of people must still be what is asked
    for, and stays so until the transaction ends: raises StoreError when another process changed that. Raises
    CommitsLost when PostgreSQL crashed without the latest commits, which nothing may then pass over.
    """
    saved = lease.confirmed.number
    await connection.execute(f"SELECT pg_advisory_xact_lock_shared({RULES_LOCK})")
    found = await connection.fetchrow(
        """
        SELECT s.value AS contacts, r.inserted + r.updated + r.unchanged + r.rejected + r.pages AS saved
        FROM sync.leases l JOIN sync.settings s ON s.name = 'privacy.contacts'
        LEFT JOIN sync.runs r ON r.id = $5
        WHERE l.account = $1 AND l.kind = $2 AND l.fence = $3 AND l.owner = $4
        FOR KEY SHARE OF l
        """,
        lease.account,
        lease.name,
        lease.fence,
        lease.owner,
        lease.id,
    )
    if found is None:
        raise LeaseError(
            f"Another process took over the {lease.kind} of {lease.account}; this one wrote nothing more.",
            "It was paused or cut off for longer than its lease. Nothing is lost: the other one goes on.",
        )
    if found["contacts"] != lease.privacy.contacts:
        raise StoreError(
            f"Another process set privacy.contacts to {found['contacts']}; this one has {lease.privacy.contacts}"
            " and stopped.",
            "Give all processes on this database one configuration, and start this one again.",
        )
    require_saved(found["saved"], saved)


def require_saved(stored: int | None, saved: int) -> None:
    """Raise CommitsLost where less is stored than was confirmed."""
    if (stored or 0) < saved:
        raise CommitsLost(
            "PostgreSQL crashed, or a standby took over, without the latest pages that this run had stored.",
            "The next run reads them again: the checkpoint went back with them.",
        )


@asynccontextmanager
async def short_lease(database: Database, account: str, kind: str, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold a lease for a short piece of work that is no run; raises LeaseError as `run` does.

    It is not renewed: the work must be safe when somebody else begins it after `LEASE_SECONDS`.
    """

    async def begin() -> int:
        async with database.transaction() as connection:
            return await take(connection, account, kind, database.owner)

    fence = await within(wait_seconds, begin, every=_SHORT_RETRY_SECONDS)
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

    await within(wait_seconds, look, waiting=waiting)


async def within(
    wait_seconds: float,
    take: Callable[[], Awaitable[_T]],
    every: float = RETRY_SECONDS,
    waiting: Waiting | None = None,
) -> _T:
    """Try to take a lease until it is had; raises LeaseError that names the holder when the time is over."""
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


async def take(connection: PoolConnectionProxy, account: str, kind: str, owner: str) -> int:
    """Take the lease for an owner and return its fencing number; raises LeaseError that names its holder."""
    taken = account, kind, owner, LEASE_SECONDS
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
            await connection.execute(END_LEASE, account, kind, fence)
    except StoreError:
        pass


async def renew(database: Database, lease: Lease) -> None:
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
                    lease.account,
                    lease.name,
                    lease.fence,
                    lease.owner,
                    LEASE_SECONDS,
                )
        except StoreError:
            continue
