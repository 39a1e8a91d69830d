"""Settings that are handed to the views of the database."""

from __future__ import annotations

from collections.abc import Mapping

from worker.store import leases
from worker.store.database import Database


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


async def put_labels(database: Database, labels: Mapping[str, str]) -> None:
    """Hand the names that people see of accounts to the views; other accounts on this database keep theirs."""
    async with database.transaction() as connection:
        await connection.executemany(
            """
            INSERT INTO sync.accounts AS a (account, label) VALUES ($1, $2)
            ON CONFLICT (account) DO UPDATE SET label = excluded.label WHERE a.label <> excluded.label
            """,
            sorted(labels.items()),
        )


async def setting(database: Database, name: str) -> str | None:
    """Return what was handed over."""
    async with database.transaction() as connection:
        value: str | None = await connection.fetchval("SELECT value FROM sync.settings WHERE name = $1", name)
    return value
