"""Backfills and their windows: what was asked for, who reads what, and how far each window is read."""

from __future__ import annotations

from dataclasses import dataclass

from worker.model.instant import Instant
from worker.model.window import TimeField, Window
from worker.store import leases
from worker.store.database import Database
from worker.store.leases import Lease


@dataclass(frozen=True, slots=True)
class LedgerWindow:
    """A window of a backfill that is not read to its end; it goes on at `window.lower`."""

    id: int
    window: Window


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that is not finished: its windows still to read, and how many there are in all."""

    id: int
    field: TimeField
    newest_updated: Instant | None
    pending: list[LedgerWindow]
    windows: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Windows of a backfill: all, those read to their end, and those that nobody reads; and records read so far."""

    windows: int
    done: int
    free: int
    records: int

    @property
    def whole(self) -> bool:
        """Whether every window is read."""
        return self.done == self.windows


_FREE_WINDOWS = """
FROM sync.backfill_windows w
LEFT JOIN sync.runs r ON r.id = w.run_id AND r.outcome = 'running'
LEFT JOIN sync.leases l ON l.account = r.account AND l.kind = r.lease AND l.fence = r.fence AND l.expires_at > now()
WHERE w.backfill_id = $1 AND w.done_at IS NULL AND l.account IS NULL
"""
"""A window is free where no run reads it that is under way and has its lease."""


async def unfinished_backfill(database: Database, account: str, field: TimeField, asked: Window) -> Backfill | None:
    """Return the backfill of exactly this range that was planned and not finished, with what is left of it."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            """
            SELECT id, newest_updated FROM sync.backfills
            WHERE account = $1 AND field = $2 AND lower IS NOT DISTINCT FROM $3 AND upper IS NOT DISTINCT FROM $4
                AND loaded_at IS NULL
            ORDER BY id DESC LIMIT 1
            """,
            account,
            field.value,
            asked.lower,
            asked.upper,
        )
        if found is None:
            return None
        windows = await connection.fetch(
            "SELECT id, lower, upper, through, done_at FROM sync.backfill_windows WHERE backfill_id = $1 ORDER BY id",
            found["id"],
        )
    pending = [
        LedgerWindow(one["id"], Window(field, one["lower"], one["upper"]).above(one["through"]))
        for one in windows
        if one["done_at"] is None
    ]
    return Backfill(found["id"], field, found["newest_updated"], pending, len(windows))


async def claim_window(database: Database, lease: Lease, backfill: Backfill) -> LedgerWindow | None:
    """Take the newest window that nobody reads, until the run ends or loses its lease; None where there is none.

    The backfill's row is locked first, so that two who look at the same moment do not take the same one. All readers
    wait in that line, so the commit does not wait for the disk: a claim that a crash takes back is made again.
    """
    async with database.transaction(flushed=False) as connection:
        await leases.check(connection, lease)
        await connection.execute("SELECT FROM sync.backfills WHERE id = $1 FOR UPDATE", backfill.id)
        found = await connection.fetchrow(
            f"""
            UPDATE sync.backfill_windows SET run_id = $2
            WHERE id = (SELECT w.id {_FREE_WINDOWS} ORDER BY w.id DESC LIMIT 1)
            RETURNING id, lower, upper, through
            """,  # noqa: S608 - a constant
            backfill.id,
            lease.id,
        )
    if found is None:
        return None
    whole = Window(backfill.field, found["lower"], found["upper"])
    return LedgerWindow(found["id"], whole.above(found["through"]))


async def release_windows(database: Database, lease: Lease) -> None:
    """Let go of the windows that the run has begun and not read to their end."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute(
            "UPDATE sync.backfill_windows SET run_id = NULL WHERE run_id = $1 AND done_at IS NULL", lease.id
        )


async def backfill_progress(database: Database, backfill_id: int) -> Progress:
    """Return how far a backfill is, whoever reads it."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            f"""
            SELECT count(*) AS windows, count(done_at) AS done, coalesce(sum(records), 0)::bigint AS records,
                (SELECT count(*) {_FREE_WINDOWS}) AS free
            FROM sync.backfill_windows WHERE backfill_id = $1
            """,  # noqa: S608 - a constant
            backfill_id,
        )
    if found is None:
        raise AssertionError("a count is always a row")
    return Progress(found["windows"], found["done"], found["free"], found["records"])


async def unfinished_progress(database: Database, account: str) -> Progress | None:
    """Return how far the account's newest unfinished backfill is; None where there is none."""
    async with database.transaction() as connection:
        found: int | None = await connection.fetchval(
            "SELECT max(id) FROM sync.backfills WHERE account = $1 AND loaded_at IS NULL", account
        )
    return None if found is None else await backfill_progress(database, found)


async def covered(database: Database, account: str, field: TimeField) -> list[tuple[Instant | None, Instant]]:
    """Return the ranges of a time field that earlier backfills have read, each with how far it goes."""
    async with database.transaction() as connection:
        windows = await connection.fetch(
            """
            SELECT w.lower, coalesce(CASE WHEN w.done_at IS NOT NULL THEN w.upper END, w.through) AS through
            FROM sync.backfill_windows w JOIN sync.backfills b ON b.id = w.backfill_id
            WHERE b.account = $1 AND b.field = $2 AND (w.done_at IS NOT NULL OR w.through IS NOT NULL)
            """,
            account,
            field.value,
        )
    return [(one["lower"], one["through"]) for one in windows if one["through"] is not None]


async def plan_backfill(
    database: Database, lease: Lease, asked: Window, windows: list[Window], newest_updated: Instant | None
) -> Backfill:
    """Write down a backfill and its windows; returns it as still to do."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        backfill_id = await connection.fetchval(
            """
            INSERT INTO sync.backfills (account, field, lower, upper, newest_updated) VALUES ($1, $2, $3, $4, $5)
            RETURNING id
            """,
            lease.account,
            asked.field.value,
            asked.lower,
            asked.upper,
            newest_updated,
        )
        ids = [
            await connection.fetchval(
                "INSERT INTO sync.backfill_windows (backfill_id, lower, upper) VALUES ($1, $2, $3) RETURNING id",
                backfill_id,
                window.lower,
                window.upper,
            )
            for window in windows
        ]
    pending = [LedgerWindow(key, window) for key, window in zip(ids, windows, strict=True)]
    return Backfill(backfill_id, asked.field, newest_updated, pending, len(windows))


async def finish_backfill(database: Database, lease: Lease, backfill: Backfill, *, sets_watermark: bool) -> bool:
    """Declare a backfill complete if every window is, and give an account without one its first watermark.

    That is the newest `updatedDateTime` which the source showed when the *first* backfill was planned that this one
    did not have to repeat: what was edited since is above it. Returns whether it is complete; it is derived from the
    windows, never from having finished.
    """
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        complete = await connection.fetchval(
            """
            UPDATE sync.backfills b SET loaded_at = now()
            WHERE id = $1 AND NOT EXISTS (
                SELECT FROM sync.backfill_windows w WHERE w.backfill_id = b.id AND w.done_at IS NULL
            ) RETURNING true
            """,
            backfill.id,
        )
        if complete and sets_watermark:
            await connection.execute(
                """
                INSERT INTO sync.watermarks (account, checkpoint)
                SELECT $1, min(coalesce(b.newest_updated, w.through, 0))
                FROM sync.backfills b LEFT JOIN LATERAL (
                    SELECT max(through) AS through FROM sync.backfill_windows
                    WHERE backfill_id = b.id AND b.field = 'updatedDateTime'
                ) w ON true
                WHERE b.account = $1
                ON CONFLICT (account) DO NOTHING
                """,
                lease.account,
            )
    return bool(complete)


async def drop_newest(database: Database, lease: Lease, backfill: Backfill) -> None:
    """Forget what the source showed as its newest record when a backfill was planned.

    For where a window's end cannot be verified: the first watermark must not pass a record that was not shown.
    """
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute("UPDATE sync.backfills SET newest_updated = NULL WHERE id = $1", backfill.id)


async def forget_backfills(database: Database, lease: Lease) -> None:
    """Drop the account's backfill ledger, so that the next one reads everything again."""
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        await connection.execute("DELETE FROM sync.backfills WHERE account = $1", lease.account)
