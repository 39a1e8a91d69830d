-- The worker's own tables. Checkpoints are ticks of 100 ns since year 1, the source's own precision; the *_at columns are
-- the same moment floored to the microsecond, for people. (Schema sync exists already: it holds the version table.)

CREATE FUNCTION sync.at(ticks bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN '0001-01-01T00:00:00Z'::timestamptz + make_interval(days => (ticks / 864000000000)::integer)
        + (ticks % 864000000000 / 10) * interval '1 microsecond';
COMMENT ON FUNCTION sync.at(bigint) IS 'The moment of a count of ticks, floored to the microsecond.';

CREATE TABLE sync.settings (
    name text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE sync.settings IS 'Settings that views and writers need; written by the worker from its configuration. No role of dashboards reads it.';
INSERT INTO sync.settings (name, value) VALUES
    ('bi.timezone', 'UTC'),
    ('privacy.contacts', 'keep'),
    ('privacy.applied', 'keep'),
    ('privacy.key', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

CREATE TABLE sync.accounts (
    account text PRIMARY KEY,
    label text NOT NULL
);
COMMENT ON TABLE sync.accounts IS 'What people call each account of the configuration; written by the worker.';

CREATE TABLE sync.leases (
    account text NOT NULL,
    kind text NOT NULL,
    owner text NOT NULL,
    fence bigint NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account, kind)
);
-- The fencing token is part of a key: then PostgreSQL tells a takeover, which changes it, from a renewal, which does not.
CREATE UNIQUE INDEX leases_fence ON sync.leases (account, kind, fence);
COMMENT ON TABLE sync.leases IS 'The right to do a kind of work for an account: who has it, until when, and the fencing token that every write checks.';

CREATE TABLE sync.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    kind text NOT NULL,
    lease text NOT NULL GENERATED ALWAYS AS (kind || coalesce('#' || slot, '')) STORED,
    slot text,
    owner text NOT NULL,
    fence bigint NOT NULL,
    due_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'failed', 'refused', 'stopped', 'abandoned')),
    error text,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    pages bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    paging text,
    unknown_fields text[] NOT NULL DEFAULT '{}',
    lag_p50 double precision,
    lag_p95 double precision,
    lag_max double precision,
    below_watermark_max double precision,
    overlap double precision,
    missed bigint NOT NULL DEFAULT 0,
    api_seconds double precision,
    decode_seconds double precision,
    map_seconds double precision,
    store_seconds double precision,
    throttled_seconds double precision
);
CREATE INDEX runs_recent ON sync.runs (account, kind, id DESC);
CREATE INDEX runs_open ON sync.runs (account, lease) WHERE outcome = 'running';
CREATE INDEX runs_finished ON sync.runs (finished_at) WHERE outcome <> 'running';
CREATE INDEX runs_unknown_fields ON sync.runs (account, started_at) WHERE unknown_fields <> '{}';
COMMENT ON TABLE sync.runs IS 'One row for each recorded run, with its counts.';
COMMENT ON COLUMN sync.runs.slot IS 'Which of several readers of one backfill made the run; null for a run of the whole kind.';
COMMENT ON COLUMN sync.runs.lease IS 'The lease that the run worked under, as kind in sync.leases.';
COMMENT ON COLUMN sync.runs.due_at IS 'When the run was due by its schedule; null where somebody asked for it.';
COMMENT ON COLUMN sync.runs.outcome IS 'running, done, failed, refused (action required: sign-in, permission, or more rows deleted at the source than may be), stopped (asked to), abandoned (its process died).';
COMMENT ON COLUMN sync.runs.deleted IS 'Rows marked as deleted at the source.';
COMMENT ON COLUMN sync.runs.retries IS 'Requests that had to be repeated.';
COMMENT ON COLUMN sync.runs.lag_p50 IS 'Replication lag: seconds from a change''s updatedDateTime until it was first read, the median of this run; null where nothing changed.';
COMMENT ON COLUMN sync.runs.lag_p95 IS 'The same, 95 of 100 changes were faster.';
COMMENT ON COLUMN sync.runs.lag_max IS 'The same, the slowest.';
COMMENT ON COLUMN sync.runs.below_watermark_max IS 'How many seconds below the watermark of the run''s start a change first appeared, at most: what the overlap is for.';
COMMENT ON COLUMN sync.runs.overlap IS 'Seconds below the watermark from which the run read.';
COMMENT ON COLUMN sync.runs.missed IS 'Changes that a reconcile found which incremental syncs should have brought: they appeared later than the overlap.';
COMMENT ON COLUMN sync.runs.api_seconds IS 'Seconds that the run''s readers waited for the API, all together.';
COMMENT ON COLUMN sync.runs.decode_seconds IS 'Seconds that decoding answers took.';
COMMENT ON COLUMN sync.runs.map_seconds IS 'Seconds that mapping records to rows took.';
COMMENT ON COLUMN sync.runs.store_seconds IS 'Seconds that readers waited for the database.';
COMMENT ON COLUMN sync.runs.throttled_seconds IS 'Seconds that the API asked to wait.';

CREATE TABLE sync.totals (
    account text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (account, kind, name)
);
COMMENT ON TABLE sync.totals IS 'What all runs of a kind came to, ever: the counters of /metrics. Runs themselves go after keep_runs.';

CREATE TABLE sync.watermarks (
    account text PRIMARY KEY,
    checkpoint bigint NOT NULL,
    checkpoint_at timestamptz GENERATED ALWAYS AS (sync.at(checkpoint)) STORED,
    moved_at timestamptz NOT NULL DEFAULT now(),
    anchor_id text,
    anchor_version bigint,
    verified_through bigint,
    verified_through_at timestamptz GENERATED ALWAYS AS (sync.at(verified_through)) STORED,
    verified_at timestamptz,
    verified_by text,
    not_verified text
);
COMMENT ON TABLE sync.watermarks IS 'How far each account is read: every updatedDateTime below the watermark is stored.';
COMMENT ON COLUMN sync.watermarks.anchor_id IS 'The newest referral at the watermark when it moved, which the next listing must show unless it changed.';
COMMENT ON COLUMN sync.watermarks.anchor_version IS 'The version that it had.';
COMMENT ON COLUMN sync.watermarks.verified_through IS 'A full listing agreed with the copy about everything below this updatedDateTime.';
COMMENT ON COLUMN sync.watermarks.verified_by IS 'How that listing was paged, and what verified that each window of it was whole.';
COMMENT ON COLUMN sync.watermarks.not_verified IS 'Why the last reconcile could verify nothing; null where it could.';

CREATE TABLE sync.schedules (
    id bigint GENERATED ALWAYS AS IDENTITY,
    account text NOT NULL,
    kind text NOT NULL,
    spec text NOT NULL,
    due_at timestamptz NOT NULL,
    not_before timestamptz,
    because text,
    PRIMARY KEY (account, kind)
);
CREATE INDEX schedules_due ON sync.schedules (greatest(due_at, not_before));
COMMENT ON TABLE sync.schedules IS 'When each kind of work of each account is due next; every worker looks, and whoever moves due_at puts the job into the queue in the same transaction.';
COMMENT ON COLUMN sync.schedules.id IS 'Gives an interval its phase: the multiples of the golden ratio spread evenly, however many accounts there are.';
COMMENT ON COLUMN sync.schedules.account IS 'The account; empty for work that is of the whole database.';
COMMENT ON COLUMN sync.schedules.spec IS 'The interval or cron line that due_at was reckoned by.';
COMMENT ON COLUMN sync.schedules.due_at IS 'When it is due; infinity where nothing asks for it.';
COMMENT ON COLUMN sync.schedules.not_before IS 'Until when it waits although it is due, such as while the API asked not to be called; every worker heeds it.';
COMMENT ON COLUMN sync.schedules.because IS 'Why it waits.';

INSERT INTO sync.schedules (account, kind, spec, due_at) VALUES ('', 'history', 'after a change', now());

CREATE TABLE sync.workers (
    owner text PRIMARY KEY,
    release text NOT NULL,
    configuration text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sync.workers IS 'The workers that take jobs from the queue; one that was not seen for half a minute is dead.';
COMMENT ON COLUMN sync.workers.configuration IS 'Fingerprint of its accounts and schedules: all workers on a database should have the same.';

CREATE TABLE sync.summaries (
    account text PRIMARY KEY,
    finished_run bigint,
    good_run bigint,
    reconcile_run bigint,
    lag_p50 double precision,
    lag_p95 double precision,
    overlap double precision
);
COMMENT ON TABLE sync.summaries IS 'The runs that an account''s status speaks of, so that nobody has to look for them among all runs; kept by a trigger of sync.runs.';
COMMENT ON COLUMN sync.summaries.finished_run IS 'The incremental sync or backfill that ended last.';
COMMENT ON COLUMN sync.summaries.good_run IS 'The last one that went well and covered the whole account.';
COMMENT ON COLUMN sync.summaries.reconcile_run IS 'The last reconcile that came to a result.';

CREATE TABLE sync.daily_lag (
    account text NOT NULL,
    day date NOT NULL,
    below_watermark_max double precision NOT NULL,
    PRIMARY KEY (account, day)
);
COMMENT ON TABLE sync.daily_lag IS 'How many seconds below the watermark a change appeared, at most, by day (UTC); a week of it is kept.';

CREATE FUNCTION sync.summarize() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sync.summaries AS s (account, finished_run, good_run, reconcile_run, lag_p50, lag_p95, overlap)
    VALUES (
        NEW.account,
        CASE WHEN NEW.kind IN ('incremental', 'backfill') THEN NEW.id END,
        CASE WHEN NEW.kind IN ('incremental', 'backfill') AND NEW.slot IS NULL AND NEW.outcome = 'done' THEN NEW.id END,
        CASE WHEN NEW.kind = 'reconcile' AND NEW.outcome NOT IN ('stopped', 'abandoned') THEN NEW.id END,
        CASE WHEN NEW.kind = 'incremental' THEN NEW.lag_p50 END,
        CASE WHEN NEW.kind = 'incremental' THEN NEW.lag_p95 END,
        CASE WHEN NEW.kind = 'incremental' THEN NEW.overlap END
    )
    ON CONFLICT (account) DO UPDATE SET
        finished_run = coalesce(excluded.finished_run, s.finished_run),
        good_run = coalesce(excluded.good_run, s.good_run),
        reconcile_run = coalesce(excluded.reconcile_run, s.reconcile_run),
        lag_p50 = coalesce(excluded.lag_p50, s.lag_p50),
        lag_p95 = coalesce(excluded.lag_p95, s.lag_p95),
        overlap = coalesce(excluded.overlap, s.overlap);
    IF NEW.kind = 'incremental' AND NEW.below_watermark_max IS NOT NULL THEN
        INSERT INTO sync.daily_lag AS l (account, day, below_watermark_max)
        VALUES (NEW.account, (NEW.started_at AT TIME ZONE 'UTC')::date, NEW.below_watermark_max)
        ON CONFLICT (account, day) DO UPDATE SET below_watermark_max = excluded.below_watermark_max WHERE excluded.below_watermark_max > l.below_watermark_max;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION sync.summarize() IS 'Keeps sync.summaries and sync.daily_lag when a run ends.';
CREATE TRIGGER summarize AFTER INSERT OR UPDATE OF outcome ON sync.runs
    FOR EACH ROW WHEN (NEW.outcome <> 'running') EXECUTE FUNCTION sync.summarize();

CREATE TABLE sync.capabilities (
    account text NOT NULL,
    field text NOT NULL,
    paging text NOT NULL CHECK (paging IN ('keyset', 'scan', 'sweep')),
    quoted boolean NOT NULL,
    bounded_above boolean NOT NULL,
    evidence text NOT NULL,
    conclusive boolean NOT NULL,
    probed_at timestamptz NOT NULL DEFAULT now(),
    links boolean NOT NULL DEFAULT false,
    page_size integer NOT NULL DEFAULT 0,
    PRIMARY KEY (account, field)
);
COMMENT ON TABLE sync.capabilities IS 'What the API was seen to do for each time field, and so how it is paged.';
COMMENT ON COLUMN sync.capabilities.page_size IS 'The most records that a page was seen to have.';
COMMENT ON COLUMN sync.capabilities.links IS 'Next page links were seen to carry order and filter on.';

CREATE TABLE sync.parity (
    account text PRIMARY KEY,
    only_by_id text[] NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sync.parity IS 'Which members a record has only when it is asked for by id; where there are any, changed records are hydrated.';

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
COMMENT ON TABLE sync.backfills IS 'A range of one time field that was asked for; complete only when every window of it is.';
COMMENT ON COLUMN sync.backfills.newest_updated IS 'The newest updatedDateTime that the source showed when the windows were planned; becomes the watermark of an account without one.';

CREATE TABLE sync.backfill_windows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backfill_id bigint NOT NULL REFERENCES sync.backfills ON DELETE CASCADE,
    lower bigint,
    upper bigint,
    through bigint,
    done_at timestamptz,
    records bigint NOT NULL DEFAULT 0,
    run_id bigint
);
CREATE INDEX backfill_windows_backfill ON sync.backfill_windows (backfill_id);
COMMENT ON TABLE sync.backfill_windows IS 'The windows of a backfill; through is how far (exclusive) each is read.';
COMMENT ON COLUMN sync.backfill_windows.run_id IS 'The run that reads it, or read it last; free again when that run has ended or lost its lease. Every write to the window checks it.';

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
    tried_with text,
    PRIMARY KEY (account, key)
);
CREATE INDEX rejected_records_open ON sync.rejected_records (account) WHERE closed_at IS NULL;
COMMENT ON TABLE sync.rejected_records IS 'Records that could not be stored, as received, with the reason. Keyed by referral id, or by digest where the id is unreadable.';
COMMENT ON COLUMN sync.rejected_records.attempts IS 'How often it was tried: once when it was read, and once for each replay.';
COMMENT ON COLUMN sync.rejected_records.tried_with IS 'The release that tried it last; another one tries it again when its daemon starts.';

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
    issued_for text NOT NULL DEFAULT '',
    access_token bytea,
    access_renew_at timestamptz,
    access_expires_at timestamptz,
    PRIMARY KEY (account, chain)
);
COMMENT ON TABLE sync.tokens IS 'Stored sign-ins: token chains, encrypted with the key of security.key_file. The chain that began last is in force.';
COMMENT ON COLUMN sync.tokens.chain IS 'Fingerprint of the configured token, or of the one from an interactive sign-in, that the chain began with; of a password nothing is kept, and the word stands here.';
COMMENT ON COLUMN sync.tokens.sealed IS 'The newest refresh token, encrypted; null while the first one was never accepted, or none is stored.';
COMMENT ON COLUMN sync.tokens.lapses_at IS 'When the newest token expires unless it is redeemed before.';
COMMENT ON COLUMN sync.tokens.refused_with IS 'Keyed digest of the application that was refused; another one is tried at once.';
COMMENT ON COLUMN sync.tokens.issued_for IS 'The identity service, tenant and application that the tokens were issued for; they are sent to no other.';
COMMENT ON COLUMN sync.tokens.access_token IS 'The access token that all workers use, encrypted together with what it is good for; null where the API or the identity service refused it, or none is stored.';
COMMENT ON COLUMN sync.tokens.access_renew_at IS 'From then on no worker takes the access token from here; one redeems the refresh token for a new one.';
COMMENT ON COLUMN sync.tokens.access_expires_at IS 'When the access token expires.';

CREATE TABLE sync.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    referral_id text NOT NULL DEFAULT '',
    kind text NOT NULL,
    key text NOT NULL,
    happened_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    found_by text,
    facts jsonb NOT NULL DEFAULT '{}',
    routed_at timestamptz,
    UNIQUE (account, referral_id, kind, key)
);
CREATE INDEX events_unrouted ON sync.events (id) WHERE routed_at IS NULL;
COMMENT ON TABLE sync.events IS 'The outbox: what people may be notified of, written in the transaction of the change; no names of people or customers.';
COMMENT ON COLUMN sync.events.referral_id IS 'Id of the referral; empty for what concerns the whole account.';
COMMENT ON COLUMN sync.events.key IS 'Which one of its kind it is, such as a version or a threshold; decided once each.';
COMMENT ON COLUMN sync.events.happened_at IS 'When it happened at the source, or when the deadline is.';
COMMENT ON COLUMN sync.events.found_by IS 'Kind of the run that found it; null where time alone made it.';
COMMENT ON COLUMN sync.events.routed_at IS 'When it was decided which channels get it.';

CREATE TABLE sync.messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    channel text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given up', 'dropped')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    tried_at timestamptz,
    ended_at timestamptz,
    error text
);
CREATE INDEX messages_waiting ON sync.messages (channel, next_at) WHERE state = 'waiting';
CREATE INDEX messages_recent ON sync.messages (channel, created_at DESC);
COMMENT ON TABLE sync.messages IS 'One row for each message to a channel; its text is made when it is sent and is kept nowhere.';
COMMENT ON COLUMN sync.messages.id IS 'Goes with the message, where the channel can carry it, so that a repeated one can be recognized.';
COMMENT ON COLUMN sync.messages.state IS 'waiting, sent, given up (a day of attempts failed), or dropped (nothing of it was true any more).';

CREATE TABLE sync.deliveries (
    event_id bigint NOT NULL REFERENCES sync.events ON DELETE CASCADE,
    channel text NOT NULL,
    message_id uuid REFERENCES sync.messages ON DELETE CASCADE,
    PRIMARY KEY (event_id, channel)
);
CREATE INDEX deliveries_unplanned ON sync.deliveries (channel) WHERE message_id IS NULL;
CREATE INDEX deliveries_message ON sync.deliveries (message_id);
COMMENT ON TABLE sync.deliveries IS 'Which events go to which channel, and with which message.';

CREATE TABLE sync.channels (
    channel text PRIMARY KEY,
    digested_at timestamptz NOT NULL DEFAULT now(),
    sent bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    given_up bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE sync.channels IS 'Each channel: when its last digest was due, and what came of its messages, ever.';

CREATE TABLE sync.introductions (
    channel text NOT NULL,
    account text NOT NULL,
    introduced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, account)
);
COMMENT ON TABLE sync.introductions IS 'Since when a channel covers an account: from its first summary on.';

CREATE TABLE sync.alarms (
    account text NOT NULL,
    kind text NOT NULL,
    cause text NOT NULL,
    began_at timestamptz NOT NULL,
    PRIMARY KEY (account, kind, cause)
);
COMMENT ON TABLE sync.alarms IS 'What is wrong with an account at this moment and was announced; the row goes when it is well again.';

CREATE VIEW sync.status AS
SELECT
    a.account,
    CASE
        WHEN finished.outcome IS NULL AND sign_in.refused_at IS NULL AND loading.since IS NULL THEN 'never ran'
        WHEN sign_in.refused_at IS NOT NULL OR 'refused' IN (finished.outcome, reconciled.outcome) THEN 'action required'
        WHEN finished.outcome IN ('failed', 'abandoned') OR reconciled.outcome = 'failed' THEN 'failing'
        WHEN w.checkpoint IS NULL THEN 'loading'
        ELSE 'ok'
    END AS health,
    w.checkpoint_at AS watermark,
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
    counted.rows - counted.deleted AS live_referrals,
    counted.deleted AS deleted_referrals,
    (SELECT count(*) FROM sync.rejected_records j WHERE j.account = a.account AND j.closed_at IS NULL) AS open_rejects,
    reconciled.outcome AS last_reconcile_outcome,
    reconciled.finished_at AS last_reconcile_at,
    reconciled.error AS last_reconcile_error,
    finished.requests,
    finished.retries,
    s.lag_p50,
    s.lag_p95,
    recent.below_watermark_max,
    s.overlap,
    coalesce(reconciled.missed, 0) AS missed,
    coalesce(recent.below_watermark_max > s.overlap / 2, false) OR coalesce(reconciled.missed > 0, false) AS overlap_too_small,
    (SELECT count(*) FROM sync.runs r WHERE r.account = a.account AND r.outcome = 'running') AS running,
    sign_in.lapses_at AS sign_in_lapses_at,
    sign_in.refused_at AS sign_in_refused_at,
    sign_in.refused_because AS sign_in_refused_because,
    reconciled.inserted + reconciled.updated + reconciled.deleted AS drift,
    reconciled.deleted,
    finished.seconds AS last_run_seconds,
    finished.api_seconds,
    finished.decode_seconds,
    finished.map_seconds,
    finished.store_seconds,
    w.verified_by,
    w.not_verified,
    backing_off.until AS backing_off_until,
    backing_off.because AS backing_off_because,
    loading.since AS loading_since,
    loading.records AS loading_records,
    loading.windows AS loading_windows,
    loading.windows_done AS loading_windows_done
FROM (
    SELECT account FROM sync.watermarks
    UNION SELECT account FROM sync.leases WHERE kind <> 'delivery'
    UNION SELECT account FROM sync.backfills
    UNION SELECT account FROM sync.tokens
    UNION SELECT account FROM sync.totals
    UNION SELECT account FROM sync.schedules WHERE account <> '' AND kind <> 'delivery'
) a
LEFT JOIN sync.watermarks w ON w.account = a.account
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account) AS rows,
        (SELECT count(*) FROM partner_center.referrals r WHERE r.account = a.account AND r.deleted_at IS NOT NULL) AS deleted
) counted
LEFT JOIN sync.summaries s ON s.account = a.account
LEFT JOIN LATERAL (
    SELECT *, extract(epoch FROM r.finished_at - r.started_at)::float8 AS seconds FROM sync.runs r WHERE r.id = s.finished_run
) finished ON true
LEFT JOIN sync.runs reconciled ON reconciled.id = s.reconcile_run
LEFT JOIN LATERAL (
    SELECT r.finished_at, r.started_at AS checked_at FROM sync.runs r WHERE r.id = s.good_run
) good ON true
LEFT JOIN LATERAL (
    SELECT max(l.below_watermark_max) AS below_watermark_max FROM sync.daily_lag l
    WHERE l.account = a.account AND l.day > (now() AT TIME ZONE 'UTC')::date - 7
) recent ON true
LEFT JOIN LATERAL (
    SELECT b.planned_at AS since, sum(x.records)::bigint AS records, count(*) AS windows, count(x.done_at) AS windows_done
    FROM sync.backfills b JOIN sync.backfill_windows x ON x.backfill_id = b.id
    WHERE b.account = a.account AND b.loaded_at IS NULL AND w.checkpoint IS NULL
    GROUP BY b.id ORDER BY b.id DESC LIMIT 1
) loading ON true
LEFT JOIN LATERAL (
    SELECT max(c.not_before) AS until, (array_agg(c.because ORDER BY c.not_before DESC))[1] AS because
    FROM sync.schedules c WHERE c.account = a.account AND c.not_before > now()
) backing_off ON true
LEFT JOIN LATERAL (
    SELECT * FROM sync.tokens t WHERE t.account = a.account ORDER BY (t.sealed IS NULL), t.began_at DESC LIMIT 1
) sign_in ON true;
COMMENT ON COLUMN sync.status.sign_in_lapses_at IS 'When the stored sign-in ends unless it is used before; null where none is stored.';
COMMENT ON COLUMN sync.status.sign_in_refused_at IS 'When the sign-in was last refused; null while it is good.';
COMMENT ON COLUMN sync.status.drift IS 'Rows that the last reconcile had to insert, update or mark as deleted.';
COMMENT ON COLUMN sync.status.api_seconds IS 'Seconds of the last run spent waiting for the API, all its readers together.';
COMMENT ON COLUMN sync.status.health IS 'ok, loading, never ran, failing, or action required; a failed reconcile shows here until the next one is good.';
COMMENT ON COLUMN sync.status.loading_since IS 'When the first backfill, which is not complete yet, was planned; null where there is none.';
COMMENT ON COLUMN sync.status.loading_records IS 'Records that the first backfill has read so far.';
COMMENT ON COLUMN sync.status.loading_windows IS 'Windows that the first backfill was cut into.';
COMMENT ON COLUMN sync.status.loading_windows_done IS 'Windows of it that are read to their end.';
COMMENT ON COLUMN sync.status.lag_p50 IS 'Seconds from a change at the source until it was read here: the median of the last sync that read a change.';
COMMENT ON COLUMN sync.status.below_watermark_max IS 'How many seconds below the watermark a change appeared, at most, in the last 7 days.';
COMMENT ON COLUMN sync.status.missed IS 'Changes that the last reconcile found which syncs should have brought.';
COMMENT ON COLUMN sync.status.overlap_too_small IS 'The replication lag comes near to the overlap, or exceeded it.';
