-- The worker's own books. Positions are ticks of 100 ns since year 1, the source's own precision; the *_at columns are
-- the same moment floored to the microsecond, for people. (Schema sync exists already: it holds the version table.)

CREATE FUNCTION sync.at(ticks bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN '0001-01-01T00:00:00Z'::timestamptz + make_interval(days => (ticks / 864000000000)::integer)
        + (ticks % 864000000000 / 10) * interval '1 microsecond';
COMMENT ON FUNCTION sync.at(bigint) IS 'The moment of a tick count, floored to the microsecond.';

CREATE TABLE sync.leases (
    account text NOT NULL,
    kind text NOT NULL,
    owner text NOT NULL,
    fence bigint NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account, kind)
);
COMMENT ON TABLE sync.leases IS 'The right to run a kind of work for an account: who has it, until when, and the fencing number that every write checks.';

CREATE TABLE sync.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    kind text NOT NULL,
    owner text NOT NULL,
    fence bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'failed', 'refused', 'stopped', 'abandoned')),
    error text,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    vanished bigint NOT NULL DEFAULT 0,
    pages bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    paging text,
    unknown_fields text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX runs_recent ON sync.runs (account, kind, id DESC);
CREATE INDEX runs_open ON sync.runs (account, kind) WHERE outcome = 'running';
COMMENT ON TABLE sync.runs IS 'One row for each recorded attempt, with its counts.';
COMMENT ON COLUMN sync.runs.outcome IS 'running, done, failed, refused (sign-in or permission: a person is needed), stopped (asked to), abandoned (its process died).';

CREATE TABLE sync.watermarks (
    account text PRIMARY KEY,
    position bigint NOT NULL,
    position_at timestamptz GENERATED ALWAYS AS (sync.at(position)) STORED,
    moved_at timestamptz NOT NULL DEFAULT now(),
    verified_through bigint,
    verified_through_at timestamptz GENERATED ALWAYS AS (sync.at(verified_through)) STORED,
    verified_at timestamptz
);
COMMENT ON TABLE sync.watermarks IS 'How far each account is read: every updatedDateTime below the position is stored.';
COMMENT ON COLUMN sync.watermarks.verified_through IS 'A full listing agreed with the copy about everything below this updatedDateTime.';

CREATE TABLE sync.capabilities (
    account text NOT NULL,
    field text NOT NULL,
    method text NOT NULL CHECK (method IN ('keyset', 'scan', 'sweep')),
    quoted boolean NOT NULL,
    bounded_above boolean NOT NULL,
    evidence text NOT NULL,
    proven boolean NOT NULL,
    probed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, field)
);
COMMENT ON TABLE sync.capabilities IS 'What the API was seen to do for each time field, and so how it is read.';

CREATE TABLE sync.backfills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    field text NOT NULL,
    lower bigint,
    upper bigint,
    newest_updated bigint,
    planned_at timestamptz NOT NULL DEFAULT now(),
    loaded_at timestamptz
);
CREATE INDEX backfills_account ON sync.backfills (account);
COMMENT ON TABLE sync.backfills IS 'A range of one time field that was asked for; loaded only when every window of it is.';
COMMENT ON COLUMN sync.backfills.newest_updated IS 'The newest updatedDateTime that the source showed when the windows were planned; becomes the watermark of an account without one.';

CREATE TABLE sync.backfill_windows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backfill_id bigint NOT NULL REFERENCES sync.backfills ON DELETE CASCADE,
    lower bigint,
    upper bigint,
    through bigint,
    done_at timestamptz,
    records bigint NOT NULL DEFAULT 0
);
CREATE INDEX backfill_windows_backfill ON sync.backfill_windows (backfill_id);
COMMENT ON TABLE sync.backfill_windows IS 'The windows of a backfill; through is how far (exclusive) each is read.';

CREATE TABLE sync.rejected_records (
    account text NOT NULL,
    key text NOT NULL,
    referral_id text,
    version bigint NOT NULL DEFAULT 0,
    payload bytea NOT NULL,
    digest bytea NOT NULL,
    reason text NOT NULL,
    field text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 1,
    run_id bigint,
    closed_at timestamptz,
    closed_because text,
    PRIMARY KEY (account, key)
);
CREATE INDEX rejected_records_open ON sync.rejected_records (account) WHERE closed_at IS NULL;
COMMENT ON TABLE sync.rejected_records IS 'Records that could not be stored, kept as received with the reason. Keyed by referral id, or by digest where the id is unreadable.';

CREATE VIEW sync.status AS
SELECT
    a.account,
    CASE
        WHEN finished.outcome IS NULL THEN 'never ran'
        WHEN finished.outcome = 'refused' THEN 'needs a person'
        WHEN finished.outcome IN ('failed', 'abandoned') THEN 'failing'
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
    (SELECT count(*) FROM sync.rejected_records j WHERE j.account = a.account AND j.closed_at IS NULL) AS open_rejects
FROM (
    SELECT account FROM sync.watermarks
    UNION SELECT account FROM sync.leases
    UNION SELECT account FROM sync.backfills
) a
LEFT JOIN sync.watermarks w ON w.account = a.account
LEFT JOIN LATERAL (
    SELECT * FROM sync.runs r WHERE r.account = a.account AND r.outcome <> 'running' ORDER BY r.id DESC LIMIT 1
) finished ON true
LEFT JOIN LATERAL (
    SELECT r.finished_at, r.started_at AS checked_at FROM sync.runs r
    WHERE r.account = a.account AND r.kind IN ('incremental', 'backfill') AND r.outcome = 'done' ORDER BY r.id DESC LIMIT 1
) good ON true;
COMMENT ON VIEW sync.status IS 'One row for each account; the command, the endpoint and bi.freshness all show it.';
COMMENT ON COLUMN sync.status.fresh_as_of IS 'Every change that the source showed before this moment is in the copy.';
