"""The outbox of a save: what its changes mean to people, in the transaction that stores them."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg.pool import PoolConnectionProxy

from worker.model.codec import encode
from worker.model.events import events_of
from worker.store.leases import Lease
from worker.store.write import Change

_IS_BACKFILLED = "SELECT EXISTS (SELECT FROM sync.watermarks WHERE account = $1)"
"""Nothing of an account's first backfill is news: its summary covers that."""

_PUT = """
INSERT INTO sync.events (account, referral_id, kind, key, happened_at, found_by, facts)
SELECT $1, d.referral_id, d.kind, d.key, d.happened_at::timestamptz, $2, d.facts::jsonb
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS d(referral_id, kind, key, happened_at, facts)
ON CONFLICT DO NOTHING
"""


async def put(connection: PoolConnectionProxy, lease: Lease, changes: Sequence[Change]) -> None:
    """Write down what the changes of a save mean to people; with them, or not at all."""
    if not changes or not await connection.fetchval(_IS_BACKFILLED, lease.account):
        return
    events = [
        event
        for change in changes
        if change.change == "first" or (change.change is not None and change.before is not None)
        for event in events_of(change.before, change.row)
    ]
    if events:
        await connection.execute(
            _PUT,
            lease.account,
            lease.kind,
            [event.referral_id for event in events],
            [event.kind.value for event in events],
            [event.key for event in events],
            [event.happened_at.isoformat() for event in events],
            [encode(event.facts).decode() for event in events],
        )
