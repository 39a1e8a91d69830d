"""What came of messages: for `status`, metrics and `notify log`; and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.store.database import Database

_STATE = """
SELECT n.channel, coalesce(c.sent, 0) AS sent, coalesce(c.failed, 0) AS failed, coalesce(c.given_up, 0) AS given_up,
    n.channel = ANY($1::text[]) AS configured,
    (SELECT count(*) FROM sync.deliveries d WHERE d.channel = n.channel AND d.message_id IS NULL)
        + (SELECT count(*) FROM sync.messages m JOIN sync.deliveries d ON d.message_id = m.id
            WHERE m.channel = n.channel AND m.state = 'waiting') AS waiting_events,
    waiting.number AS waiting_messages, waiting.oldest_at,
    (SELECT m.error FROM sync.messages m WHERE m.channel = n.channel AND m.state <> 'sent' AND m.error IS NOT NULL
        ORDER BY m.created_at DESC LIMIT 1) AS last_error,
    (SELECT max(m.ended_at) FROM sync.messages m WHERE m.channel = n.channel AND m.state = 'sent') AS last_sent_at,
    (SELECT count(*) FROM sync.messages m WHERE m.channel = n.channel AND m.state = 'given up'
        AND m.ended_at > now() - interval '7 days') AS given_up_lately
FROM (SELECT channel FROM sync.channels UNION SELECT unnest($1::text[])) n(channel)
LEFT JOIN sync.channels c ON c.channel = n.channel
LEFT JOIN LATERAL (
    SELECT count(*) AS number, min(m.created_at) AS oldest_at FROM sync.messages m
    WHERE m.channel = n.channel AND m.state = 'waiting'
) waiting ON true
ORDER BY 1
"""


async def state(database: Database, channels: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each channel what waits, since when, and what came of its messages."""
    async with database.transaction() as connection:
        return [dict(row) for row in await connection.fetch(_STATE, list(channels))]


async def log(database: Database, limit: int) -> list[dict[str, Any]]:
    """Return the last messages, the newest first."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            """
            SELECT m.*, (SELECT count(*) FROM sync.deliveries d WHERE d.message_id = m.id) AS events,
                (SELECT string_agg(DISTINCT e.kind, ', ') FROM sync.deliveries d JOIN sync.events e ON e.id = d.event_id
                    WHERE d.message_id = m.id) AS kinds
            FROM sync.messages m ORDER BY m.created_at DESC LIMIT $1
            """,
            limit,
        )
    return [dict(row) for row in rows]


async def delete_old(database: Database, older_than: str, batch: int = 1_000) -> int:
    """Delete one batch of ended messages and of events that were sent, older than an interval; returns how many went.

    What was decided about a referral stays as long as that awaits an answer, so that it is not decided again.
    """
    async with database.transaction() as connection:
        messages = await connection.execute(
            """
            DELETE FROM sync.messages WHERE id IN (
                SELECT id FROM sync.messages WHERE state <> 'waiting' AND ended_at < now() - $1::text::interval LIMIT $2
            )
            """,
            older_than,
            batch,
        )
        events = await connection.execute(
            """
            DELETE FROM sync.events WHERE id IN (
                SELECT e.id FROM sync.events e WHERE e.recorded_at < now() - $1::text::interval
                AND NOT EXISTS (SELECT FROM sync.deliveries d WHERE d.event_id = e.id)
                AND NOT EXISTS (
                    SELECT FROM partner_center.referrals r WHERE r.account = e.account AND r.id = e.referral_id
                    AND bi.is_awaiting(r.status, r.substatus, r.accepted_at, r.closed_at) AND r.deleted_at IS NULL
                ) LIMIT $2
            )
            """,
            older_than,
            batch,
        )
    return sum(int(status.rpartition(" ")[2]) for status in (messages, events))
