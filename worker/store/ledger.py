"""The worker's books: watermarks, what the API can do, backfills and their windows, and each account's status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.model.instant import Instant, to_datetime
from worker.model.strategy import Method, Reading
from worker.model.window import TimeField, Window
from worker.store import leases
from worker.store.database import Database
from worker.store.leases import Run


@dataclass(frozen=True, slots=True)
class LedgerWindow:
    """A window of a backfill that is not read to its end; it goes on at `window.lower`."""

    id: int
    window: Window


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that is not loaded: its windows still to read, and how many there are in all.

    `from_empty`: nothing of the account was stored before it was planned.
    """

    id: int
    field: TimeField
    newest_updated: Instant | None
    pending: list[LedgerWindow]
    windows: int
    from_empty: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Windows of a backfill: all, those read to their end, and those that nobody reads; and records read so far."""

    windows: int
    done: int
    free: int
    records: int


_FREE_WINDOWS = """
FROM sync.backfill_windows w
LEFT JOIN sync.runs r ON r.id = w.run_id AND r.outcome = 'running'
LEFT JOIN sync.leases l ON l.account = r.account AND l.kind = r.lease AND l.fence = r.fence AND l.expires_at > now()
WHERE w.backfill_id = $1 AND w.done_at IS NULL AND l.account IS NULL
"""
"""A window is free where no run reads it that is under way and has its lease."""


async def watermark(database: Database, account: str) -> Instant | None:
    """Return the account's watermark, or None while it was never loaded."""
    async with database.transaction() as connection:
        position = await connection.fetchval("SELECT position FROM sync.watermarks WHERE account = $1", account)
    return None if position is None else Instant(position)


async def anchor(database: Database, account: str, lower: Instant, watermark: Instant) -> tuple[str, Instant] | None:
    """Return id and version of the newest live row from `lower` up to the watermark, which a listing must show."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            """
            SELECT id, version FROM partner_center.referrals
            WHERE account = $1 AND version BETWEEN $2 AND $3 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1
            """,
            account,
            lower,
            watermark,
        )
    return (found["id"], Instant(found["version"])) if found else None


async def proven_so_far(database: Database, account: str) -> tuple[Instant | None, Instant | None]:
    """Return the account's watermark, and through when its copy was last verified."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            "SELECT position, verified_through FROM sync.watermarks WHERE account = $1", account
        )
    return (found["position"], found["verified_through"]) if found else (None, None)


async def put_back_watermark(database: Database, run: Run, position: Instant) -> None:
    """Move the watermark back because a person said so; it never goes forward this way."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute(
            "UPDATE sync.watermarks SET position = $2, moved_at = now() WHERE account = $1 AND position > $2",
            run.account,
            position,
        )


async def reading(database: Database, account: str, field: TimeField) -> Reading | None:
    """Return what was seen of the API within the last day, or the last ten minutes where it was too little."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            """
            SELECT method, quoted, bounded_above, evidence, proven, links, page_size FROM sync.capabilities
            WHERE account = $1 AND field = $2
                AND probed_at > now() - CASE WHEN proven THEN interval '1 day' ELSE interval '10 minutes' END
            """,
            account,
            field.value,
        )
    if found is None:
        return None
    return Reading(**{**found, "method": Method(found["method"])})


async def put_reading(database: Database, account: str, field: TimeField, found: Reading) -> None:
    """Remember what a probe, or a contradiction, showed."""
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.capabilities
                (account, field, method, quoted, bounded_above, evidence, proven, links, page_size)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (account, field) DO UPDATE SET method = excluded.method, quoted = excluded.quoted,
                bounded_above = excluded.bounded_above, evidence = excluded.evidence, proven = excluded.proven,
                links = excluded.links, page_size = excluded.page_size, probed_at = now()
            """,
            account,
            field.value,
            found.method.value,
            found.quoted,
            found.bounded_above,
            found.evidence,
            found.proven,
            found.links,
            found.page_size,
        )


async def parity(database: Database, account: str) -> set[str] | None:
    """Return the members that only answers by id have, as seen within a day; None when nobody looked."""
    async with database.transaction() as connection:
        found = await connection.fetchval(
            "SELECT only_by_id FROM sync.parity WHERE account = $1 AND seen_at > now() - interval '1 day'", account
        )
    return None if found is None else set(found)


async def without_etag(database: Database, account: str, ids: list[str]) -> set[str]:
    """Name those referrals among some that were stored without an entity tag."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            "SELECT id FROM partner_center.referrals WHERE account = $1 AND id = ANY($2::text[]) AND etag IS NULL",
            account,
            ids,
        )
    return {record["id"] for record in found}


async def put_parity(database: Database, account: str, only_by_id: set[str]) -> None:
    """Remember which members only answers by id have."""
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.parity (account, only_by_id) VALUES ($1, $2)
            ON CONFLICT (account) DO UPDATE SET only_by_id = excluded.only_by_id, seen_at = now()
            """,
            account,
            sorted(only_by_id),
        )


async def seen_in_data(database: Database, account: str) -> dict[str, int]:
    """Count what only the copy can tell of the source's habits.

    `silent`: changes that did not move `updatedDateTime`; `gone`: rows that vanished from the listing; and under each
    category of `bi.referrals` its rows.
    """
    async with database.transaction() as connection:
        silent = await connection.fetchval(
            """
            SELECT count(*) FROM partner_center.referral_history
            WHERE account = $1 AND change = 'changed' AND NOT 'updated_at' = ANY(changed_columns)
            """,
            account,
        )
        gone = await connection.fetchval(
            "SELECT count(*) FROM partner_center.referrals WHERE account = $1 AND deleted_at IS NOT NULL", account
        )
        categories = await connection.fetch(
            "SELECT category, count(*) AS number FROM bi.referrals WHERE account = $1 GROUP BY 1 ORDER BY 1", account
        )
    return {"silent": silent, "gone": gone} | {record["category"]: record["number"] for record in categories}


async def unfinished_backfill(database: Database, account: str, field: TimeField, asked: Window) -> Backfill | None:
    """Return the backfill of exactly this range that was planned and not loaded, with what is left of it."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            """
            SELECT id, newest_updated, from_empty FROM sync.backfills
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
    return Backfill(found["id"], field, found["newest_updated"], pending, len(windows), found["from_empty"])


async def claim_window(database: Database, run: Run, backfill: Backfill) -> LedgerWindow | None:
    """Take the newest window that nobody reads, until the run ends or loses its lease; None where there is none.

    The backfill's row is locked first, so that two who look at the same moment do not take the same one.
    """
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute("SELECT FROM sync.backfills WHERE id = $1 FOR UPDATE", backfill.id)
        found = await connection.fetchrow(
            f"""
            UPDATE sync.backfill_windows SET run_id = $2
            WHERE id = (SELECT w.id {_FREE_WINDOWS} ORDER BY w.id DESC LIMIT 1)
            RETURNING id, lower, upper, through
            """,  # noqa: S608 - a constant
            backfill.id,
            run.id,
        )
    if found is None:
        return None
    whole = Window(backfill.field, found["lower"], found["upper"])
    return LedgerWindow(found["id"], whole.above(found["through"]))


async def release_windows(database: Database, run: Run) -> None:
    """Let go of the windows that the run has begun and not read to their end."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute(
            "UPDATE sync.backfill_windows SET run_id = NULL WHERE run_id = $1 AND done_at IS NULL", run.id
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
    """Return how far the account's newest backfill is that is not loaded; None where there is none."""
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
    database: Database,
    run: Run,
    asked: Window,
    windows: list[Window],
    newest_updated: Instant | None,
    *,
    from_empty: bool = False,
) -> Backfill:
    """Write down a backfill and its windows; returns it as still to do."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        backfill_id = await connection.fetchval(
            """
            INSERT INTO sync.backfills (account, field, lower, upper, newest_updated, from_empty)
            VALUES ($1, $2, $3, $4, $5, $6)
            RETURNING id
            """,
            run.account,
            asked.field.value,
            asked.lower,
            asked.upper,
            newest_updated,
            from_empty,
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
    return Backfill(backfill_id, asked.field, newest_updated, pending, len(windows), from_empty)


async def backfill_loaded(database: Database, run: Run, backfill: Backfill, *, sets_watermark: bool) -> bool:
    """Declare a backfill loaded if every window is, and give an account without one its first watermark.

    That is the newest `updatedDateTime` which the source showed when the *first* backfill was planned that this one
    did not have to repeat: what was edited since is above it. Returns whether it is loaded; it is derived from the
    windows, never from having finished.
    """
    async with database.transaction() as connection:
        await leases.check(connection, run)
        loaded = await connection.fetchval(
            """
            UPDATE sync.backfills b SET loaded_at = now()
            WHERE id = $1 AND NOT EXISTS (
                SELECT FROM sync.backfill_windows w WHERE w.backfill_id = b.id AND w.done_at IS NULL
            ) RETURNING true
            """,
            backfill.id,
        )
        if loaded and sets_watermark:
            await connection.execute(
                """
                INSERT INTO sync.watermarks (account, position)
                SELECT $1, min(coalesce(b.newest_updated, w.through, 0))
                FROM sync.backfills b LEFT JOIN LATERAL (
                    SELECT max(through) AS through FROM sync.backfill_windows
                    WHERE backfill_id = b.id AND b.field = 'updatedDateTime'
                ) w ON true
                WHERE b.account = $1
                ON CONFLICT (account) DO NOTHING
                """,
                run.account,
            )
    return bool(loaded)


async def forget_backfills(database: Database, run: Run) -> None:
    """Drop the account's backfill ledger, so that the next one reads everything again."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute("DELETE FROM sync.backfills WHERE account = $1", run.account)


async def listed_here(database: Database, account: str, window: Window, before: datetime) -> set[str]:
    """Return ids of rows whose time lies in the window, not marked gone, and stored before a moment.

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
    """Count the rows that are not marked gone."""
    async with database.transaction() as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM partner_center.referrals WHERE account = $1 AND deleted_at IS NULL", account
        )
    return count


async def put_verified(database: Database, run: Run, through: Instant | None, how: str) -> None:
    """Record that a complete listing agreed with the copy about everything updated before `through`, and how so."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute(
            """
            UPDATE sync.watermarks SET verified_through = $2, verified_at = now(), verified_by = $3, not_verified = NULL
            WHERE account = $1
            """,
            run.account,
            through,
            how,
        )


async def put_unverified(database: Database, run: Run, why: str) -> None:
    """Record why the last reconcile could verify nothing; what was verified before keeps its date."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await connection.execute("UPDATE sync.watermarks SET not_verified = $2 WHERE account = $1", run.account, why)


async def put_setting(database: Database, name: str, value: str) -> bool:
    """Hand a setting to views and writers; writes only what differs, and returns whether it did.

    It waits for the writers of this moment, and those that come see it.
    """
    async with database.transaction() as connection:
        await connection.execute(f"SELECT pg_advisory_xact_lock({leases.RULES_LOCK})")
        status = await connection.execute(
            """
            INSERT INTO sync.settings AS s (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value
            """,
            name,
            value,
        )
    return status == "INSERT 0 1"


async def setting(database: Database, name: str) -> str | None:
    """Return what was handed over."""
    async with database.transaction() as connection:
        value: str | None = await connection.fetchval("SELECT value FROM sync.settings WHERE name = $1", name)
    return value


async def readers_missing(database: Database) -> bool:
    """Tell whether the roles that read `bi` still have to be made by someone with the right."""
    async with database.transaction() as connection:
        present: int = await connection.fetchval(
            """
            SELECT count(*) FROM pg_roles
            WHERE rolname IN ('bi_reader', 'bi_reader_pii') AND has_table_privilege(rolname, 'bi.runs', 'SELECT')
            """
        )
    return present < 2  # noqa: PLR2004 - both


async def delete_closed_rejects(database: Database, older_than: str, batch: int = 1_000) -> int:
    """Delete one batch of rejects that were closed longer ago than an interval of PostgreSQL; returns how many went."""
    async with database.transaction() as connection:
        status = await connection.execute(
            """
            DELETE FROM sync.rejected_records WHERE (account, key) IN (
                SELECT account, key FROM sync.rejected_records WHERE closed_at < now() - $1::text::interval LIMIT $2
            )
            """,
            older_than,
            batch,
        )
    return int(status.rpartition(" ")[2])


async def reachable(database: Database) -> None:
    """Raise StoreError unless the database answers, was migrated, and can be written to."""
    async with database.transaction() as connection:
        await connection.fetchval("SELECT version_num FROM sync.alembic_version FOR KEY SHARE")


async def delete_old_runs(database: Database, older_than: str, unchanged: str, batch: int = 1_000) -> int:
    """Delete one batch of finished runs older than an interval of PostgreSQL; returns how many went.

    `unchanged` is the interval for incremental syncs that went well and changed nothing. The runs that an account's
    status speaks of stay.
    """
    async with database.transaction() as connection:
        status = await connection.execute(
            """
            DELETE FROM sync.runs WHERE id IN (
                SELECT id FROM sync.runs r
                WHERE outcome <> 'running' AND finished_at < now() - least($1::text::interval, $2::text::interval)
                    AND (
                        finished_at < now() - $1::text::interval
                        OR (kind = 'incremental' AND outcome = 'done' AND inserted + updated + rejected = 0)
                    )
                    AND NOT EXISTS (
                        SELECT FROM sync.summaries s
                        WHERE s.account = r.account AND r.id IN (s.finished_run, s.good_run, s.reconcile_run)
                    )
                ORDER BY finished_at LIMIT $3
            )
            """,
            older_than,
            unchanged,
            batch,
        )
    return int(status.rpartition(" ")[2])


async def accounts(database: Database) -> set[str]:
    """Name the accounts that the books know, without counting their rows."""
    async with database.transaction() as connection:
        return {row["account"] for row in await connection.fetch("SELECT account FROM sync.status")}


async def status(database: Database, accounts: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of `sync.status`, and one that says "never ran" for each account without any."""
    async with database.transaction() as connection:
        rows = {row["account"]: dict(row) for row in await connection.fetch("SELECT * FROM sync.status")}
        names = [
            row["attname"]
            for row in await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'sync.status'::regclass AND attnum > 0"
            )
        ]
    for account in accounts:
        rows.setdefault(account, dict.fromkeys(names) | {"account": account, "health": "never ran"})
    return [rows[account] for account in sorted(rows)]


async def recent_runs(database: Database, accounts: Sequence[str], limit: int = 60) -> list[dict[str, Any]]:
    """Return the last runs of some accounts as `bi.runs` shows them, the newest first."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            """
            SELECT r.* FROM unnest($1::text[]) a(account)
            CROSS JOIN LATERAL (SELECT * FROM bi.runs b WHERE b.account = a.account ORDER BY b.run DESC LIMIT $2) r
            """,
            list(accounts),
            limit,
        )
    return [dict(row) for row in found]


async def totals(database: Database) -> list[dict[str, Any]]:
    """Return what all runs of each account and kind came to, ever: account, kind, name, value."""
    async with database.transaction() as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM sync.totals ORDER BY account, kind, name")]


async def queue(database: Database) -> list[dict[str, Any]]:
    """Return what waits, what is in hand, and for how long the oldest job has waited, by kind."""
    async with database.transaction() as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM sync.queue ORDER BY kind")]


async def workers(database: Database) -> int:
    """Count the workers that are alive."""
    async with database.transaction() as connection:
        number: int = await connection.fetchval(
            "SELECT count(*) FROM sync.workers WHERE seen_at > now() - interval '30 seconds'"
        )
    return number


async def held_leases(database: Database) -> list[dict[str, Any]]:
    """Return who holds what at this moment: account, kind, owner."""
    async with database.transaction() as connection:
        found = await connection.fetch("SELECT account, kind, owner FROM sync.leases WHERE expires_at > now()")
    return [dict(row) for row in found]
