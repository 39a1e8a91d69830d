"""What is let go of when it is old: runs, and rejected records that are resolved."""

from __future__ import annotations

from worker.store.database import Database


async def delete_closed_rejects(database: Database, older_than: str, batch: int = 1_000) -> int:
    """Delete one batch of rejected records resolved longer ago than an interval of PostgreSQL; return how many."""
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
