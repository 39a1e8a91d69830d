"""Rejected records: what they are, and what a replay of them came to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from worker import RELEASE
from worker.model.mapping import RejectedRecord
from worker.store import leases
from worker.store.database import Database
from worker.store.leases import Lease

_COLUMNS = "key, referral_id, reason, field, payload, first_seen_at, last_seen_at, attempts, closed_at, closed_because"


@dataclass(frozen=True, slots=True)
class Kept:
    """One rejected record. `key` is its referral id, or the digest of its bytes where the id is unreadable."""

    key: str
    referral_id: str | None
    reason: str
    field: str | None
    payload: bytes = dataclasses.field(repr=False)
    first_seen_at: datetime
    last_seen_at: datetime
    attempts: int
    closed_at: datetime | None
    closed_because: str | None


async def open_rejects(
    database: Database, account: str, *, after: str = "", limit: int = 500, other_release: bool = False
) -> list[Kept]:
    """Return a batch of the open rejected records, by key; `other_release`: only what another one tried."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            f"""
            SELECT {_COLUMNS} FROM sync.rejected_records
            WHERE account = $1 AND closed_at IS NULL AND key > $2 AND (NOT $4 OR tried_with IS DISTINCT FROM $5)
            ORDER BY key LIMIT $3
            """,  # noqa: S608 - a constant
            account,
            after,
            limit,
            other_release,
            RELEASE,
        )
    return [Kept(**record) for record in found]


async def rejects_of(database: Database, account: str, referral_id: str) -> list[Kept]:
    """Return every rejected record of one referral."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            f"SELECT {_COLUMNS} FROM sync.rejected_records WHERE account = $1 AND referral_id = $2",  # noqa: S608
            account,
            referral_id,
        )
    return [Kept(**record) for record in found]


async def failed_again(database: Database, lease: Lease, key: str, reject: RejectedRecord | None) -> None:
    """Count a replay that failed; `reject` is why this time, None where that is the same."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute(
            """
            UPDATE sync.rejected_records SET attempts = attempts + 1, tried_with = $3, reason = coalesce($4, reason),
                field = CASE WHEN $4 IS NULL THEN field ELSE $5 END
            WHERE account = $1 AND key = $2
            """,
            lease.account,
            key,
            RELEASE,
            reject.reason if reject is not None else None,
            reject.field if reject is not None else None,
        )


async def no_longer_needed(database: Database, lease: Lease, key: str) -> None:
    """Count a replay that needs no other: its record is stored, or the copy had a newer one already."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute(
            """
            UPDATE sync.rejected_records SET attempts = attempts + 1, tried_with = $3,
                closed_at = coalesce(closed_at, now()), closed_because = coalesce(closed_because, 'superseded')
            WHERE account = $1 AND key = $2
            """,
            lease.account,
            key,
            RELEASE,
        )
