-- History at the speed of a dashboard, the record of runs for analysts, and what privacy needs.

-- In the order in which readers of the views lock: taken one by one further down, they could be waited for in a circle.
LOCK TABLE bi.stage_durations, bi.pipeline_daily, sync.status IN ACCESS EXCLUSIVE MODE;

-- Versions that may begin a stage, so that time in stage is read from the index alone. (`payload` stands for versions
-- whose predecessor could not be compared column by column.)
CREATE INDEX referral_versions_steps ON partner_center.referral_versions (account, referral_id, valid_from)
    INCLUDE (status, substatus, change)
    WHERE change <> 'changed' OR changed_columns && '{status,substatus,payload}'::text[];

CREATE OR REPLACE VIEW bi.stage_durations AS
SELECT account, referral_id AS id, step, status, substatus, entered_at, left_at,
    round((extract(epoch FROM coalesce(left_at, now()) - entered_at) / 86400)::numeric, 2) AS days
FROM (
    SELECT account, referral_id, status, substatus, change, valid_from AS entered_at,
        row_number() OVER h AS step, lead(valid_from) OVER h AS left_at
    FROM (
        SELECT v.account, v.referral_id, v.status, v.substatus, v.change, v.valid_from,
            (v.status, v.substatus, v.change = 'gone')
                IS DISTINCT FROM (lag(v.status) OVER p, lag(v.substatus) OVER p, lag(v.change = 'gone') OVER p) AS is_step
        FROM partner_center.referral_versions v
        WHERE v.change <> 'changed' OR v.changed_columns && '{status,substatus,payload}'::text[]
        WINDOW p AS (PARTITION BY v.account, v.referral_id ORDER BY v.valid_from)
    ) c
    WHERE is_step
    WINDOW h AS (PARTITION BY account, referral_id ORDER BY valid_from)
) s
WHERE change <> 'gone';

-- The pipeline between the days on which it moved: adding up all versions takes seconds where there are a million.
CREATE MATERIALIZED VIEW sync.pipeline_spans AS
WITH zone AS (SELECT value AS timezone FROM sync.settings WHERE name = 'bi.timezone'),
moves AS (
    SELECT v.account, v.direction, v.type, v.status, v.currency, v.deal_value,
        (v.valid_from AT TIME ZONE (SELECT timezone FROM zone))::date AS day, 1 AS sign
    FROM partner_center.referral_versions v WHERE v.change <> 'gone' AND v.status IS DISTINCT FROM 'Closed'
    UNION ALL
    SELECT v.account, v.direction, v.type, v.status, v.currency, v.deal_value,
        (v.valid_to AT TIME ZONE (SELECT timezone FROM zone))::date, -1
    FROM partner_center.referral_versions v
    WHERE v.change <> 'gone' AND v.status IS DISTINCT FROM 'Closed' AND v.valid_to IS NOT NULL
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

CREATE OR REPLACE VIEW bi.pipeline_daily AS
SELECT s.account, c::date AS day, s.direction, s.type, s.status, s.currency, s.deals::bigint AS deals, s.deal_value
FROM sync.pipeline_spans s
CROSS JOIN LATERAL generate_series(
    s.from_day::timestamp,
    coalesce(s.to_day - 1, (now() AT TIME ZONE (SELECT timezone FROM bi.settings))::date)::timestamp,
    interval '1 day'
) c
WHERE s.deals <> 0;

CREATE VIEW bi.runs AS
SELECT account, id AS run, kind, outcome, started_at, finished_at,
    round(extract(epoch FROM coalesce(finished_at, now()) - started_at)::numeric, 1) AS seconds,
    inserted, updated, unchanged, rejected, vanished, pages, requests, retries,
    lag_p50 AS lag_seconds
FROM sync.runs;
COMMENT ON VIEW bi.runs IS 'What the worker did, and what came of it; finished runs go after [sync] keep_runs.';
COMMENT ON COLUMN bi.runs.account IS 'Account of the configuration.';
COMMENT ON COLUMN bi.runs.run IS 'Number of the run.';
COMMENT ON COLUMN bi.runs.kind IS 'incremental (a tick), backfill, reconcile, refresh or replay.';
COMMENT ON COLUMN bi.runs.outcome IS 'running, done, failed, refused (a person is needed), stopped (asked to) or abandoned (its process died).';
COMMENT ON COLUMN bi.runs.started_at IS 'When it began (time of this database).';
COMMENT ON COLUMN bi.runs.finished_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN bi.runs.seconds IS 'How long it took, or has taken until now.';
COMMENT ON COLUMN bi.runs.inserted IS 'Referrals stored for the first time.';
COMMENT ON COLUMN bi.runs.updated IS 'Referrals that changed.';
COMMENT ON COLUMN bi.runs.unchanged IS 'Records read that were stored already.';
COMMENT ON COLUMN bi.runs.rejected IS 'Records kept aside because they could not be stored.';
COMMENT ON COLUMN bi.runs.vanished IS 'Referrals marked gone.';
COMMENT ON COLUMN bi.runs.pages IS 'Pages read.';
COMMENT ON COLUMN bi.runs.requests IS 'Requests to the API.';
COMMENT ON COLUMN bi.runs.retries IS 'Requests that had to be repeated.';
COMMENT ON COLUMN bi.runs.lag_seconds IS 'Seconds from a change at the source until it was read here, the median; null where nothing changed.';

-- Counting what is live by what there is less what is gone: both from an index.
CREATE INDEX referrals_gone ON partner_center.referrals (account) WHERE deleted_at IS NOT NULL;

CREATE OR REPLACE VIEW sync.status AS
SELECT
    a.account,
    CASE
        WHEN finished.outcome IS NULL THEN 'never ran'
        WHEN 'refused' IN (finished.outcome, proof.outcome) THEN 'needs a person'
        WHEN finished.outcome IN ('failed', 'abandoned') OR proof.outcome = 'failed' THEN 'failing'
        WHEN w.position IS NULL THEN 'loading'
        ELSE 'ok'
    END AS health,
    w.position_at AS watermark,
    good.finished_at AS last_good_run_at,
    good.checked_at AS fresh_as_of,
    w.verified_through_at AS verified_through,
    w.verified_at,
    finished.kind AS last_run_kind,
    finished.outcome AS last_run_outcome,
    finished.finished_at AS last_run_at,
    finished.error AS last_error,
    finished.inserted,
    finished.updated,
    finished.unchanged,
    finished.rejected,
    (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account)
        - (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account AND r.deleted_at IS NOT NULL) AS live_referrals,
    (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account AND r.deleted_at IS NOT NULL) AS deleted_referrals,
    (SELECT count(*) FROM sync.rejected_records j WHERE j.account = a.account AND j.closed_at IS NULL) AS open_rejects,
    proof.outcome AS last_reconcile_outcome,
    proof.finished_at AS last_reconcile_at,
    proof.error AS last_reconcile_error,
    finished.requests,
    finished.retries,
    recent.lag_p50,
    recent.lag_p95,
    recent.late_max,
    recent.overlap,
    coalesce(proof.missed, 0) AS missed,
    coalesce(recent.late_max > recent.overlap / 2, false) OR coalesce(proof.missed > 0, false) AS overlap_too_small,
    (SELECT count(*) FROM sync.runs r WHERE r.account = a.account AND r.outcome = 'running') AS running
FROM (
    SELECT account FROM sync.watermarks
    UNION SELECT account FROM sync.leases
    UNION SELECT account FROM sync.backfills
) a
LEFT JOIN sync.watermarks w ON w.account = a.account
LEFT JOIN LATERAL (
    SELECT * FROM sync.runs r
    WHERE r.account = a.account AND r.kind IN ('incremental', 'backfill') AND r.outcome <> 'running'
    ORDER BY r.id DESC LIMIT 1
) finished ON true
LEFT JOIN LATERAL (
    SELECT * FROM sync.runs r
    WHERE r.account = a.account AND r.kind = 'reconcile' AND r.outcome NOT IN ('running', 'stopped', 'abandoned')
    ORDER BY r.id DESC LIMIT 1
) proof ON true
LEFT JOIN LATERAL (
    SELECT r.finished_at, r.started_at AS checked_at FROM sync.runs r
    WHERE r.account = a.account AND r.kind IN ('incremental', 'backfill') AND r.outcome = 'done' ORDER BY r.id DESC LIMIT 1
) good ON true
LEFT JOIN LATERAL (
    SELECT max(r.late_max) AS late_max,
        (array_agg(r.overlap ORDER BY r.id DESC))[1] AS overlap,
        (array_agg(r.lag_p50 ORDER BY r.id DESC) FILTER (WHERE r.lag_p50 IS NOT NULL))[1] AS lag_p50,
        (array_agg(r.lag_p95 ORDER BY r.id DESC) FILTER (WHERE r.lag_p95 IS NOT NULL))[1] AS lag_p95
    FROM sync.runs r
    WHERE r.account = a.account AND r.kind = 'incremental' AND r.started_at > now() - interval '7 days'
) recent ON true;

-- How people are kept (`[privacy] contacts`), and the key of their hashes; no role of dashboards reads this table.
INSERT INTO sync.settings (name, value) VALUES
    ('privacy.contacts', 'keep'),
    ('privacy.applied', 'keep'),
    ('privacy.key', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
