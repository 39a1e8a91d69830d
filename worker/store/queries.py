"""What is read for people and machines to look at: status, runs, totals, the queue, what awaits an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from worker.store.database import Database
from worker.store.schedules import ALIVE


async def seen_in_data(database: Database, account: str) -> dict[str, int]:
    """Count what only the copy can tell of the source's behavior.

    `silent`: changes that did not move `updatedDateTime`; `deleted`: rows deleted at the source; and under each
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
        deleted = await connection.fetchval(
            "SELECT count(*) FROM partner_center.referrals WHERE account = $1 AND deleted_at IS NOT NULL", account
        )
        categories = await connection.fetch(
            "SELECT category, count(*) AS number FROM bi.referrals WHERE account = $1 GROUP BY 1 ORDER BY 1", account
        )
    return {"silent": silent, "deleted": deleted} | {record["category"]: record["number"] for record in categories}


async def readers_missing(database: Database) -> bool:
    """Return whether the roles that read `bi` still have to be made by someone with the right."""
    async with database.transaction() as connection:
        present: int = await connection.fetchval(
            """
            SELECT count(*) FROM pg_roles
            WHERE rolname IN ('bi_reader', 'bi_reader_pii') AND has_table_privilege(rolname, 'bi.runs', 'SELECT')
            """
        )
    return present < 2  # noqa: PLR2004 - both


async def reachable(database: Database) -> None:
    """Raise StoreError unless the database answers, was migrated, and can be written to."""
    async with database.transaction() as connection:
        await connection.fetchval("SELECT version_num FROM sync.alembic_version FOR KEY SHARE")


async def accounts(database: Database) -> set[str]:
    """Name the accounts that the database knows, without counting their rows."""
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
        labels = {row["account"]: row["label"] for row in await connection.fetch("SELECT * FROM sync.accounts")}
    for account in accounts:
        rows.setdefault(account, dict.fromkeys(names) | {"account": account, "health": "never ran"})
    for account, row in rows.items():
        row["account_label"] = labels.get(account, account)
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
            f"SELECT count(*) FROM sync.workers WHERE {ALIVE}"  # noqa: S608 - a constant
        )
    return number


async def live_leases(database: Database) -> list[dict[str, Any]]:
    """Return who holds what at this moment: account, kind, owner."""
    async with database.transaction() as connection:
        found = await connection.fetch("SELECT account, kind, owner FROM sync.leases WHERE expires_at > now()")
    return [dict(row) for row in found]


async def awaiting(database: Database) -> list[dict[str, Any]]:
    """Return for each account what may need attention.

    `awaiting`, `overdue` and `next_at`: referrals that await an answer, and the next deadline; `unknown_fields`:
    members of the API that no document names, in 30 days.
    """
    async with database.transaction() as connection:
        found = await connection.fetch(
            """
            SELECT s.account, count(a.id) AS awaiting, count(a.id) FILTER (WHERE a.is_overdue) AS overdue,
                min(a.respond_by) FILTER (WHERE NOT a.is_overdue) AS next_at, (
                    SELECT count(DISTINCT field) FROM sync.runs u CROSS JOIN LATERAL unnest(u.unknown_fields) AS field
                    WHERE u.account = s.account AND u.started_at > now() - interval '30 days'
                        AND u.unknown_fields <> '{}'
                ) AS unknown_fields
            FROM sync.watermarks s LEFT JOIN bi.awaiting_response a ON a.account = s.account GROUP BY 1 ORDER BY 1
            """
        )
    return [dict(row) for row in found]
