"""The SQL of saving, derived once from the declarations in `model/schema.py`.

What is new is copied straight into its table. What changes travels as one JSON parameter for a statement, in which each
payload stands as it was received; neither needs a temporary table behind a pooler (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.model.counts import Counts, Facts
from worker.model.figures import figures_of
from worker.model.schema import CHILDREN, NESTED, REFERRAL_COLUMNS, VERSION_COLUMNS

_METADATA = (
    ("version", "bigint"),
    ("etag", "text"),
    ("content_hash", "uuid"),
    ("repaired", "boolean"),
    ("unreadable", "text[]"),
    ("observed_at", "timestamptz"),
)
_COLUMNS = (*((column.name, column.kind.value) for column in REFERRAL_COLUMNS), *_METADATA)
_PAYLOAD = ("payload", "jsonb")
_PRESENT = (("change", "text"), ("changed_columns", "text[]"), ("valid_from", "timestamptz"))


def _recordset(columns: Iterable[tuple[str, str]]) -> str:
    return "jsonb_to_recordset($2::jsonb) AS d(" + ", ".join(f"{name} {kind}" for name, kind in columns) + ")"


def _row_of_each(columns: str, locking: str = "") -> str:
    """Join to ids (`d.id`) columns of their rows of an account ($1), by a look into the index for each id.

    Not by `id = ANY(...)`: while a table grows, or an account is new in it, PostgreSQL's statistics say that the
    account has few rows, and it reads all of them each time.
    """
    return f"""CROSS JOIN LATERAL (
        SELECT {columns} FROM partner_center.referrals WHERE account = $1 AND id = d.id LIMIT 1{locking}
    )"""


def _of_each_id(columns: str, locking: str = "") -> str:
    """Select columns of the rows with some ids ($2) of an account ($1), in the order of ids."""
    return f"SELECT r.* FROM (SELECT unnest($2::text[]) AS id ORDER BY 1) d {_row_of_each(columns, locking)} r"


LOOK = _of_each_id("id, version, content_hash, etag, observed_at, deleted_at")
"""What the copy has of some ids; decides nothing, and locks nothing."""

_STORED = "id, referral_key, version, content_hash, etag, observed_at, deleted_at, valid_from, payload"

READ = _of_each_id(_STORED)
"""The same, and what is needed to compare answers."""

LOCK = _of_each_id(_STORED, " FOR UPDATE")
"""In the order of ids, so that two savers cannot deadlock."""

KEYS = "SELECT nextval('partner_center.referrals_referral_key_seq') FROM generate_series(1, $1)"
"""Numbers for so many new rows, known before they are copied because their child rows carry them."""

PRESENT = ("referral_key", "valid_from", "change", "run_id")
"""The columns that say what the present version of a new row is, as they are copied."""

ROW = (
    "payload",
    *(column.name for column in REFERRAL_COLUMNS),
    "account",
    "id",
    *(name for name, _ in _METADATA),
    *PRESENT,
)
"""The columns of a new row, as they are copied."""

CHILD_TABLES = {
    child.table: (*child.keys, *(column.name for column in child.columns), "referral_key")
    for child in (*CHILDREN, *NESTED)
}
"""The columns of each child table, as they are copied."""

LAST_VERSIONS = """
SELECT d.id AS referral_id, v.valid_to FROM unnest($2::text[]) AS d(id) CROSS JOIN LATERAL (
    SELECT valid_to FROM partner_center.referral_versions
    WHERE account = $1 AND referral_id = d.id ORDER BY valid_from DESC LIMIT 1
) v
WHERE (SELECT true FROM partner_center.referral_versions WHERE account = $1 ORDER BY referral_id LIMIT 1)
"""
"""Which new rows are of referrals that the copy had before (erased, and shown again), and until when.

A first backfill, whose account has no history at all, looks once and not for each row; in the order of an index, for
without one PostgreSQL reads the history of other accounts first.
"""

UPDATE = f"""
UPDATE partner_center.referrals r
SET {", ".join(f"{name} = d.{name}" for name, _ in (*_COLUMNS, _PAYLOAD))}, deleted_at = NULL,
    changed_at = CASE WHEN d.change IS NULL THEN r.changed_at ELSE now() END,
    valid_from = coalesce(d.valid_from, r.valid_from),
    change = coalesce(d.change, r.change),
    changed_columns = CASE WHEN d.change IS NULL THEN r.changed_columns ELSE d.changed_columns END,
    changes = CASE WHEN d.change IS NULL THEN r.changes ELSE (
        SELECT jsonb_object_agg(m.column_name, jsonb_build_array(r.payload #>> m.path, d.payload #>> m.path))
        FROM sync.shown_members m
        WHERE m.column_name = ANY(d.changed_columns)
            OR 'payload' = ANY(d.changed_columns) AND r.payload #>> m.path IS DISTINCT FROM d.payload #>> m.path
    ) END,
    run_id = CASE WHEN d.change IS NULL THEN r.run_id ELSE $3 END
FROM {_recordset((("id", "text"), *_PRESENT, *_COLUMNS, _PAYLOAD))}
{_row_of_each("referral_key")} k WHERE r.referral_key = k.referral_key
"""

END_VERSIONS = f"""
INSERT INTO partner_center.referral_versions
    (account, referral_id, referral_key, valid_from, valid_to, recorded_at, change, changed_columns, changes, version,
    run_id, {", ".join(VERSION_COLUMNS)}, payload)
SELECT r.account, r.id, r.referral_key, r.valid_from, d.valid_to::timestamptz, r.changed_at, r.change,
    r.changed_columns, r.changes, r.version, r.run_id,
    {", ".join(f"r.{name}" for name in VERSION_COLUMNS)}, r.payload
FROM unnest($2::text[], $3::text[]) AS d(id, valid_to)
{_row_of_each("*")} r
"""
"""Runs before the rows change: what they hold becomes history, until the moment at which the next version begins.

Moments travel as text: asyncpg would ask each new connection for the type of an array of times.
"""

CONTINUE_HISTORY = """
UPDATE partner_center.referral_versions v
SET referral_key = d.key,
    valid_to = CASE v.valid_to WHEN d.ended::timestamptz THEN d.valid_to::timestamptz ELSE v.valid_to END
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[]) AS d(id, key, ended, valid_to)
WHERE v.account = $1 AND v.referral_id = ANY($2::text[]) AND v.referral_id = d.id
"""
"""The versions of a referral that was erased go over to its new row; the last lasts until it comes back."""

MARK_DELETED = f"""
UPDATE partner_center.referrals r
SET deleted_at = now(), changed_at = now(), valid_from = d.valid_from::timestamptz, change = 'deleted',
    changed_columns = '{{deleted_at}}', changes = NULL, run_id = $4
FROM unnest($2::text[], $3::text[]) AS d(id, valid_from)
{_row_of_each("referral_key")} k WHERE r.referral_key = k.referral_key
"""

REJECT = """
INSERT INTO sync.rejected_records AS j
    (account, run_id, tried_with, key, referral_id, version, payload, digest, reason, field)
SELECT $1, $2, $3, *
FROM unnest($4::text[], $5::text[], $6::bigint[], $7::bytea[], $8::bytea[], $9::text[], $10::text[])
ON CONFLICT (account, key) DO UPDATE
SET run_id = excluded.run_id, version = excluded.version, payload = excluded.payload, digest = excluded.digest,
    reason = excluded.reason, field = excluded.field, last_seen_at = now(), closed_at = NULL, closed_because = NULL,
    attempts = 1, tried_with = excluded.tried_with
WHERE j.digest <> excluded.digest AND (j.version <= excluded.version OR excluded.version = 0)
"""
"""The same record read again writes nothing; an older one does not displace a newer one, one without a time does."""

CLOSE_REJECTS = """
UPDATE sync.rejected_records j SET closed_at = now(), closed_because = 'stored'
FROM unnest($2::text[], $3::bigint[]) AS d(id, version)
WHERE j.account = $1 AND j.closed_at IS NULL AND j.referral_id = d.id AND j.version <= d.version
"""


def delete_children(table: str) -> str:
    """Delete the rows of some referrals from one child table."""
    return f"DELETE FROM partner_center.{table} WHERE referral_key = ANY($1::bigint[])"


NAMING_PEOPLE = ("referral_customer_contacts", "referral_team_members")

_REWRITTEN = (("payload", "jsonb"), ("content_hash", "uuid"), ("notes", "text"), ("invite_notes", "text"))

REWRITE = f"""
UPDATE partner_center.referrals r SET {", ".join(f"{name} = d.{name}" for name, _ in _REWRITTEN)}
FROM {_recordset((("id", "text"), *_REWRITTEN))}
{_row_of_each("referral_key")} k WHERE r.referral_key = k.referral_key
"""
"""Takes personal data out of what is stored; the referral has not changed."""

ERASE_HIDDEN = """
UPDATE partner_center.referral_versions SET payload = payload #- '{customerProfile,team}'
WHERE account = $1 AND referral_id = ANY($2::text[]) AND payload #> '{customerProfile,team}' IS NOT NULL
"""
"""Takes contacts that the source has hidden out of the earlier versions."""

DELETE_CLOSED_REJECTS = """
DELETE FROM sync.rejected_records WHERE account = $1 AND referral_id = ANY($2::text[]) AND closed_at IS NOT NULL
"""

COUNTED = tuple(one.name for one in figures_of(Counts))
"""The columns of a run that each save adds to."""

ADD_COUNTS = f"""
UPDATE sync.runs SET {", ".join(f"{name} = {name} + ${number}" for number, name in enumerate(COUNTED, 2))} WHERE id = $1
"""

LEARNED = tuple(one.name for one in figures_of(Facts) if one.stored)
"""The columns of a run that are written at its end."""

FINISH_RUN = f"""
UPDATE sync.runs SET outcome = $2, error = nullif($3, ''), finished_at = clock_timestamp(),
    {", ".join(f"{name} = ${number}" for number, name in enumerate(LEARNED, 4))}
WHERE id = $1 AND outcome = 'running' RETURNING {", ".join(COUNTED)}
"""
