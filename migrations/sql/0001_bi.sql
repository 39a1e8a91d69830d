-- What dashboards read. The tables below may evolve; these views keep their names and columns.
CREATE SCHEMA bi;
COMMENT ON SCHEMA bi IS 'Stable, documented views for dashboards.';

CREATE VIEW bi.settings AS
SELECT value AS timezone FROM sync.settings WHERE name = 'bi.timezone';
COMMENT ON VIEW bi.settings IS 'How these views are set.';
COMMENT ON COLUMN bi.settings.timezone IS 'Time zone in which days begin and end, from [bi] timezone.';

CREATE VIEW bi.referrals AS
SELECT
    r.account,
    r.id,
    r.engagement_id,
    r.name,
    CASE
        WHEN r.type = 'Shared' THEN 'Co-sell'
        WHEN r.type = 'Independent' AND r.qualification = 'Direct' AND coalesce(r.invited_by_organization_id, 'msft') = 'msft' THEN 'Marketplace lead'
        WHEN r.type = 'Independent' AND r.qualification IN ('SalesQualified', 'MarketingQualified') AND r.invited_by_organization_id = 'msft' THEN 'Qualified lead'
        WHEN r.type = 'Independent' AND r.qualification IN ('SalesQualified', 'None') AND r.invited_by_organization_id IS DISTINCT FROM 'msft' THEN 'Co-sell'
        ELSE 'Other'
    END AS category,
    r.type,
    r.direction,
    r.qualification,
    r.status,
    r.substatus,
    r.status_reason,
    r.sales_stage,
    r.registration_status,
    r.deal_value,
    r.currency,
    r.customer_name,
    r.customer_size,
    r.customer_country,
    r.customer_city,
    r.created_at,
    r.updated_at,
    r.accepted_at,
    r.closed_at,
    r.closing_at,
    CASE WHEN r.status = 'New' AND r.direction = 'Incoming' THEN coalesce(r.expires_at, r.created_at + interval '14 days') END AS respond_by,
    r.mpn_id,
    r.external_reference_id,
    r.microsoft_msx_id,
    coalesce(r.is_spam, false) AS is_spam,
    r.changed_at,
    r.status IS DISTINCT FROM 'Closed' AS is_open,
    r.status = 'Closed' AND r.substatus = 'Won' AS is_won,
    round((extract(epoch FROM now() - r.created_at) / 86400)::numeric, 1) AS age_days,
    round((extract(epoch FROM r.accepted_at - r.created_at) / 3600)::numeric, 1) AS hours_to_accept,
    r.quality,
    r.campaign_id,
    r.referral_program
FROM partner_center.referrals r
WHERE r.deleted_at IS NULL;
COMMENT ON VIEW bi.referrals IS 'One row for each referral that the source lists now.';

CREATE VIEW bi.deleted AS
SELECT r.account, r.id, r.engagement_id, r.name, r.status, r.substatus, r.type, r.direction, r.deal_value, r.currency,
    r.customer_name, r.created_at, r.updated_at, r.deleted_at
FROM partner_center.referrals r
WHERE r.deleted_at IS NOT NULL;
COMMENT ON VIEW bi.deleted IS 'Referrals that the source no longer lists: deleted, moved, or out of this sign-in''s sight. In no other view of the present.';

CREATE VIEW bi.inbound_cosell AS
SELECT * FROM bi.referrals WHERE type = 'Shared' AND direction = 'Incoming' ORDER BY created_at DESC;
COMMENT ON VIEW bi.inbound_cosell IS 'Which co-sell was offered to us? Newest first. Spam is flagged in is_spam.';

CREATE VIEW bi.awaiting_response AS
SELECT
    r.*,
    round((extract(epoch FROM r.respond_by - now()) / 86400)::numeric, 1) AS days_left,
    r.respond_by < now() AS is_overdue
FROM bi.referrals r
WHERE r.direction = 'Incoming' AND r.substatus = 'Pending'
ORDER BY r.respond_by;
COMMENT ON VIEW bi.awaiting_response IS 'What still awaits our answer? The most urgent first; an incoming referral that nobody answers in 14 days expires.';

CREATE VIEW bi.team AS
SELECT r.account, r.id AS referral_id, m.position, m.first_name, m.last_name, lower(m.email) AS email, m.title
FROM partner_center.referral_team_members m
JOIN partner_center.referrals r ON r.referral_key = m.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.team IS 'Our own people on each referral; business data. Their phone numbers are in bi.team_phones.';

CREATE VIEW bi.active_outbound_by_seller AS
SELECT t.email AS seller_email, t.first_name AS seller_first_name, t.last_name AS seller_last_name, r.*
FROM bi.referrals r JOIN bi.team t ON t.account = r.account AND t.referral_id = r.id
WHERE r.status = 'Active' AND r.direction = 'Outgoing' AND r.type = 'Shared'
ORDER BY t.email, r.created_at DESC;
COMMENT ON VIEW bi.active_outbound_by_seller IS 'What is each seller working on? One row for each seller of a deal: count deals by id, not by rows.';

CREATE VIEW bi.customers AS
SELECT account, customer_name, customer_country,
    count(*) AS referrals,
    count(*) FILTER (WHERE is_open) AS open_referrals,
    count(*) FILTER (WHERE is_won) AS won_referrals,
    min(created_at) AS first_created_at,
    max(updated_at) AS last_updated_at
FROM bi.referrals WHERE NOT is_spam
GROUP BY account, customer_name, customer_country;
COMMENT ON VIEW bi.customers IS 'One row for each customer name and country, without spam.';

CREATE VIEW bi.solutions AS
SELECT r.account, r.id AS referral_id, s.position, s.solution_id, s.name, s.solution_type, s.publisher_name, s.price, s.quantity, s.currency
FROM partner_center.referral_solutions s
JOIN partner_center.referrals r ON r.referral_key = s.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.solutions IS 'The solutions of each referral.';

CREATE VIEW bi.industries AS
SELECT r.account, r.id AS referral_id, q.item_id AS industry
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'industry';
COMMENT ON VIEW bi.industries IS 'The industries of each referral: one row for each.';

CREATE VIEW bi.registrations AS
SELECT r.account, r.id AS referral_id, g.position, g.registration_id, g.registration_type, g.registered_at,
    g.contract_value, g.contract_currency, g.contract_term, g.contract_start_at, g.contract_end_at, g.contract_sign_at,
    r.registration_status,
    g.review_pending_at, g.action_required_at, g.passed_at, g.failed_at, g.approved_at, g.resubmission_at
FROM partner_center.referral_registrations g
JOIN partner_center.referrals r ON r.referral_key = g.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.registrations IS 'Deal registrations (IP co-sell) with the moments of their review.';

CREATE VIEW bi.calendar AS
SELECT d::date AS day,
    extract(isoyear FROM d)::integer AS iso_year,
    extract(week FROM d)::integer AS iso_week,
    extract(isodow FROM d)::integer AS iso_weekday,
    date_trunc('month', d)::date AS month,
    date_trunc('quarter', d)::date AS quarter,
    date_trunc('year', d)::date AS year
FROM generate_series(
    (SELECT date_trunc('year', coalesce(min(created_at), now())) FROM partner_center.referrals WHERE created_at > '2010-01-01')::timestamp,
    date_trunc('year', now() + interval '2 years')::timestamp - interval '1 day',
    interval '1 day'
) d;
COMMENT ON VIEW bi.calendar IS 'A row for each day from the year of the first referral to the end of the next year.';

CREATE VIEW bi.status_changes AS
SELECT
    v.account,
    v.referral_id AS id,
    v.valid_from AS changed_at,
    v.change,
    before.status AS from_status,
    v.status AS to_status,
    before.substatus AS from_substatus,
    v.substatus AS to_substatus,
    v.recorded_at
FROM partner_center.referral_history v
LEFT JOIN LATERAL (
    SELECT b.status, b.substatus FROM partner_center.referral_history b
    WHERE b.account = v.account AND b.referral_id = v.referral_id AND b.valid_from < v.valid_from
    ORDER BY b.valid_from DESC LIMIT 1
) before ON true
WHERE v.change <> 'changed' OR v.changed_columns && ARRAY['status', 'substatus'];
COMMENT ON VIEW bi.status_changes IS 'Each change of status or substatus since the referral was first seen; the first sight, deleted and back are changes too.';

CREATE VIEW bi.stage_durations AS
SELECT account, referral_id AS id, step, status, substatus, entered_at, left_at,
    round((extract(epoch FROM coalesce(left_at, now()) - entered_at) / 86400)::numeric, 2) AS days
FROM (
    SELECT account, referral_id, status, substatus, change, valid_from AS entered_at,
        row_number() OVER h AS step, lead(valid_from) OVER h AS left_at
    FROM (
        SELECT v.account, v.referral_id, v.status, v.substatus, v.change, v.valid_from,
            (v.status, v.substatus, v.change = 'deleted')
                IS DISTINCT FROM (lag(v.status) OVER p, lag(v.substatus) OVER p, lag(v.change = 'deleted') OVER p) AS is_step
        FROM partner_center.referral_history v
        WHERE v.change <> 'changed' OR v.changed_columns && '{status,substatus,payload}'::text[]
        WINDOW p AS (PARTITION BY v.account, v.referral_id ORDER BY v.valid_from)
    ) c
    WHERE is_step
    WINDOW h AS (PARTITION BY account, referral_id ORDER BY valid_from)
) s
WHERE change <> 'deleted';

COMMENT ON VIEW bi.stage_durations IS 'How long each referral was in each status and substatus; a reopened deal enters a stage again. While it was not listed it was in none.';

-- The pipeline between the days on which it moved: adding up all versions takes seconds where there are a million.
CREATE MATERIALIZED VIEW sync.pipeline_spans AS
WITH zone AS (SELECT value AS timezone FROM sync.settings WHERE name = 'bi.timezone'),
moves AS (
    SELECT v.account, v.direction, v.type, v.status, v.currency, v.deal_value,
        (v.valid_from AT TIME ZONE (SELECT timezone FROM zone))::date AS day, 1 AS sign
    FROM partner_center.referral_history v WHERE v.change <> 'deleted' AND v.status IS DISTINCT FROM 'Closed'
    UNION ALL
    SELECT v.account, v.direction, v.type, v.status, v.currency, v.deal_value,
        (v.valid_to AT TIME ZONE (SELECT timezone FROM zone))::date, -1
    FROM partner_center.referral_history v
    WHERE v.change <> 'deleted' AND v.status IS DISTINCT FROM 'Closed' AND v.valid_to IS NOT NULL
),
days AS (
    SELECT account, direction, type, status, currency, day, sum(sign) AS deals, sum(sign * deal_value) AS value
    FROM moves GROUP BY account, direction, type, status, currency, day
)
SELECT account, direction, type, status, currency, day AS from_day,
    lead(day) OVER g AS to_day,
    sum(deals) OVER g AS deals,
    sum(value) OVER g AS deal_value
FROM days
WINDOW g AS (PARTITION BY account, direction, type, status, currency ORDER BY day);
CREATE UNIQUE INDEX pipeline_spans_key ON sync.pipeline_spans (account, direction, type, status, currency, from_day);
COMMENT ON MATERIALIZED VIEW sync.pipeline_spans IS 'The open pipeline from one day on which it moved to the next; refreshed by the worker after each run that changed something.';

CREATE VIEW bi.pipeline_daily AS
SELECT s.account, c::date AS day, s.direction, s.type, s.status, s.currency, s.deals::bigint AS deals, s.deal_value
FROM sync.pipeline_spans s
CROSS JOIN LATERAL generate_series(
    s.from_day::timestamp,
    coalesce(s.to_day - 1, (now() AT TIME ZONE (SELECT timezone FROM bi.settings))::date)::timestamp,
    interval '1 day'
) c
WHERE s.deals <> 0;

COMMENT ON VIEW bi.pipeline_daily IS 'The open pipeline as it stood at the end of each day. Values are in each row''s currency: never add across currencies.';

CREATE VIEW bi.conversion AS
SELECT account, direction, category, (date_trunc('month', created_at AT TIME ZONE (SELECT timezone FROM bi.settings)))::date AS month,
    count(*) AS referrals,
    count(*) FILTER (WHERE is_open) AS open_referrals,
    count(*) FILTER (WHERE is_won) AS won,
    count(*) FILTER (WHERE substatus = 'Lost') AS lost,
    count(*) FILTER (WHERE substatus = 'Declined') AS declined,
    count(*) FILTER (WHERE substatus = 'Expired') AS expired,
    round(count(*) FILTER (WHERE is_won)::numeric / nullif(count(*) FILTER (WHERE is_won OR substatus = 'Lost'), 0), 4) AS win_rate,
    round((percentile_cont(0.5) WITHIN GROUP (ORDER BY hours_to_accept) FILTER (WHERE direction = 'Incoming'))::numeric, 1) AS median_hours_to_accept
FROM bi.referrals WHERE NOT is_spam
GROUP BY account, direction, category, month;
COMMENT ON VIEW bi.conversion IS 'What became of the referrals created in each month, without spam.';

CREATE VIEW bi.customer_contacts AS
SELECT r.account, r.id AS referral_id, c.position, c.first_name, c.last_name, c.email, c.phone_number, c.title
FROM partner_center.referral_customer_contacts c
JOIN partner_center.referrals r ON r.referral_key = c.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.customer_contacts IS 'People at the customer. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.notes AS
SELECT r.account, r.id, r.notes, r.invite_notes FROM partner_center.referrals r
WHERE r.deleted_at IS NULL AND coalesce(r.notes, r.invite_notes) IS NOT NULL;
COMMENT ON VIEW bi.notes IS 'Free text of each referral, which often names people. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.team_phones AS
SELECT r.account, r.id AS referral_id, m.position, m.phone_number FROM partner_center.referral_team_members m
JOIN partner_center.referrals r ON r.referral_key = m.referral_key AND r.deleted_at IS NULL
WHERE m.phone_number IS NOT NULL;
COMMENT ON VIEW bi.team_phones IS 'Phone numbers of our own people. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.runs AS
SELECT account, id AS run, kind, outcome, started_at, finished_at,
    round(extract(epoch FROM coalesce(finished_at, now()) - started_at)::numeric, 1) AS seconds,
    inserted, updated, unchanged, rejected, vanished, pages, requests, retries,
    lag_p50 AS lag_seconds
FROM sync.runs;
COMMENT ON VIEW bi.runs IS 'What the worker did, and what came of it; finished runs go after [sync] keep_runs.';
COMMENT ON COLUMN bi.runs.account IS 'Account of the configuration.';
COMMENT ON COLUMN bi.runs.run IS 'Number of the run.';
COMMENT ON COLUMN bi.runs.kind IS 'incremental, backfill, reconcile, refresh or replay.';
COMMENT ON COLUMN bi.runs.outcome IS 'running, done, failed, refused (action required), stopped (asked to) or abandoned (its process died).';
COMMENT ON COLUMN bi.runs.started_at IS 'When it began (time of this database).';
COMMENT ON COLUMN bi.runs.finished_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN bi.runs.seconds IS 'How long it took, or has taken until now.';
COMMENT ON COLUMN bi.runs.inserted IS 'Referrals stored for the first time.';
COMMENT ON COLUMN bi.runs.updated IS 'Referrals that changed.';
COMMENT ON COLUMN bi.runs.unchanged IS 'Records read that were stored already.';
COMMENT ON COLUMN bi.runs.rejected IS 'Rejected records: they could not be stored.';
COMMENT ON COLUMN bi.runs.vanished IS 'Referrals marked as deleted at the source.';
COMMENT ON COLUMN bi.runs.pages IS 'Pages read.';
COMMENT ON COLUMN bi.runs.requests IS 'Requests to the API.';
COMMENT ON COLUMN bi.runs.retries IS 'Requests that had to be repeated.';
COMMENT ON COLUMN bi.runs.lag_seconds IS 'Seconds from a change at the source until it was read here, the median; null where nothing changed.';

CREATE VIEW bi.freshness AS
SELECT account, health, watermark, fresh_as_of, verified_through, live_referrals, open_rejects FROM sync.status;
COMMENT ON VIEW bi.freshness IS 'How old the data is, and through when it was verified complete.';
COMMENT ON COLUMN bi.freshness.fresh_as_of IS 'Every change that the source showed before this moment is in the copy.';
COMMENT ON COLUMN bi.freshness.verified_through IS 'A full listing agreed with the copy about everything updated before this moment.';

-- Each column of bi says what it is: its own words where it has any, else those of the column of the copy.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN
        WITH words (view_name, column_name, told) AS (VALUES
            (NULL, 'account', 'Account of the configuration that the referral was read with.'),
            (NULL, 'id', 'Id of the referral.'),
            (NULL, 'referral_id', 'Id of the referral, as id in bi.referrals.'),
            (NULL, 'position', 'Place in the source''s list, from 0.'),
            (NULL, 'category', 'Co-sell, Marketplace lead, Qualified lead or Other, by the documented rules on type, qualification and inviter; any Shared referral is Co-sell.'),
            (NULL, 'respond_by', 'When an unanswered incoming referral expires: as the source says, else 14 days after creation. Null for all others.'),
            (NULL, 'deal_value', 'Value of the deal, in the row''s currency: never add across currencies.'),
            (NULL, 'is_spam', 'Whether the source calls the lead spam; false where it says nothing.'),
            (NULL, 'is_open', 'Whether the status is anything but Closed.'),
            (NULL, 'is_won', 'Whether the referral is closed as won.'),
            (NULL, 'age_days', 'Days since creation, as of now.'),
            (NULL, 'hours_to_accept', 'Hours from creation until it was accepted; null until then, and about 0 for outgoing deals.'),
            (NULL, 'changed_at', 'When the copy of this referral last changed (time of this database).'),
            (NULL, 'deleted_at', 'When a reconcile found that the source no longer lists it (time of this database).'),
            (NULL, 'days_left', 'Days until respond_by, as of now; negative when it is over.'),
            (NULL, 'is_overdue', 'Whether respond_by is over.'),
            (NULL, 'seller_email', 'E-mail of one of our sellers on the deal, in lower case.'),
            (NULL, 'seller_first_name', 'First name of that seller.'),
            (NULL, 'seller_last_name', 'Last name of that seller.'),
            (NULL, 'day', 'A day.'),
            ('pipeline_daily', 'day', 'The day at whose end the pipeline stood so, in the time zone of bi.settings.'),
            ('pipeline_daily', 'deals', 'How many open referrals there were.'),
            ('pipeline_daily', 'deal_value', 'The sum of their values, in this row''s currency.'),
            (NULL, 'step', 'Which stage of the referral this is, from 1.'),
            (NULL, 'entered_at', 'When the stage began.'),
            (NULL, 'left_at', 'When it ended; null while it lasts.'),
            (NULL, 'days', 'How long it lasted, or has lasted until now, in days.'),
            (NULL, 'month', 'First day of the month.'),
            (NULL, 'quarter', 'First day of the quarter.'),
            (NULL, 'year', 'First day of the year.'),
            (NULL, 'iso_year', 'Year of the ISO week.'),
            (NULL, 'iso_week', 'ISO week, 1 to 53.'),
            (NULL, 'iso_weekday', '1 for Monday to 7 for Sunday.'),
            (NULL, 'referrals', 'How many referrals.'),
            (NULL, 'open_referrals', 'How many of them are open.'),
            (NULL, 'won_referrals', 'How many of them are won.'),
            (NULL, 'won', 'How many were won.'),
            (NULL, 'lost', 'How many were lost.'),
            (NULL, 'declined', 'How many were declined.'),
            (NULL, 'expired', 'How many expired unanswered.'),
            (NULL, 'win_rate', 'Won among those won or lost, from 0 to 1; null while none is either.'),
            (NULL, 'median_hours_to_accept', 'Median hours until incoming referrals were accepted; null for outgoing ones.'),
            (NULL, 'first_created_at', 'When their first referral was created.'),
            (NULL, 'last_updated_at', 'When the source last changed one of them.'),
            (NULL, 'industry', 'Industry id, such as Healthcare.'),
            (NULL, 'email', 'E-mail address.'),
            (NULL, 'first_name', 'First name.'),
            (NULL, 'last_name', 'Last name.'),
            (NULL, 'title', 'Job title.'),
            (NULL, 'phone_number', 'Phone number; personal data.'),
            (NULL, 'change', 'first (seen first), changed, deleted (at the source) or back (listed again).'),
            ('status_changes', 'changed_at', 'When the new status began.'),
            (NULL, 'from_status', 'Status before.'),
            (NULL, 'to_status', 'Status from then on.'),
            (NULL, 'from_substatus', 'Substatus before.'),
            (NULL, 'to_substatus', 'Substatus from then on.'),
            (NULL, 'recorded_at', 'When this database stored it.'),
            (NULL, 'health', 'ok, loading, never ran, failing, or needs a person.'),
            (NULL, 'watermark', 'The newest change at the source that the copy has.'),
            (NULL, 'live_referrals', 'Rows that the source lists.'),
            (NULL, 'open_rejects', 'Rejected records: they could not be stored.'),
            (NULL, 'solution_id', 'Id of the solution: a category or a catalogue id.'),
            ('solutions', 'name', 'Name of the solution.'),
            ('solutions', 'currency', 'Currency of the price.'),
            (NULL, 'publisher_name', 'Publisher of the solution.'),
            (NULL, 'solution_type', 'Category or Name (a catalogue id).'),
            (NULL, 'price', 'Price in the row''s currency.'),
            (NULL, 'quantity', 'How many.')
        )
        SELECT c.relname AS view_name, a.attname AS column_name,
            coalesce(own.told, word.told, col_description('partner_center.referrals'::regclass, r.attnum),
                col_description('partner_center.referral_registrations'::regclass, g.attnum)) AS told
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN words own ON own.view_name = c.relname AND own.column_name = a.attname
        LEFT JOIN words word ON word.view_name IS NULL AND word.column_name = a.attname
        LEFT JOIN pg_attribute r ON r.attrelid = 'partner_center.referrals'::regclass AND r.attname = a.attname
        LEFT JOIN pg_attribute g ON g.attrelid = 'partner_center.referral_registrations'::regclass AND g.attname = a.attname
        WHERE c.relnamespace = 'bi'::regnamespace AND c.relkind = 'v' AND col_description(c.oid, a.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN bi.%I.%I IS %L', col.view_name, col.column_name, col.told);
    END LOOP;
END
$$;
