-- Stored sign-ins, totals for metrics, and where each run's time went.

-- In the order in which readers of the view lock.
LOCK TABLE sync.status IN ACCESS EXCLUSIVE MODE;

CREATE TABLE sync.tokens (
    account text NOT NULL,
    chain text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed bytea,
    lapses_at timestamptz,
    rotations bigint NOT NULL DEFAULT 0,
    rotated_at timestamptz,
    refused_at timestamptz,
    refused_with text,
    refused_because text,
    PRIMARY KEY (account, chain)
);
COMMENT ON TABLE sync.tokens IS 'Stored sign-ins: chains of refresh tokens, sealed with the key of security.key_file. The chain that began last is in force.';
COMMENT ON COLUMN sync.tokens.chain IS 'Fingerprint of the configured token, or of the one from a sign-in by hand, that the chain began with.';
COMMENT ON COLUMN sync.tokens.sealed IS 'The newest refresh token, encrypted; null while the first one was never accepted, or none is stored.';
COMMENT ON COLUMN sync.tokens.lapses_at IS 'When the newest token ends unless it is used before.';
COMMENT ON COLUMN sync.tokens.refused_with IS 'Fingerprint of the application that was refused; another one is tried at once.';

CREATE TABLE sync.totals (
    account text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (account, kind, name)
);
COMMENT ON TABLE sync.totals IS 'What all runs of a kind came to, ever: the counters of /metrics. Runs themselves go after keep_runs.';

ALTER TABLE sync.runs
    ADD COLUMN api_seconds double precision,
    ADD COLUMN decode_seconds double precision,
    ADD COLUMN map_seconds double precision,
    ADD COLUMN store_seconds double precision,
    ADD COLUMN throttled_seconds double precision;
COMMENT ON COLUMN sync.runs.api_seconds IS 'Seconds that the run''s readers waited for the API, all together.';
COMMENT ON COLUMN sync.runs.decode_seconds IS 'Seconds that decoding answers took.';
COMMENT ON COLUMN sync.runs.map_seconds IS 'Seconds that mapping records to rows took.';
COMMENT ON COLUMN sync.runs.store_seconds IS 'Seconds that readers waited for the database.';
COMMENT ON COLUMN sync.runs.throttled_seconds IS 'Seconds that the API asked to wait.';

CREATE OR REPLACE VIEW sync.status AS
SELECT
    a.account,
    CASE
        WHEN finished.outcome IS NULL AND sign_in.refused_at IS NULL THEN 'never ran'
        WHEN sign_in.refused_at IS NOT NULL OR 'refused' IN (finished.outcome, proof.outcome) THEN 'needs a person'
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
    (SELECT count(*) FROM sync.runs r WHERE r.account = a.account AND r.outcome = 'running') AS running,
    sign_in.lapses_at AS sign_in_lapses_at,
    sign_in.refused_at AS sign_in_refused_at,
    sign_in.refused_because AS sign_in_refused_because,
    proof.inserted + proof.updated + proof.vanished AS drift,
    proof.vanished,
    finished.seconds AS last_run_seconds,
    finished.api_seconds,
    finished.decode_seconds,
    finished.map_seconds,
    finished.store_seconds
FROM (
    SELECT account FROM sync.watermarks
    UNION SELECT account FROM sync.leases
    UNION SELECT account FROM sync.backfills
    UNION SELECT account FROM sync.tokens
) a
LEFT JOIN sync.watermarks w ON w.account = a.account
LEFT JOIN LATERAL (
    SELECT *, extract(epoch FROM r.finished_at - r.started_at)::float8 AS seconds FROM sync.runs r
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
) recent ON true
LEFT JOIN LATERAL (
    SELECT * FROM sync.tokens t WHERE t.account = a.account ORDER BY (t.sealed IS NULL), t.began_at DESC LIMIT 1
) sign_in ON true;
COMMENT ON COLUMN sync.status.sign_in_lapses_at IS 'When the stored sign-in ends unless it is used before; null where none is stored.';
COMMENT ON COLUMN sync.status.sign_in_refused_at IS 'When the sign-in was last refused; null while it is good.';
COMMENT ON COLUMN sync.status.drift IS 'Rows that the last reconcile had to insert, update or mark gone.';
COMMENT ON COLUMN sync.status.api_seconds IS 'Seconds of the last run spent waiting for the API, all its readers together.';
