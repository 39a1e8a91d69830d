"""The outbox: which channel gets which event, in which message, and what came of each attempt to send it.

Everything is a transaction of its own that can be cut off and begun again. A message is claimed before it is sent: an
attempt that ends without a word is one, so a kill costs at most one repeat, and never a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from worker.config.cron import cron_trigger
from worker.config.models import Channel, Settings
from worker.errors import LeaseError
from worker.notify import queries
from worker.notify.routing import covers, wants
from worker.store.leases import LEASE_SECONDS

BURST = 10
"""More messages to a channel than these within `BURST_MINUTES` become one."""

BURST_MINUTES = 10
GIVE_UP = timedelta(days=1)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=15)
"""The first is longer than opening a channel and sending take: while one attempt lasts nobody begins another."""

ROUTED_AT_ONCE = 2_000

_UNROUTED = """
UPDATE sync.events SET routed_at = now() WHERE id IN (
    SELECT id FROM sync.events WHERE routed_at IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING id
"""
_WORK = """
SELECT EXISTS (SELECT FROM sync.deliveries WHERE channel = $1 AND message_id IS NULL AND NOT $3)
    OR EXISTS (SELECT FROM sync.messages WHERE channel = $1 AND state = 'waiting' AND next_at <= now())
    OR EXISTS (
        SELECT FROM sync.watermarks w WHERE w.account = ANY($2::text[]) AND NOT EXISTS (
            SELECT FROM sync.introductions i WHERE i.channel = $1 AND i.account = w.account
        )
    )
"""
_CLAIM = """
UPDATE sync.messages SET attempts = attempts + 1, tried_at = now(),
    next_at = now() + least($3::interval, $2::interval * 2 ^ least(attempts, 10))
WHERE id = (
    SELECT id FROM sync.messages WHERE channel = $1 AND state = 'waiting' AND next_at <= now()
    ORDER BY created_at, id LIMIT 1 FOR UPDATE
) RETURNING id, kind, attempts, created_at
"""
_RENEW = """
UPDATE sync.leases SET expires_at = now() + make_interval(secs => $3)
WHERE account = $1 AND kind = 'delivery' AND owner = $2 AND expires_at > now() RETURNING true
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that is about to be sent, and its events."""

    id: UUID
    kind: str
    attempts: int
    events: Sequence[int]


def lease_of(channel: str) -> str:
    """Return what stands for a channel where leases name an account; no account is named so."""
    return f"channel:{channel}"


def channel_of(lease: str) -> str:
    """Return the channel that such a name stands for."""
    return lease.removeprefix("channel:")


def covered(settings: Settings, channel: str) -> list[str]:
    """Name the accounts that a channel covers."""
    return [name for name in sorted(settings.accounts) if covers(settings.notify.channels[channel], name)]


async def route(connection: PoolConnectionProxy, settings: Settings, now: datetime) -> None:
    """Decide for every new event which channels get it; each is decided once."""
    introduced = {
        (row["channel"], row["account"])
        for row in await connection.fetch("SELECT channel, account FROM sync.introductions")
    }
    while ids := [row["id"] for row in await connection.fetch(_UNROUTED, ROUTED_AT_ONCE)]:
        events = await queries.events(connection, ids)
        routed = [
            (event.id, name)
            for name, channel in settings.notify.channels.items()
            for event in events
            if wants(channel, event, introduced=(name, event.account) in introduced, now=now)
        ]
        await connection.execute(
            "INSERT INTO sync.deliveries (event_id, channel) SELECT * FROM unnest($1::bigint[], $2::text[])"
            " ON CONFLICT DO NOTHING",
            [event_id for event_id, _ in routed],
            [name for _, name in routed],
        )


async def has_work(connection: PoolConnectionProxy, settings: Settings, name: str, now: datetime) -> bool:
    """Return whether there is anything to do for a channel; the check writes nothing."""
    channel = settings.notify.channels[name]
    found: bool = await connection.fetchval(_WORK, name, covered(settings, name), channel.digest is not None)
    return found or await _digest_due(connection, name, channel, settings.bi.timezone, now)


async def plan(connection: PoolConnectionProxy, settings: Settings, name: str, now: datetime) -> None:
    """Make messages of what a channel is to be sent: a first summary, a digest, one for each event, or one for many."""
    await connection.execute("INSERT INTO sync.channels (channel) VALUES ($1) ON CONFLICT DO NOTHING", name)
    introduced = await connection.fetch(
        """
        INSERT INTO sync.introductions (channel, account)
        SELECT $1, w.account FROM sync.watermarks w WHERE w.account = ANY($2::text[])
        ON CONFLICT DO NOTHING RETURNING account
        """,
        name,
        covered(settings, name),
    )
    if introduced:
        await _message(connection, name, "summary")
    channel = settings.notify.channels[name]
    if channel.digest is not None:
        if await _digest_due(connection, name, channel, settings.bi.timezone, now):
            await connection.execute("UPDATE sync.channels SET digested_at = $2 WHERE channel = $1", name, now)
            await _assign(connection, name, await _message(connection, name, "digest"))
        return
    waiting = [
        row["event_id"]
        for row in await connection.fetch(
            "SELECT event_id FROM sync.deliveries WHERE channel = $1 AND message_id IS NULL ORDER BY event_id LIMIT $2",
            name,
            BURST + 1,
        )
    ]
    if not waiting:
        return
    recent = await connection.fetch(
        """
        SELECT kind FROM sync.messages
        WHERE channel = $1 AND kind IN ('event', 'many') AND created_at > now() - make_interval(mins => $2)
        """,
        name,
        BURST_MINUTES,
    )
    kinds = [row["kind"] for row in recent]
    if len(waiting) + kinds.count("event") <= BURST:
        for event_id in waiting:
            await _assign(connection, name, await _message(connection, name, "event"), event_id)
    elif "many" not in kinds:
        await _assign(connection, name, await _message(connection, name, "many"))


async def claim(connection: PoolConnectionProxy, name: str, owner: str) -> Claimed | None:
    """Take the next message that is due, and its owner's lease for as long again; None where none is.

    Raises LeaseError when another process has taken the channel over.
    """
    if not await connection.fetchval(_RENEW, lease_of(name), owner, LEASE_SECONDS):
        raise LeaseError(f"Another process took over the channel {name}.", "Nothing is lost: the other one goes on.")
    row = await connection.fetchrow(_CLAIM, name, FIRST_PAUSE, LONGEST_PAUSE)
    if row is None:
        return None
    return Claimed(row["id"], row["kind"], row["attempts"], await events_in(connection, row["id"]))


async def events_in(connection: PoolConnectionProxy, message: UUID) -> list[int]:
    """Return the events of a message."""
    rows = await connection.fetch("SELECT event_id FROM sync.deliveries WHERE message_id = $1", message)
    return [row["event_id"] for row in rows]


async def put_outcome(connection: PoolConnectionProxy, name: str, message: Claimed, error: str | None) -> str:
    """Record what came of an attempt and return the message's state; after a success, others are tried soon."""
    if error is None:
        await _end(connection, message.id, "sent")
        await connection.execute("UPDATE sync.channels SET sent = sent + 1 WHERE channel = $1", name)
        await connection.execute(
            "UPDATE sync.messages SET next_at = now() WHERE channel = $1 AND state = 'waiting' AND next_at > now()"
            " AND tried_at < now() - $2::interval",
            name,
            FIRST_PAUSE,
        )
        return "sent"
    state: str = await connection.fetchval(
        """
        UPDATE sync.messages SET error = $2,
            state = CASE WHEN tried_at > created_at + $3::interval THEN 'given up' ELSE state END,
            ended_at = CASE WHEN tried_at > created_at + $3::interval THEN clock_timestamp() END
        WHERE id = $1 RETURNING state
        """,
        message.id,
        error,
        GIVE_UP,
    )
    await connection.execute(
        "UPDATE sync.channels SET failed = failed + 1, given_up = given_up + $2 WHERE channel = $1",
        name,
        int(state == "given up"),
    )
    return state


async def drop(connection: PoolConnectionProxy, message: UUID) -> None:
    """End a message of which nothing is true any more."""
    await _end(connection, message, "dropped")


async def _digest_due(connection: PoolConnectionProxy, name: str, channel: Channel, zone: str, now: datetime) -> bool:
    if channel.digest is None:
        return False
    last: datetime | None = await connection.fetchval("SELECT digested_at FROM sync.channels WHERE channel = $1", name)
    if last is None:
        return False
    due = cron_trigger(channel.digest.line, zone).get_next_fire_time(None, last + timedelta(seconds=1))
    return bool(due is not None and due.astimezone(UTC) <= now)


async def _message(connection: PoolConnectionProxy, name: str, kind: str) -> UUID:
    made: UUID = await connection.fetchval(
        "INSERT INTO sync.messages (channel, kind) VALUES ($1, $2) RETURNING id", name, kind
    )
    return made


async def _assign(connection: PoolConnectionProxy, name: str, message: UUID, event_id: int | None = None) -> None:
    await connection.execute(
        "UPDATE sync.deliveries SET message_id = $2"
        " WHERE channel = $1 AND message_id IS NULL AND ($3::bigint IS NULL OR event_id = $3)",
        name,
        message,
        event_id,
    )


async def _end(connection: PoolConnectionProxy, message: UUID, how: str) -> None:
    await connection.execute(
        "UPDATE sync.messages SET state = $2, ended_at = clock_timestamp(), error = NULL WHERE id = $1", message, how
    )
