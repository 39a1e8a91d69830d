"""What the report shows, asked of the views that dashboards read."""

from __future__ import annotations

from typing import Any

from worker.store.database import STATEMENT_SECONDS, Database

_QUERIES = {
    "freshness": """
        SELECT account, health, fresh_as_of, verified_through, live_referrals, open_rejects FROM bi.freshness ORDER BY 1
    """,
    "pipeline": """
        SELECT category, direction, currency, count(*) AS deals, sum(deal_value) AS value
        FROM bi.referrals WHERE is_open AND NOT is_spam AND ($1::text IS NULL OR account = $1)
        GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT 15
    """,
    "daily": """
        SELECT day, direction, sum(deals)::bigint AS deals FROM bi.pipeline_daily
        WHERE NOT is_spam AND day > (now() AT TIME ZONE (SELECT timezone FROM bi.settings))::date - 90
            AND ($1::text IS NULL OR account = $1)
        GROUP BY 1, 2 ORDER BY 1
    """,
    "funnel": """
        SELECT coalesce(CASE status WHEN 'Closed' THEN substatus END, status, 'Unknown') AS stage, count(*) AS referrals
        FROM bi.referrals
        WHERE created_at > now() - interval '1 year' AND NOT is_spam AND ($1::text IS NULL OR account = $1)
        GROUP BY 1 ORDER BY 2 DESC
    """,
    "response": """
        SELECT month, percentile_cont(0.5) WITHIN GROUP (ORDER BY hours_to_accept) AS hours, count(*) AS accepted
        FROM (
            SELECT date_trunc('month', created_at AT TIME ZONE (SELECT timezone FROM bi.settings))::date AS month,
                hours_to_accept
            FROM bi.referrals WHERE direction = 'Incoming' AND hours_to_accept >= 0 AND NOT is_spam
                AND created_at > now() - interval '1 year' AND ($1::text IS NULL OR account = $1)
        ) answered
        GROUP BY 1 ORDER BY 1
    """,
    "expiring": """
        SELECT name, customer_name, category, respond_by, days_left, is_overdue, deal_value, currency
        FROM bi.awaiting_response
        WHERE NOT is_spam AND ($1::text IS NULL OR account = $1) ORDER BY respond_by LIMIT 15
    """,
    "figures": """
        SELECT
            count(*) FILTER (WHERE is_open) AS open,
            count(*) FILTER (WHERE is_won AND closed_at > now() - interval '90 days') AS won,
            count(*) FILTER (WHERE is_won AND closed_at > now() - interval '1 year')::numeric
                / nullif(count(*) FILTER (
                    WHERE (is_won OR substatus = 'Lost') AND closed_at > now() - interval '1 year'
                ), 0) AS win_rate,
            count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting) AS awaiting,
            count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting AND respond_by < now()) AS overdue
        FROM bi.referrals WHERE NOT is_spam AND ($1::text IS NULL OR account = $1)
    """,
}


async def refresh_history(database: Database) -> None:
    """Bring up to date what `bi` reads from materialised views, beside their readers.

    Raises StoreError where the role does not own the views.
    """
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        await connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY sync.estimated_stages")
        await connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY sync.pipeline_spans")


async def analysis(database: Database, account: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the rows behind each part of the report, in one snapshot; of all accounts unless one is named."""
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = {}
        for name, query in _QUERIES.items():
            arguments = () if name == "freshness" else (account,)
            found[name] = [dict(row) for row in await connection.fetch(query, *arguments)]
    return found
