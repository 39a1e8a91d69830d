"""Delivery: what the daemon calls every few seconds, and what `notify test` and `notify preview` do."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import structlog
from asyncpg.pool import PoolConnectionProxy

from worker.config.models import Settings
from worker.errors import LeaseError
from worker.notify import deadlines, messages, outbox, queries
from worker.notify.channel import ChannelError, OpenChannel, open_channel
from worker.notify.messages import Frame, MessagePage
from worker.notify.outbox import Claimed
from worker.notify.routing import still_true
from worker.store import leases
from worker.store.database import Database

AT_ONCE = 20
"""Messages to a channel in one pass; the next one goes on."""

_log = structlog.get_logger()


async def deliver_due(
    database: Database, settings: Settings, channel: str | None = None, *, up_since: datetime | None = None
) -> int:
    """Decide what has to be sent and send what is due, to one channel or to each; returns how many messages were sent.

    Safe to call at any time and from any process: who holds a channel's lease works on it, the others find nothing to
    do. `up_since` is when the caller's process began, so that it does not call a copy stale that it has yet to look at.
    A channel that fails is no failure of this; raises StoreError when the database is unreachable.
    """
    names = list(settings.notify.channels) if channel is None else [channel]
    await _decide(database, settings, up_since)
    sent = await asyncio.gather(*(_deliver(database, settings, name) for name in names), return_exceptions=True)
    for one in sent:
        if isinstance(one, BaseException):
            raise one
    return sum(one for one in sent if isinstance(one, int))


async def preview(database: Database, settings: Settings, name: str) -> list[MessagePage]:
    """Return what would be sent to a channel now; what is decided for that is rolled back."""
    async with database.transaction() as connection:
        planned = connection.transaction()
        await planned.start()
        now = await _decide_in(connection, settings, None)
        await outbox.plan(connection, settings, name, now)
        rows = await connection.fetch(
            "SELECT id, kind FROM sync.messages WHERE channel = $1 AND state = 'waiting' ORDER BY created_at, id", name
        )
        claimed = [Claimed(row["id"], row["kind"], 1, await outbox.events_in(connection, row["id"])) for row in rows]
        pages = [await _compose(connection, settings, name, one) for one in claimed]
        await planned.rollback()
    return [page for page in pages if page is not None]


async def digest_now(database: Database, settings: Settings, name: str) -> MessagePage:
    """Return the digest of a channel as it would be now, without anything that happened since."""
    async with database.transaction() as connection:
        page = await _compose(connection, settings, name, Claimed(UUID(int=0), "digest", 1, []))
    if page is None:
        raise AssertionError("unreachable")
    return page


async def test(settings: Settings, name: str) -> str:
    """Send one message to a channel and return the name of its service; raises ChannelError when it did not arrive."""
    async with open_channel(name, settings.notify.channels[name].url.get_secret_value()) as opened:
        await opened.send(messages.test(name), f"test-{uuid4()}")
        return opened.service


async def look(settings: Settings, name: str) -> str:
    """Return the name of a channel's service without sending anything; raises ChannelError where its URL is wrong."""
    async with open_channel(name, settings.notify.channels[name].url.get_secret_value()) as opened:
        return opened.service


async def _decide(database: Database, settings: Settings, up_since: datetime | None) -> None:
    async with database.transaction() as connection:
        await _decide_in(connection, settings, up_since)


async def _decide_in(connection: PoolConnectionProxy, settings: Settings, up_since: datetime | None) -> datetime:
    now = await queries.clock(connection)
    accounts = await queries.health(connection, settings, sorted(settings.accounts), now)
    await deadlines.decide(connection, settings, accounts, now, up_since)
    await outbox.route(connection, settings, now)
    return now


async def _deliver(database: Database, settings: Settings, name: str) -> int:
    async with database.transaction() as connection:
        if not await outbox.has_work(connection, settings, name, await queries.clock(connection)):
            return 0
    try:
        async with leases.short_lease(database, outbox.lease_of(name), "delivery", wait_seconds=0):
            async with database.transaction() as connection:
                await outbox.plan(connection, settings, name, await queries.clock(connection))
            return await _send_due(database, settings, name)
    except LeaseError:
        return 0


async def _send_due(database: Database, settings: Settings, name: str) -> int:
    """Send until nothing is due, or the channel fails; the lease is taken anew with each message."""
    sent = 0
    opened: OpenChannel | None = None
    url = settings.notify.channels[name].url.get_secret_value()
    opening = open_channel(name, url)
    try:
        while sent < AT_ONCE:
            async with database.transaction() as connection:
                message = await outbox.claim(connection, name, database.owner)
            if message is None:
                break
            async with database.transaction() as connection:
                page = await _compose(connection, settings, name, message)
                if page is None:
                    await outbox.drop(connection, message.id)
                    continue
            error = None
            try:
                if opened is None:
                    opened = await opening.__aenter__()
                await opened.send(page, str(message.id))
            except ChannelError as failure:
                error = str(failure)
            async with database.transaction() as connection:
                state = await outbox.put_outcome(connection, name, message, error)
            if error is not None:
                event = "message_given_up" if state == "given up" else "message_failed"
                _log.warning(event, channel=name, message=str(message.id), attempts=message.attempts, error=error)
                break
            _log.info(
                "message_sent",
                channel=name,
                message=str(message.id),
                message_kind=message.kind,
                events=len(message.events),
            )
            sent += 1
    finally:
        if opened is not None:
            await opening.__aexit__(None, None, None)
    return sent


async def _compose(
    connection: PoolConnectionProxy, settings: Settings, name: str, message: Claimed
) -> MessagePage | None:
    """Write a message as things are now; None where nothing of it is true any more."""
    now, channel = await queries.clock(connection), settings.notify.channels[name]
    events = still_true(await queries.events(connection, message.events, name), now)
    concerned = outbox.covered(settings, name)
    if message.kind in ("event", "many"):
        if not events:
            return None
        concerned = sorted({event.account for event in events})
    accounts = await queries.health(connection, settings, concerned, now)
    frame = Frame(now, ZoneInfo(settings.bi.timezone), settings.notify.link, accounts)
    last = [] if message.id.int == 0 else [f"Message {str(message.id)[:8]}."]
    if message.kind == "event":
        return messages.single(events[0], frame, last)
    if message.kind == "many":
        return messages.digest(f"Referrals: {len(events):,} changes", None, events, frame, last)
    waiting = await queries.waiting(connection, channel, concerned, now)
    if message.kind == "summary":
        last.insert(0, "What changes from now on is reported here.")
    return messages.digest(messages.awaiting_title(waiting, frame), waiting, events, frame, last)
