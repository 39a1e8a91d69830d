"""Reading back what is stored of one referral."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.model.schema import CHILDREN, NESTED
from worker.store.database import Database


@dataclass(frozen=True, slots=True)
class History:
    """One referral of one account: its row, how many child rows it has, and its versions, oldest first.

    `row` is None where only history is left. A version has its change, times, changed columns and the run that
    stored it.
    """

    account: str
    row: dict[str, Any] | None = field(repr=False)
    child_rows: dict[str, int]
    versions: list[dict[str, Any]]


async def history(database: Database, account: str, referral_id: str) -> History:
    """Return what the copy has of a referral, and had."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM partner_center.referrals WHERE account = $1 AND id = $2", account, referral_id
        )
        child_rows = {
            child.table: await connection.fetchval(
                f"SELECT count(*) FROM partner_center.{child.table} WHERE referral_key = $1",  # noqa: S608 - a declared name
                row["referral_key"] if row is not None else None,
            )
            for child in (*CHILDREN, *NESTED)
        }
        versions = await connection.fetch(
            """
            SELECT v.valid_from, v.valid_to, v.recorded_at, v.change,
                coalesce(v.changed_columns, '{}') AS changed_columns, v.run_id, r.kind AS run_kind,
                r.started_at AS run_started_at
            FROM partner_center.referral_history v LEFT JOIN sync.runs r ON r.id = v.run_id
            WHERE v.account = $1 AND v.referral_id = $2 ORDER BY v.valid_from
            """,
            account,
            referral_id,
        )
    return History(
        account,
        dict(row) if row is not None else None,
        {table: count for table, count in child_rows.items() if count},
        [dict(version) for version in versions],
    )
