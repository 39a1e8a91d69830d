"""What time alone makes happen: a deadline comes near or passes, an account goes wrong or is well again.

Each is decided once: an event has a unique key of its threshold, and an alarm stands as long as what it tells of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from asyncpg.pool import PoolConnectionProxy

from worker.config.models import Settings
from worker.config.values import Cron
from worker.model.events import EventKind
from worker.notify.facts import Health
from worker.notify.queries import stale_at

GRACE = timedelta(minutes=10)
"""After a start, a copy that nobody tried to bring up to date is given as long, or one interval if that is shorter."""

_DEADLINES = """
INSERT INTO sync.events (account, referral_id, kind, key, happened_at)
SELECT r.account, r.id, d.kind, d.key, r.respond_by
FROM (
    SELECT a.account, a.id, a.respond_by, a.respond_by AT TIME ZONE z.timezone AS local,
        (a.respond_by AT TIME ZONE z.timezone)::date AS day, z.timezone
    FROM bi.awaiting_response a CROSS JOIN bi.settings z
    WHERE a.account = ANY($1::text[]) AND a.respond_by IS NOT NULL
        AND EXISTS (SELECT FROM sync.watermarks w WHERE w.account = a.account)
) r
CROSS JOIN LATERAL (
    SELECT 'overdue' AS kind, r.day::text AS key WHERE r.respond_by <= $3
    UNION ALL
    SELECT 'due', min(days)::text || '@' || r.day FROM unnest($2::integer[]) AS days
    WHERE r.respond_by > $3 AND (r.local - make_interval(days => days)) AT TIME ZONE r.timezone <= $3
    HAVING min(days) IS NOT NULL
) d
WHERE NOT EXISTS (
    SELECT FROM sync.events e
    WHERE e.account = r.account AND e.referral_id = r.id AND e.kind = d.kind AND e.key = d.key
)
ON CONFLICT DO NOTHING
"""
"""Of the thresholds that are over only the last counts; a deadline that moves to another day has its own."""

_EVENT = """
INSERT INTO sync.events (account, kind, key, happened_at, facts) VALUES ($1, $2, $3, $4, $5::jsonb)
ON CONFLICT DO NOTHING
"""


async def decide(
    connection: PoolConnectionProxy,
    settings: Settings,
    accounts: Sequence[Health],
    now: datetime,
    up_since: datetime | None = None,
) -> None:
    """Write down which deadlines came near or passed, and what is wrong with accounts or no longer is."""
    names = [one.account for one in accounts]
    for days in sorted({tuple(channel.due_days) for channel in settings.notify.channels.values()}):
        await connection.execute(_DEADLINES, names, list(days), now)
    wrong = [alarm for one in accounts for alarm in _alarms(settings, one, now, up_since)]
    for account, kind, cause, began_at, why in wrong:
        began = await connection.fetchval(
            """
            INSERT INTO sync.alarms (account, kind, cause, began_at) VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING RETURNING began_at
            """,
            account,
            kind,
            cause,
            began_at,
        )
        if began is not None:
            facts = {"cause": cause, "began_at": began.isoformat(), "why": why}
            await connection.execute(_EVENT, account, kind, _key(cause, began), began, json.dumps(facts))
    ended = await connection.fetch(
        """
        DELETE FROM sync.alarms a WHERE account = ANY($1::text[]) AND NOT EXISTS (
            SELECT FROM unnest($2::text[], $3::text[], $4::text[]) AS w(account, kind, cause)
            WHERE w.account = a.account AND w.kind = a.kind AND w.cause = a.cause
        ) RETURNING account, kind, cause, began_at
        """,
        names,
        [account for account, *_ in wrong],
        [kind for _, kind, *_ in wrong],
        [cause for _, _, cause, *_ in wrong],
    )
    for row in ended:
        key = _key(row["cause"], row["began_at"])
        facts = {"kind": row["kind"], "key": key, "began_at": row["began_at"].isoformat(), "cause": row["cause"]}
        await connection.execute(
            _EVENT, row["account"], EventKind.RECOVERED, f"{row['kind']}:{key}", now, json.dumps(facts)
        )


def _alarms(
    settings: Settings, one: Health, now: datetime, up_since: datetime | None
) -> list[tuple[str, str, str, datetime, str]]:
    found = [
        (one.account, EventKind.ACTION_REQUIRED.value, cause, now, why)
        for cause, why in (("sign_in", one.sign_in), ("reconcile", one.reconcile))
        if why
    ]
    if (
        one.is_backfilled
        and one.fresh_as_of is not None
        and not one.is_fresh
        and _was_tried(settings, one, now, up_since)
    ):
        found.append((one.account, EventKind.STALE.value, "", one.fresh_as_of, ""))
    return found


def _was_tried(settings: Settings, one: Health, now: datetime, up_since: datetime | None) -> bool:
    """Return whether the copy is old although somebody tried: a daemon that has just begun has yet to."""
    if up_since is None or one.attempted:
        return True
    when = settings.schedule.incremental
    grace = GRACE if isinstance(when, Cron) else min(when, GRACE)
    return now >= max(up_since + grace, stale_at(settings, one.fresh_as_of or now))


def _key(cause: str, began: datetime) -> str:
    return f"{cause}@{began.isoformat()}"
