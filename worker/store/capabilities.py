"""What the API was seen to do for an account: how a field is paged, and what only answers by id have."""

from __future__ import annotations

from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField
from worker.store.database import Database


async def strategy(database: Database, account: str, field: TimeField) -> Strategy | None:
    """Return what was seen of the API within the last day, or the last ten minutes where it was too little."""
    async with database.transaction() as connection:
        found = await connection.fetchrow(
            """
            SELECT paging, quoted, bounded_above, evidence, conclusive, links, page_size FROM sync.capabilities
            WHERE account = $1 AND field = $2
                AND probed_at > now() - CASE WHEN conclusive THEN interval '1 day' ELSE interval '10 minutes' END
            """,
            account,
            field.value,
        )
    if found is None:
        return None
    return Strategy(**{**found, "paging": Paging(found["paging"])})


async def put_strategy(database: Database, account: str, field: TimeField, found: Strategy) -> None:
    """Remember what a probe, or a contradiction, showed."""
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.capabilities
                (account, field, paging, quoted, bounded_above, evidence, conclusive, links, page_size)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (account, field) DO UPDATE SET paging = excluded.paging, quoted = excluded.quoted,
                bounded_above = excluded.bounded_above, evidence = excluded.evidence, conclusive = excluded.conclusive,
                links = excluded.links, page_size = excluded.page_size, probed_at = now()
            """,
            account,
            field.value,
            found.paging.value,
            found.quoted,
            found.bounded_above,
            found.evidence,
            found.conclusive,
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
