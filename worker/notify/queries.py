"""Queries for what messages are made of: referrals, events, what awaits an answer, and how the accounts are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.config.cron import cron_trigger
from worker.config.models import Channel, Settings
from worker.config.values import Cron
from worker.model.events import EventKind
from worker.notify.facts import Deal, Health, Occurrence, Waiting
from worker.notify.messages import SHOWN
from worker.notify.routing import matches

STALE_INTERVALS = 3
"""So many syncs in a row that were not good make a copy stale."""

_LEAST = timedelta(minutes=15)
"""A copy is not called stale before, however short the interval is."""

_DEAL = """
    r.account, r.account_label AS label, r.id, r.engagement_id, r.name, r.customer_name AS customer,
    r.customer_country AS country, r.deal_value AS value, r.currency, r.direction, r.status, r.substatus, r.deal_type,
    r.mpn_id, r.created_at, r.respond_by, r.is_awaiting, r.accepted_at, (
        SELECT coalesce(
            json_agg(json_build_array(concat_ws(' ', t.first_name, t.last_name), t.email) ORDER BY t.position), '[]'
        ) FROM bi.team t WHERE t.account = r.account AND t.referral_id = r.id
    ) AS sellers
"""
_DEALS = f"""
SELECT {_DEAL} FROM unnest($1::text[], $2::text[]) AS d(account, id)
JOIN bi.referrals r ON r.account = d.account AND r.id = d.id
"""  # noqa: S608 - constants
_WAITING = f"""
SELECT {_DEAL} FROM bi.awaiting_response r WHERE r.account = ANY($1::text[]) ORDER BY r.respond_by, r.id
"""  # noqa: S608 - constants
_HEALTH = """
SELECT a.account, coalesce(l.label, a.account) AS label, w.account IS NOT NULL AS is_backfilled,
    good.started_at AS fresh_as_of, w.verified_through_at AS verified_through,
    coalesce(last.id > good.id, last.id IS NOT NULL) AS attempted,
    CASE WHEN token.refused_at IS NOT NULL THEN coalesce(token.refused_because, 'The sign-in was refused.')
        WHEN last.outcome = 'refused' THEN coalesce(last.error, 'The sign-in was refused.') END AS sign_in,
    CASE WHEN checked.outcome = 'refused' THEN coalesce(checked.error, 'The reconcile was refused.') END AS reconcile,
    (SELECT count(*) FROM sync.rejected_records j WHERE j.account = a.account AND j.closed_at IS NULL) AS rejects
FROM unnest($1::text[]) AS a(account)
LEFT JOIN sync.accounts l ON l.account = a.account
LEFT JOIN sync.watermarks w ON w.account = a.account
LEFT JOIN LATERAL (
    SELECT id, started_at FROM sync.runs r
    WHERE r.account = a.account AND r.kind IN ('incremental', 'backfill') AND r.outcome = 'done'
    ORDER BY r.id DESC LIMIT 1
) good ON true
LEFT JOIN LATERAL (
    SELECT id, outcome, error FROM sync.runs r
    WHERE r.account = a.account AND r.kind IN ('incremental', 'backfill') AND r.outcome <> 'running'
    ORDER BY r.id DESC LIMIT 1
) last ON true
LEFT JOIN LATERAL (
    SELECT outcome, error FROM sync.runs r
    WHERE r.account = a.account AND r.kind = 'reconcile' AND r.outcome NOT IN ('running', 'stopped', 'abandoned')
    ORDER BY r.id DESC LIMIT 1
) checked ON true
LEFT JOIN LATERAL (
    SELECT refused_at, refused_because FROM sync.tokens t WHERE t.account = a.account
    ORDER BY (t.sealed IS NULL), t.began_at DESC LIMIT 1
) token ON true
ORDER BY a.account
"""
_EVENTS = """
SELECT e.*, coalesce(l.label, e.account) AS label, CASE
    WHEN e.referral_id <> '' THEN true
    WHEN e.kind = 'recovered' THEN EXISTS (
        SELECT FROM sync.events b JOIN sync.deliveries d ON d.event_id = b.id AND d.channel = $2
        JOIN sync.messages m ON m.id = d.message_id
        WHERE b.account = e.account AND b.referral_id = '' AND b.kind = e.facts ->> 'kind' AND b.key = e.facts ->> 'key'
            AND (m.state = 'sent' OR m.attempts > 0)
    )
    ELSE EXISTS (
        SELECT FROM sync.alarms a WHERE a.account = e.account AND a.kind = e.kind
            AND a.began_at = (e.facts ->> 'began_at')::timestamptz AND a.cause = e.facts ->> 'cause'
    )
END AS holds, (
    SELECT n.recorded_at FROM sync.events n
    WHERE n.account = e.account AND n.referral_id = e.referral_id AND n.kind = 'new' AND e.kind = 'due'
) AS news_at
FROM sync.events e LEFT JOIN sync.accounts l ON l.account = e.account
WHERE e.id = ANY($1::bigint[]) ORDER BY e.id
"""


async def clock(connection: PoolConnectionProxy) -> datetime:
    """Return the database's time."""
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def deals(connection: PoolConnectionProxy, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Deal]:
    """Return the referrals of some (account, id) that the source lists."""
    wanted = sorted({key for key in keys if key[1]})
    if not wanted:
        return {}
    found = await connection.fetch(_DEALS, [account for account, _ in wanted], [key for _, key in wanted])
    return {(row["account"], row["id"]): _deal(row) for row in found}


async def events(connection: PoolConnectionProxy, ids: Collection[int], channel: str = "") -> list[Occurrence]:
    """Return events with their referrals as these are now, and whether they hold for a channel."""
    rows = await connection.fetch(_EVENTS, list(ids), channel)
    known = await deals(connection, [(row["account"], row["referral_id"]) for row in rows])
    return [
        Occurrence(
            id=row["id"],
            account=row["account"],
            label=row["label"],
            kind=EventKind(row["kind"]),
            referral_id=row["referral_id"],
            key=row["key"],
            happened_at=row["happened_at"],
            recorded_at=row["recorded_at"],
            found_by=row["found_by"],
            facts=json.loads(row["facts"]),
            deal=known.get((row["account"], row["referral_id"])),
            holds=row["holds"],
            news_at=row["news_at"],
        )
        for row in rows
    ]


async def waiting(connection: PoolConnectionProxy, channel: Channel, accounts: Sequence[str], now: datetime) -> Waiting:
    """Return what awaits an answer, as far as a channel covers it."""
    number = overdue = 0
    first: list[Deal] = []
    async for row in connection.cursor(_WAITING, list(accounts), prefetch=500):
        deal = _deal(row)
        if matches(channel, deal):
            number += 1
            overdue += deal.respond_by is not None and deal.respond_by <= now
            if len(first) < SHOWN:
                first.append(deal)
    return Waiting(number, overdue, first)


async def health(
    connection: PoolConnectionProxy, settings: Settings, accounts: Sequence[str], now: datetime
) -> list[Health]:
    """Return how some accounts are."""
    found = [Health(**row) for row in await connection.fetch(_HEALTH, list(accounts))]
    unknown = await connection.fetch(
        """
        SELECT account, count(*) AS number FROM bi.referrals
        WHERE account = ANY($1::text[]) AND is_awaiting AND direction = 'Unknown' GROUP BY 1
        """,
        list(accounts),
    )
    numbers = {row["account"]: row["number"] for row in unknown}
    return [
        replace(one, is_fresh=_is_fresh(settings, one.fresh_as_of, now), unknown_direction=numbers.get(one.account, 0))
        for one in found
    ]


def stale_at(settings: Settings, fresh_as_of: datetime) -> datetime:
    """Return from when on a copy is stale that was fresh at a moment."""
    when = settings.schedule.incremental
    if not isinstance(when, Cron):
        return fresh_as_of + max(STALE_INTERVALS * when, _LEAST)
    trigger, due = cron_trigger(when.line, settings.schedule.timezone), fresh_as_of
    for _ in range(STALE_INTERVALS):
        due = trigger.get_next_fire_time(None, due + timedelta(seconds=1)).astimezone(UTC)
    return due + _LEAST


def _is_fresh(settings: Settings, fresh_as_of: datetime | None, now: datetime) -> bool:
    return fresh_as_of is not None and now < stale_at(settings, fresh_as_of)


def _deal(row: asyncpg.Record) -> Deal:
    known: dict[str, Any] = dict(row)
    sellers = tuple((name or "", email or "") for name, email in json.loads(known.pop("sellers")))
    return Deal(**known, sellers=sellers)
