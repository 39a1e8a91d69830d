"""Erasing: one referral everywhere, or everything of an account."""

from __future__ import annotations

from worker.store.database import Database
from worker.store.spelling import stored_ids
from worker.store.stages import LOCK_STAGES

BATCH = 1_000
"""Rows that one transaction deletes, so that nobody waits long for their locks."""


async def forget(database: Database, account: str, referral_id: str) -> int:
    """Erase a referral: its row, child rows, history, rejected records, events; returns how many rows went.

    The id counts whatever its case. A rejected record whose id could not be read goes by the key that `rejects` shows.
    """
    ids = await stored_ids(database, account, referral_id)
    async with database.transaction() as connection:
        counts = [
            await connection.execute(
                "DELETE FROM sync.rejected_records WHERE account = $1 AND referral_id IS NULL AND key = lower($2)",
                account,
                referral_id,
            )
        ]
        counts += [
            await connection.execute(statement, account, ids)
            for statement in (
                "DELETE FROM partner_center.referrals WHERE account = $1 AND id = ANY($2::text[])",
                "DELETE FROM partner_center.referral_versions WHERE account = $1 AND referral_id = ANY($2::text[])",
                "DELETE FROM sync.rejected_records WHERE account = $1 AND referral_id = ANY($2::text[])",
                "DELETE FROM sync.events WHERE account = $1 AND referral_id = ANY($2::text[])",
            )
        ]
    return sum(int(status.rpartition(" ")[2]) for status in counts)


async def remove_account(database: Database, account: str) -> int:
    """Erase all of an account that no process works on, in batches; returns how many referrals and versions went."""
    removed = 0
    for table, key in (("referrals", "id"), ("referral_versions", "ctid")):
        while True:
            async with database.transaction() as connection:
                status = await connection.execute(
                    f"""
                    DELETE FROM partner_center.{table} WHERE account = $1 AND {key} IN (
                        SELECT {key} FROM partner_center.{table} WHERE account = $1 LIMIT {BATCH}
                    )
                    """,  # noqa: S608 - constants
                    account,
                )
            deleted = int(status.rpartition(" ")[2])
            removed += deleted
            if deleted == 0:
                break
    async with database.transaction() as connection:
        await connection.execute(LOCK_STAGES)
        for table in (
            "stages",
            "estimated_stages",
            "rejected_records",
            "backfills",
            "capabilities",
            "schedules",
            "summaries",
            "daily_lag",
            "parity",
            "watermarks",
            "runs",
            "tokens",
            "totals",
            "leases",
            "accounts",
            "events",
            "introductions",
            "alarms",
        ):
            await connection.execute(f"DELETE FROM sync.{table} WHERE account = $1", account)  # noqa: S608 - constants
    return removed
