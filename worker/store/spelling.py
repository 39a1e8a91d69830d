"""Ids as people give them: a GUID is the same whatever its case, with braces or without."""

from __future__ import annotations

import re

from worker.model.mapping import MAX_ID_LENGTH
from worker.store.database import Database

_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


def plain_id(given: str) -> str:
    """Return an id without the spaces and braces around it; raises ValueError where it cannot be one."""
    found = given.strip().removeprefix("{").removesuffix("}").strip()
    if not found or len(found) > MAX_ID_LENGTH or not found.isprintable():
        raise ValueError("an id of a referral is needed, such as 0f8fad5b-d9cb-469f-a165-70867728950e")
    return found


def is_guid(referral_id: str) -> bool:
    """Return whether an id looks as the API's do."""
    return _GUID.fullmatch(referral_id) is not None


async def stored_ids(database: Database, account: str, referral_id: str) -> list[str]:
    """Return the spellings under which an account's copy, history or rejected records hold an id."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            """
            SELECT id FROM partner_center.referrals WHERE account = $1 AND lower(id) = lower($2)
            UNION SELECT referral_id FROM partner_center.referral_versions
                WHERE account = $1 AND lower(referral_id) = lower($2)
            UNION SELECT referral_id FROM sync.rejected_records WHERE account = $1 AND lower(referral_id) = lower($2)
            """,
            account,
            referral_id,
        )
    return [record["id"] for record in found]
