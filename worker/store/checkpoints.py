"""How far the copy of an account goes: its watermark, and through when it was verified."""

from __future__ import annotations

from datetime import datetime

from worker.model.instant import Instant, to_datetime
from worker.model.window import TimeField, Window
from worker.store import leases
from worker.store.database import STATEMENT_SECONDS, Database
from worker.store.leases import Lease


async def watermark(database: Database, account: str) -> Instant | None:
    """Return the account's watermark, or None before its first backfill."""
    async with database.transaction() as connection:
        checkpoint = await connection.fetchval("SELECT checkpoint FROM sync.watermarks WHERE account = $1", account)
    return None if checkpoint is None else Instant(checkpoint)


async def anchor(database: Database, account: str, lower: Instant, watermark: Instant) -> tuple[str, Instant] | None:
    """Return id and version of the newest live row from `lower` up to the watermark, which a listing must show.

    It is remembered beside the watermark as that moves, for an index of all versions would make each change of a row
    write to all indexes. Where the one remembered was changed or deleted since, the rows of the account are looked
    through, once.
    """
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        found = await connection.fetchrow(
            """
            SELECT r.id, r.version FROM sync.watermarks w
            JOIN partner_center.referrals r ON r.account = w.account AND r.id = w.anchor_id
            WHERE w.account = $1 AND w.anchor_version <= $2 AND r.version = w.anchor_version AND r.deleted_at IS NULL
            """,
            account,
            watermark,
        )
        if found is None:
            found = await connection.fetchrow(
                """
                SELECT id, version FROM partner_center.referrals
                WHERE account = $1 AND version <= $2 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1
                """,
                account,
                watermark,
            )
            if found is not None:
                await connection.execute(
                    "UPDATE sync.watermarks SET anchor_id = $2, anchor_version = $3 WHERE account = $1",
                    account,
                    found["id"],
                    found["version"],
                )
    return (found["id"], Instant(found["version"])) if found and found["version"] >= lower else None


async def watermark_and_verified(database: Database, account: str) -> tuple[Instant | None, Instant | None]:
    """Return the account's watermark, and through when its copy was last verified."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            "SELECT checkpoint, verified_through FROM sync.watermarks WHERE account = $1", account
        )
    return (found["checkpoint"], found["verified_through"]) if found else (None, None)


async def rewind_watermark(database: Database, lease: Lease, to: Instant) -> None:
    """Move the watermark back on request (`sync --since`); it never goes forward this way."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute(
            "UPDATE sync.watermarks SET checkpoint = $2, moved_at = now() WHERE account = $1 AND checkpoint > $2",
            lease.account,
            to,
        )


async def live_ids(database: Database, account: str, window: Window, before: datetime) -> set[str]:
    """Return the ids of rows whose time lies in the window, not marked as deleted, and stored before a moment.

    Bounds of a window are whole seconds, so comparing floored timestamps is exact. A window without a lower end also
    holds the rows without a time.
    """
    column = "created_at" if window.field is TimeField.CREATED else "updated_at"
    async with database.transaction() as connection:
        found = await connection.fetch(
            f"""
            SELECT id FROM partner_center.referrals
            WHERE account = $1 AND deleted_at IS NULL AND observed_at < $2
                AND (({column} IS NULL AND $3::timestamptz IS NULL)
                    OR (({column} >= $3 OR $3 IS NULL) AND ({column} < $4 OR $4 IS NULL) AND {column} IS NOT NULL))
            """,  # noqa: S608 - one of two constants
            account,
            before,
            None if window.lower is None else to_datetime(window.lower),
            None if window.upper is None else to_datetime(window.upper),
        )
    return {one["id"] for one in found}


async def live_count(database: Database, account: str) -> int:
    """Count the rows that are not marked as deleted."""
    async with database.transaction() as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM partner_center.referrals WHERE account = $1 AND deleted_at IS NULL", account
        )
    return count


async def put_verified(database: Database, lease: Lease, through: Instant | None, how: str) -> None:
    """Record that a complete listing agreed with the copy about everything updated before `through`, and how so."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute(
            """
            UPDATE sync.watermarks SET verified_through = $2, verified_at = now(), verified_by = $3, not_verified = NULL
            WHERE account = $1
            """,
            lease.account,
            through,
            how,
        )


async def put_unverified(database: Database, lease: Lease, why: str) -> None:
    """Record why the last reconcile could verify nothing; what was verified before keeps its date."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute("UPDATE sync.watermarks SET not_verified = $2 WHERE account = $1", lease.account, why)
