"""A few named questions about the copy, asked as `bi_reader`: no free SQL, no personal data, no write.

Each answer is one read-only snapshot with the freshness of what it was read from, and a limit on time and rows.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.errors import StoreError, SyncError
from worker.store.database import Database

ROLE = "bi_reader"
SECONDS = 20
"""How long a statement may take."""

MOST_ROWS = 200

_AWAITING = """
SELECT account, id, name, customer_name, customer_country, category, deal_type, respond_by, days_left, is_overdue,
    deal_value, currency
FROM bi.awaiting_response WHERE NOT is_spam AND ($1::text IS NULL OR account = $1)
"""
_PIPELINE = """
SELECT day, direction, category, status, currency, sum(deals)::bigint AS deals, sum(deal_value) AS deal_value,
    coalesce(sum(deals) FILTER (WHERE is_estimated), 0)::bigint AS estimated_deals
FROM bi.pipeline_daily WHERE NOT is_spam AND ($1::text IS NULL OR account = $1) AND day = $2
GROUP BY day, direction, category, status, currency
"""
_CHANGES = """
SELECT account, id, name, created_at AS changed_at, 'new' AS change, NULL AS old_value,
    concat_ws(' ', status, substatus) AS new_value
FROM bi.referrals WHERE created_at > $2 AND NOT is_spam AND ($1::text IS NULL OR account = $1)
UNION ALL
SELECT c.account, c.id, coalesce(r.name, d.name), c.changed_at,
    CASE c.change WHEN 'changed' THEN 'status' ELSE c.change END,
    concat_ws(' ', c.from_status, c.from_substatus), concat_ws(' ', c.to_status, c.to_substatus)
FROM bi.status_changes c
LEFT JOIN bi.referrals r USING (account, id)
LEFT JOIN bi.deleted d USING (account, id)
WHERE c.changed_at > $2 AND c.change <> 'first' AND r.is_spam IS NOT TRUE AND ($1::text IS NULL OR c.account = $1)
UNION ALL
SELECT v.account, v.referral_id, v.name, v.changed_at, 'value',
    concat_ws(' ', v.old_value, v.old_currency), concat_ws(' ', v.new_value, v.currency)
FROM bi.value_changes v
LEFT JOIN bi.referrals r ON r.account = v.account AND r.id = v.referral_id
WHERE v.changed_at > $2 AND r.is_spam IS NOT TRUE AND ($1::text IS NULL OR v.account = $1)
"""
_STAGES = """
SELECT account, step, status, substatus, entered_at, left_at, days, is_estimated
FROM bi.stage_durations WHERE id = ANY ($1)
"""
_COLUMNS = """
SELECT account, changed_at, change, column_name, old_value, new_value FROM bi.changes WHERE referral_id = ANY ($1)
"""
_ONE = {
    "referral": ("SELECT * FROM bi.referrals WHERE id = ANY ($1)", "account"),
    "deleted": ("SELECT * FROM bi.deleted WHERE id = ANY ($1)", "account"),
    "stages": (_STAGES, "account, step"),
    "changes": (_COLUMNS, "changed_at DESC, account, column_name"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of an answer, and how many there are in all: more than `rows` where the limit cut them."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Parts by name, and the freshness of each account that was asked about, as rows of `bi.freshness`."""

    parts: dict[str, Part]
    freshness: list[dict[str, Any]]


async def freshness(database: Database) -> Answer:
    """Return how old and how complete the copy of each account is."""
    async with _asked(database, None) as (_, fresh):
        return Answer({}, fresh)


async def awaiting(database: Database, account: str | None, limit: int) -> Answer:
    """Return which referrals await our answer, the most urgent first."""
    async with _asked(database, account) as (connection, fresh):
        part = await _part(connection, _AWAITING, "respond_by, account, id", limit, account)
    return Answer({"awaiting": part}, fresh)


async def pipeline(database: Database, account: str | None, day: date | None) -> Answer:
    """Return what was open at the end of a day, today if none is given."""
    async with _asked(database, account) as (connection, fresh):
        today = await connection.fetchval("SELECT (now() AT TIME ZONE timezone)::date FROM bi.settings")
        if day is not None and day > today:
            raise SyncError(f"{day} is in the future.", f"Ask for a day until {today}.")
        order = "direction, category, status, currency"
        part = await _part(connection, _PIPELINE, order, MOST_ROWS, account, day or today)
    return Answer({"pipeline": part}, fresh)


async def changes(database: Database, account: str | None, since: datetime, limit: int) -> Answer:
    """Return which deals are new, moved, changed their value or were deleted since a moment, the newest first."""
    async with _asked(database, account) as (connection, fresh):
        part = await _part(connection, _CHANGES, "changed_at DESC, account, id", limit, account, since)
    return Answer({"changes": part}, fresh)


async def one_referral(database: Database, referral_id: str) -> Answer:
    """Return what `bi` has of one referral: its present row, its stages and its changes."""
    spellings = [referral_id, referral_id.lower(), referral_id.upper()]
    async with _asked(database, None) as (connection, fresh):
        parts = {
            name: await _part(connection, query, order, MOST_ROWS, spellings) for name, (query, order) in _ONE.items()
        }
    accounts = {row["account"] for part in parts.values() for row in part.rows}
    if not accounts:
        raise SyncError(
            f"The copy holds no referral {shown(referral_id)}.",
            "Take the id from another answer; a referral that is new at the source arrives with the next sync.",
        )
    return Answer(parts, [row for row in fresh if row["account"] in accounts])


@asynccontextmanager
async def _asked(
    database: Database, account: str | None
) -> AsyncIterator[tuple[PoolConnectionProxy, list[dict[str, Any]]]]:
    """Give a connection in a read-only snapshot with the rights of a dashboard, and the freshness of that snapshot."""
    try:
        async with database.transaction(seconds=3 * SECONDS) as connection:
            await connection.execute(
                f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '{SECONDS}s'"
            )
            who = await connection.fetchval("SELECT session_user")
            made = await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", ROLE)
            try:
                await connection.execute(f"SET LOCAL ROLE {ROLE}")
            except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError):
                raise StoreError(
                    f"The database role {who} may not act as {ROLE}.",
                    f"Run `GRANT {ROLE} TO {who}` in the database." if made else "Run `referral-sync migrate`.",
                ) from None
            rows = [dict(row) for row in await connection.fetch("SELECT * FROM bi.freshness ORDER BY account")]
            if account is not None and account not in {row["account"] for row in rows}:
                known = ", ".join(row["account"] for row in rows) or "none"
                raise SyncError(f"The copy holds no account {shown(account)}.", f"It has: {known}.")
            yield connection, [row for row in rows if account in (None, row["account"])]
    except StoreError as error:
        if isinstance(error.__cause__, asyncpg.QueryCanceledError):
            raise StoreError(
                f"The question took longer than {SECONDS} seconds and was ended.",
                "Ask about one account, or about a shorter time.",
            ) from None
        raise


async def _part(connection: PoolConnectionProxy, query: str, order: str, limit: int, *arguments: object) -> Part:
    """Fetch up to a limit, and count the rest."""
    rows: Sequence[asyncpg.Record] = await connection.fetch(
        f"SELECT q.*, count(*) OVER () AS total_rows FROM ({query}) q ORDER BY {order} LIMIT {limit:d}",  # noqa: S608 - queries of this module
        *arguments,
    )
    total = rows[0]["total_rows"] if rows else 0
    return Part([{name: value for name, value in row.items() if name != "total_rows"} for row in rows], total)


def shown(text: str) -> str:
    """Return a text that an error may repeat: short, and nothing but signs of an id or of a time."""
    return re.sub(r"[^\w.:+-]", "?", text[:60])
