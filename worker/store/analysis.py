"""What the report shows, asked of the views that dashboards read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.store.database import STATEMENT_SECONDS, Database
from worker.store.schedules import rest_after_history
from worker.store.stages import Work, refresh_spans, refresh_stages

SHOWN = 15
"""Rows of a list that the report shows; it says how many there are."""

_CHOSEN = "($1::text IS NULL OR account = $1)"
_TODAY = "(now() AT TIME ZONE (SELECT timezone FROM bi.settings))::date"

_BY_CURRENCY = """
    sum(deals)::bigint AS deals,
    array_agg(currency ORDER BY deals DESC, currency) FILTER (WHERE value IS NOT NULL AND currency IS NOT NULL)
        AS currencies,
    array_agg(value ORDER BY deals DESC, currency) FILTER (WHERE value IS NOT NULL AND currency IS NOT NULL) AS values
"""
"""Sums of each currency beside each other: they are never added."""

_MOVES = """
WITH moves AS (
    SELECT s.account, s.id, s.changed_at,
        CASE
            WHEN s.change = 'deleted' THEN 'no longer listed'
            WHEN s.change = 'back' THEN 'listed again'
            WHEN s.change = 'first' THEN 'new'
            WHEN s.to_status = 'Closed' THEN lower(coalesce(s.to_substatus, 'closed'))
            WHEN s.from_status = 'New' AND s.to_status = 'Active' THEN 'accepted'
            ELSE 'moved'
        END AS move,
        coalesce(s.to_status || coalesce(' / ' || s.to_substatus, ''), 'Unknown') AS to_stage,
        NULL::numeric AS old_value, NULL::numeric AS new_value, NULL::text AS old_currency, NULL::text AS currency
    FROM bi.status_changes s
    WHERE s.changed_at > now() - interval '7 days' AND ($1::text IS NULL OR s.account = $1)
    UNION ALL
    SELECT v.account, v.referral_id, v.changed_at, 'value', NULL, v.old_value, v.new_value, v.old_currency, v.currency
    FROM bi.value_changes v
    WHERE v.changed_at > now() - interval '7 days' AND ($1::text IS NULL OR v.account = $1)
),
week AS (
    SELECT m.*, coalesce(r.name, d.name) AS name, coalesce(r.customer_name, d.customer_name) AS customer_name,
        coalesce(r.account_label, m.account) AS account_label
    FROM moves m
    LEFT JOIN bi.referrals r ON r.account = m.account AND r.id = m.id
    LEFT JOIN bi.deleted d ON d.account = m.account AND d.id = m.id
    WHERE r.is_spam IS NOT TRUE AND (m.move <> 'new' OR r.created_at > now() - interval '7 days')
)
"""
"""What happened in seven days; a deal that was only read for the first time is not new."""

_TEMPLATES = {
    "accounts": """
        SELECT f.account, f.account_label, f.health, f.fresh_as_of, f.verified_through, f.live_referrals,
            f.open_rejects, q.unknown_direction, q.awaiting_with_unknown_direction, q.missing_value,
            q.missing_currency, q.past_expected_close, q.missing_contacts, q.unknown_members
        FROM bi.freshness f LEFT JOIN bi.data_quality q ON q.account = f.account
        WHERE $1::text IS NULL OR f.account = $1 ORDER BY f.account_label
    """,
    "pipeline": """
        SELECT account_label, category, direction, currency, count(*) AS deals, sum(deal_value) AS value
        FROM bi.referrals WHERE is_open AND NOT is_spam AND :chosen
        GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3, 4
    """,
    "daily": """
        SELECT day, direction AS name, sum(deals)::float8 AS value, sum(deals) AS deals,
            coalesce(sum(deals) FILTER (WHERE is_estimated), 0) AS estimated
        FROM bi.pipeline_daily WHERE day > :today - 90 AND NOT is_spam AND :chosen
        GROUP BY 1, 2 ORDER BY 1
    """,
    "money": """
        SELECT day, currency AS name, sum(deal_value)::float8 AS value, sum(deals) AS deals,
            coalesce(sum(deals) FILTER (WHERE is_estimated), 0) AS estimated
        FROM bi.pipeline_daily
        WHERE currency IS NOT NULL AND deal_value IS NOT NULL AND day > :today - 90 AND NOT is_spam AND :chosen
        GROUP BY 1, 2 ORDER BY 1
    """,
    "funnel": """
        SELECT coalesce(CASE status WHEN 'Closed' THEN substatus END, status, 'Unknown') AS stage, count(*) AS referrals
        FROM bi.referrals WHERE created_at > now() - interval '1 year' AND NOT is_spam AND :chosen
        GROUP BY 1 ORDER BY 2 DESC
    """,
    "response": """
        SELECT month, month < date_trunc('month', :today)::date AS is_over,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY hours_to_accept) FILTER (WHERE hours_to_accept >= 0) AS hours,
            count(*) FILTER (WHERE is_awaiting) AS unanswered
        FROM (
            SELECT date_trunc('month', created_at AT TIME ZONE (SELECT timezone FROM bi.settings))::date AS month,
                hours_to_accept, is_awaiting
            FROM bi.referrals
            WHERE direction = 'Incoming' AND created_at > now() - interval '1 year' AND NOT is_spam AND :chosen
        ) created
        GROUP BY 1 ORDER BY 1
    """,
    "closing": """
        SELECT step, month, :by_currency
        FROM (
            SELECT CASE WHEN closing_on IS NULL THEN 3 WHEN is_past_expected_close THEN 0 WHEN is_far THEN 2 ELSE 1 END
                    AS step,
                CASE WHEN NOT is_past_expected_close AND NOT is_far THEN date_trunc('month', closing_on)::date END
                    AS month,
                currency, count(*) AS deals, sum(deal_value) AS value
            FROM (
                SELECT closing_on, is_past_expected_close, currency, deal_value,
                    closing_on >= date_trunc('month', :today) + interval '12 months' AS is_far
                FROM bi.referrals WHERE is_open AND NOT is_spam AND :chosen
            ) open
            GROUP BY 1, 2, 3
        ) sums
        GROUP BY 1, 2 ORDER BY 1, 2
    """,
    "awaiting": """
        SELECT account_label, id, name, customer_name, category, respond_by, days_left, is_overdue, deal_value,
            currency, count(*) OVER () AS total
        FROM bi.awaiting_response WHERE NOT is_spam AND :chosen ORDER BY respond_by, id LIMIT :shown
    """,
    "top": """
        SELECT * FROM (
            SELECT account_label, id, name, customer_name, status, closing_on, is_past_expected_close, deal_value,
                currency, count(*) OVER c AS total,
                row_number() OVER (PARTITION BY currency ORDER BY deal_value DESC, account, id) AS place
            FROM bi.referrals WHERE is_open AND deal_value > 0 AND currency IS NOT NULL AND NOT is_spam AND :chosen
            WINDOW c AS (PARTITION BY currency)
        ) ranked
        WHERE place <= 5 ORDER BY total DESC, currency, place
    """,
    "sellers": """
        SELECT seller, min(name) AS name, count(*) OVER () AS total, :by_currency
        FROM (
            SELECT seller, min(name) AS name, currency, count(*) AS deals, sum(deal_value) AS value
            FROM (
                SELECT DISTINCT ON (r.account, r.id, seller) r.currency, r.deal_value,
                    coalesce(t.email, nullif(concat_ws(' ', t.first_name, t.last_name), ''), 'Unknown') AS seller,
                    concat_ws(' ', t.first_name, t.last_name) AS name
                FROM (
                    SELECT account, id, currency, deal_value FROM bi.referrals
                    WHERE is_open AND NOT is_spam AND :chosen
                ) r
                JOIN bi.team t ON t.account = r.account AND t.referral_id = r.id
                ORDER BY r.account, r.id, seller
            ) each_deal
            GROUP BY seller, currency
        ) sums
        GROUP BY seller ORDER BY deals DESC, seller LIMIT :shown
    """,
    "week": ":moves SELECT move, count(*) AS deals FROM week GROUP BY 1 ORDER BY 2 DESC, 1",
    "moves": """
        :moves SELECT *, count(*) OVER () AS total FROM week ORDER BY changed_at DESC, id LIMIT :shown
    """,
    "figures": """
        SELECT
            count(*) FILTER (WHERE is_open AND NOT is_spam) AS open,
            count(*) FILTER (WHERE is_open AND is_spam) AS spam,
            count(*) FILTER (WHERE is_won AND NOT is_spam AND closed_at > now() - interval '90 days') AS won,
            count(*) FILTER (WHERE is_won AND NOT is_spam AND closed_at > now() - interval '1 year')::numeric
                / nullif(count(*) FILTER (
                    WHERE (is_won OR substatus = 'Lost') AND NOT is_spam AND closed_at > now() - interval '1 year'
                ), 0) AS win_rate,
            count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting AND NOT is_spam) AS awaiting,
            count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting AND NOT is_spam AND respond_by < now())
                AS overdue
        FROM bi.referrals WHERE :chosen
    """,
}


def _filled(query: str) -> str:
    """Put the pieces that queries share in their places; none of them is input."""
    pieces = {"moves": _MOVES, "chosen": _CHOSEN, "today": _TODAY, "by_currency": _BY_CURRENCY, "shown": str(SHOWN)}
    return re.sub(r"(?<!:):([a-z_]+)", lambda found: pieces[found[1]], query)


_QUERIES = {name: _filled(template) for name, template in _TEMPLATES.items()}


async def refresh_history(database: Database) -> None:
    """Bring up to date what `bi` reads of history: the stages of referrals that changed, then the pipeline of each day.

    Nobody is held up: readers see it as it was until then, and savers write no table of it.
    """
    work = Work()
    try:
        await refresh_stages(database, work)
        await refresh_spans(database, work)
    finally:
        await rest_after_history(database, work.seconds)


async def analysis(
    database: Database, account: str | None = None, labels: Mapping[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows behind each part of the report, in one snapshot; of all accounts unless one is named.

    `labels` are the accounts of the configuration: those that never ran are in no table, and have a row all the same.
    """
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = {
            name: [dict(row) for row in await connection.fetch(query, account)] for name, query in _QUERIES.items()
        }
    known = {row["account"] for row in found["accounts"]}
    for name, label in (labels or {}).items():
        if name not in known and account in (None, name):
            never = {"account": name, "account_label": label, "health": "never ran", "fresh_as_of": None,
                     "verified_through": None, "live_referrals": 0, "open_rejects": 0}  # fmt: skip
            found["accounts"].append(_QUALITY | never)
    return found


_QUALITY: dict[str, Any] = dict.fromkeys(
    (
        "unknown_direction", "awaiting_with_unknown_direction", "missing_value", "missing_currency",
        "past_expected_close", "missing_contacts", "unknown_members",
    ),
    0,
)  # fmt: skip
