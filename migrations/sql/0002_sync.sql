-- What proving takes: which run made a version, which release last tried a reject, how late records appear, and a
-- health that an unproven copy shows in.

-- In the order in which a reader of the view locks: taken one by one further down, they could be waited for in a circle.
LOCK TABLE sync.status IN ACCESS EXCLUSIVE MODE;

ALTER TABLE partner_center.referral_versions ADD COLUMN run_id bigint;
COMMENT ON COLUMN partner_center.referral_versions.run_id IS 'The run in sync.runs that stored this version; null for versions stored by the first release.';

ALTER TABLE sync.rejected_records ADD COLUMN tried_with text;
COMMENT ON COLUMN sync.rejected_records.tried_with IS 'The release that tried it last; another one tries it again when its daemon starts.';
COMMENT ON COLUMN sync.rejected_records.attempts IS 'How often it was tried: once when it was read, and once for each replay.';

ALTER TABLE sync.runs
    ADD COLUMN retries bigint NOT NULL DEFAULT 0,
    ADD COLUMN lag_p50 double precision,
    ADD COLUMN lag_p95 double precision,
    ADD COLUMN lag_max double precision,
    ADD COLUMN late_max double precision,
    ADD COLUMN overlap double precision,
    ADD COLUMN missed bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN sync.runs.retries IS 'Requests that had to be repeated.';
COMMENT ON COLUMN sync.runs.lag_p50 IS 'Seconds from a change''s updatedDateTime until it was first read, the median of this run; null where nothing changed.';
COMMENT ON COLUMN sync.runs.lag_p95 IS 'The same, 95 of 100 changes were faster.';
COMMENT ON COLUMN sync.runs.lag_max IS 'The same, the slowest.';
COMMENT ON COLUMN sync.runs.late_max IS 'How many seconds below the watermark of the run''s start a change first appeared, at most: what the overlap is for.';
COMMENT ON COLUMN sync.runs.overlap IS 'Seconds below the watermark from which the run read.';
COMMENT ON COLUMN sync.runs.missed IS 'Changes that a reconcile found which ticks should have brought: they appeared later than the overlap.';
COMMENT ON COLUMN sync.runs.outcome IS 'running, done, failed, refused (sign-in or permission, or more rows vanished than may: a person is needed), stopped (asked to), abandoned (its process died).';

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
    (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account AND r.deleted_at IS NULL) AS live_referrals,
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
COMMENT ON COLUMN sync.status.health IS 'ok, loading, never ran, failing, or needs a person; a failed proof shows here until the next one is good.';
COMMENT ON COLUMN sync.status.lag_p50 IS 'Seconds from a change at the source until it was read here: the median of the last tick that read a change.';
COMMENT ON COLUMN sync.status.late_max IS 'How many seconds below the watermark a change appeared, at most, in the last 7 days.';
COMMENT ON COLUMN sync.status.missed IS 'Changes that the last reconcile found which ticks should have brought.';
COMMENT ON COLUMN sync.status.overlap_too_small IS 'Changes appear so late that they come near to escaping the overlap, or did escape it.';

ALTER TABLE sync.capabilities ADD COLUMN links boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN sync.capabilities.links IS 'Next page links were seen to carry order and filter on.';

CREATE TABLE sync.parity (
    account text PRIMARY KEY,
    only_by_id text[] NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sync.parity IS 'Which members a record has only when it is asked for by id; where there are any, changed records are.';
