"""What is stored of people follows `[privacy] contacts`: changing it rewrites copy, history and rejected records.

First the new rule is written down, which every write of a run checks and holds, so that nobody stores more from then
on; then everything stored is brought under it, in batches. A rewrite that was cut off goes on with the next run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from asyncpg.pool import PoolConnectionProxy

from worker.errors import StoreError
from worker.model.codec import encode
from worker.model.mapping import Row, map_record
from worker.model.privacy import AfterExpiry, Contacts, Privacy
from worker.model.record import Record, decode_record
from worker.store import sql, view_settings
from worker.store.database import Database
from worker.store.write import copy_children

BATCH = 500

_IN_FORCE, _APPLIED, _KEY = "privacy.contacts", "privacy.applied", "privacy.key"
_log = structlog.get_logger()

Admit = Callable[[Record], Record]


async def rules(database: Database, contacts: str, after_expiry: str) -> Privacy:
    """Return the configured rules, with the key that this database hashes with; changes nothing."""
    return Privacy(Contacts(contacts), AfterExpiry(after_expiry), await view_settings.setting(database, _KEY) or "")


async def enforce(database: Database, privacy: Privacy) -> None:
    """Put the rules in force: nothing is stored against them from then on, and what is stored is brought under them."""
    if await view_settings.setting(database, _APPLIED) != privacy.contacts:
        await view_settings.put_setting(database, _IN_FORCE, privacy.contacts)
        await _rewrite(database, privacy.admit)
        await view_settings.put_setting(database, _APPLIED, privacy.contacts)


async def _rewrite(database: Database, admit: Admit) -> None:
    changed = 0
    for table, keys, rewrite in (
        ("partner_center.referrals", ("account", "id"), _rewrite_rows),
        ("partner_center.referral_versions", ("account", "referral_id", "valid_from"), _rewrite_versions),
        ("sync.rejected_records", ("account", "key"), _rewrite_rejects),
    ):
        order = ", ".join(keys)
        after: tuple[Any, ...] | None = None
        while True:
            async with database.transaction() as connection:
                places = ", ".join(f"${number}" for number in range(1, len(keys) + 1))
                beyond = f"WHERE ({order}) > ({places})" if after is not None else ""
                found = await connection.fetch(
                    f"SELECT * FROM {table} {beyond} ORDER BY {order} LIMIT {BATCH} FOR UPDATE",  # noqa: S608 - constants
                    *(after or ()),
                )
                if not found:
                    break
                changed += await rewrite(connection, found, admit)
                after = tuple(found[-1][name] for name in keys)
        _log.info("privacy_applied", table=table, changed=changed)


async def _rewrite_rows(connection: PoolConnectionProxy, found: list[Any], admit: Admit) -> int:
    """Bring rows and the child rows that name people under the rule; neither a version nor `changed_at` comes of it."""
    changes: dict[str, list[dict[str, Any]]] = {}
    read: dict[str, list[tuple[int, Row]]] = {}
    for one in found:
        payload = _admitted(one["payload"], admit)
        if payload is None:
            continue
        row = map_record(decode_record(payload), one["observed_at"])
        if not isinstance(row, Row):
            raise StoreError(
                f"Referral {one['id']} of {one['account']} cannot be read, so nothing can be taken out of it.",
                "Erase it with `referral-sync forget` and read it again with `referral-sync refresh`.",
            )
        changes.setdefault(one["account"], []).append(
            {name: row.value(name) for name in ("notes", "invite_notes")}
            | {"id": row.id, "payload": msgspec.Raw(payload), "content_hash": str(row.content_hash)}
        )
        read.setdefault(one["account"], []).append((one["referral_key"], row))
    for account, rows in changes.items():
        await connection.execute(sql.REWRITE, account, encode(rows).decode())
        for table in sql.NAMING_PEOPLE:
            await connection.execute(sql.delete_children(table), [key for key, _ in read[account]])
            await copy_children(connection, [table], read[account])
    return sum(len(rows) for rows in changes.values())


async def _rewrite_versions(connection: PoolConnectionProxy, found: list[Any], admit: Admit) -> int:
    changes = [(one, after) for one in found if (after := _admitted(one["payload"], admit)) is not None]
    await connection.executemany(
        "UPDATE partner_center.referral_versions SET payload = $4::jsonb"
        " WHERE account = $1 AND referral_id = $2 AND valid_from = $3",
        [(one["account"], one["referral_id"], one["valid_from"], after.decode()) for one, after in changes],
    )
    return len(changes)


async def _rewrite_rejects(connection: PoolConnectionProxy, found: list[Any], admit: Admit) -> int:
    changes = [(one, after) for one in found if (after := _admitted(one["payload"], admit)) is not None]
    await connection.executemany(
        """
        UPDATE sync.rejected_records SET payload = $3, digest = $4,
            key = CASE WHEN referral_id IS NULL THEN encode($4, 'hex') ELSE key END
        WHERE account = $1 AND key = $2
        """,
        [
            (one["account"], one["key"], after, hashlib.blake2b(after, digest_size=16).digest())
            for one, after in changes
        ],
    )
    return len(changes)


def _admitted(payload: str | bytes | None, admit: Admit) -> bytes | None:
    """Return what the rule leaves of a payload; None where that is all of it."""
    if payload is None:
        return None
    if isinstance(payload, bytes):
        after = admit(decode_record(payload))
        return None if after.raw == payload else after.raw
    before = decode_record(payload.encode())
    after = admit(before)
    return None if after.tree is not None and after.tree == before.tree else after.raw
