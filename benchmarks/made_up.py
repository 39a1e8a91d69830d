"""A copy of any size, made by SQL alone: three years of referrals, each with four ended versions and a present one."""

from __future__ import annotations

import asyncpg

from worker.store.analysis import refresh_history
from worker.store.database import open_database

_REFERRALS = """
INSERT INTO partner_center.referrals (account, id, name, status, substatus, qualification, type, direction, deal_value,
    currency, customer_name, customer_country, created_at, updated_at, accepted_at, closed_at, closing_at,
    external_reference_id, microsoft_msx_id, version, content_hash,
    payload, repaired, observed_at, changed_at, valid_from, change, changed_columns, changes)
SELECT 'contoso', 'r' || n, CASE n % 3 WHEN 0 THEN 'deal &amp; more ' ELSE 'deal ' END || n,
    CASE n % 20 WHEN 0 THEN 'New' WHEN 1 THEN 'Active' WHEN 2 THEN 'Active' ELSE 'Closed' END,
    CASE n % 20 WHEN 0 THEN 'Pending' WHEN 1 THEN 'Accepted' WHEN 2 THEN 'Accepted'
        ELSE (ARRAY['Won', 'Lost', 'Expired'])[1 + n % 7 % 3] END,
    'SalesQualified', (ARRAY['Shared', 'Independent'])[1 + n % 2], (ARRAY['Incoming', 'Outgoing'])[1 + n % 5 % 2],
    n % 10000, (ARRAY['EUR', 'USD', 'SEK', 'GBP'])[1 + n % 4],
    CASE n % 3 WHEN 0 THEN 'customer &amp; sons ' ELSE 'customer ' END || n % 5000,
    (ARRAY['DE', 'SE', 'US'])[1 + n % 3], at, at + interval '16 days', at + interval '1 day',
    CASE WHEN n % 20 > 2 THEN at + interval '16 days' END,
    date_trunc('day', at) + interval '60 days' - interval '1 hour',
    CASE WHEN n % 5 < 3 THEN 'O' || n END, CASE WHEN n % 10 < 3 THEN '7-' || n END, n, gen_random_uuid(),
    jsonb_build_object('id', 'r' || n, 'pad', repeat('x', 800)), false, now(), now(), at + interval '16 days',
    'changed', '{status,substatus}', '{"status": ["Active", "Closed"], "substatus": ["Accepted", "Won"]}'
FROM generate_series(1, $1::integer) n, LATERAL (SELECT now() - interval '3 years' * (n::float / $1) AS at) x
"""

_VERSIONS = """
INSERT INTO partner_center.referral_versions (account, referral_id, referral_key, valid_from, valid_to, recorded_at,
    change, changed_columns, changes, version, status, substatus, type, direction, deal_value, currency, payload)
SELECT 'contoso', r.id, r.referral_key,
    r.created_at + interval '4 days' * (k - 1) + interval '2 days' * (k = 1)::integer,
    r.created_at + interval '4 days' * k, r.created_at + interval '4 days' * (k - 1),
    CASE k WHEN 1 THEN 'first' ELSE 'changed' END,
    CASE k WHEN 2 THEN '{deal_value}' WHEN 3 THEN '{status,substatus}' WHEN 4 THEN '{deal_value}' END::text[],
    CASE k WHEN 2 THEN '{"deal_value": ["9", "10"]}'
        WHEN 3 THEN '{"status": ["New", "Active"], "substatus": ["Pending", "Accepted"]}'
        WHEN 4 THEN '{"deal_value": ["10", "11"]}' END::jsonb, k,
    CASE WHEN k < 3 THEN 'New' ELSE 'Active' END, CASE WHEN k < 3 THEN 'Pending' ELSE 'Accepted' END,
    r.type, r.direction, r.deal_value + k, r.currency, jsonb_build_object('id', r.id, 'pad', repeat('x', 400))
FROM partner_center.referrals r, generate_series(1, 4) k
"""

_CHILDREN = """
WITH solutions AS (
    INSERT INTO partner_center.referral_solutions (referral_key, position, solution_id, name)
    SELECT referral_key, 0, 'CloudMigration', 'Cloud migration' FROM partner_center.referrals
), requirements AS (
    INSERT INTO partner_center.referral_requirements (referral_key, kind, position, item_id, item_type)
    SELECT referral_key, 'industry', 0, (ARRAY['Retail', 'Healthcare', 'Education'])[1 + version % 3], NULL
    FROM partner_center.referrals
    UNION ALL
    SELECT referral_key, 'product', 0, (ARRAY['Azure', 'Teams', 'Dynamics365'])[1 + version % 3], NULL
    FROM partner_center.referrals
    UNION ALL
    SELECT referral_key, 'attribute', 0, (ARRAY['Security', 'ModernWork'])[1 + version % 2], 'SolutionArea'
    FROM partner_center.referrals
), contacts AS (
    INSERT INTO partner_center.referral_customer_contacts (referral_key, position, email)
    SELECT referral_key, 0, 'buyer@example.com' FROM partner_center.referrals WHERE version % 4 > 0
)
INSERT INTO partner_center.referral_team_members (referral_key, position, first_name, email)
SELECT referral_key, 0, 'Seller', 'seller' || version % 50 || '@example.com' FROM partner_center.referrals
"""

_RUNS = """
INSERT INTO sync.runs (account, kind, owner, fence, started_at, finished_at, outcome, inserted, updated, pages,
    requests, lag_p50)
SELECT 'contoso', CASE WHEN n % 288 = 0 THEN 'reconcile' ELSE 'incremental' END, 'made up', n, at,
    at + interval '2 seconds', 'done', n % 3, n % 7, 1, 1, 60
FROM generate_series(1, 2000) n, LATERAL (SELECT now() - interval '5 minutes' * n AS at) x
"""


_LEFT_ALONE = """
DO $$
DECLARE one regclass;
BEGIN
    FOR one IN SELECT oid FROM pg_class WHERE relnamespace = 'partner_center'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', one);
    END LOOP;
END
$$
"""
"""Else it may look at a table at the very moment of our VACUUM, which then cannot mark everything visible."""


async def fill(url: str, referrals: int) -> None:
    """Fill a migrated, empty database, bring up to date what is derived, and let PostgreSQL know what is in it."""
    connection = await asyncpg.connect(url)
    await connection.execute(_LEFT_ALONE)
    await connection.execute("SET synchronous_commit = on")  # else VACUUM may not know yet that all this is visible
    await connection.execute(_REFERRALS, referrals)
    for statement in (_VERSIONS, _CHILDREN, _RUNS):
        await connection.execute(statement)
    await connection.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', 638000000000000000)")
    await connection.execute("ANALYZE")
    async with open_database(url, connections=1) as database:
        await refresh_history(database)
    await connection.execute("VACUUM (ANALYZE)")
    await connection.close()
