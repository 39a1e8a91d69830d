"""The SQL of saving, derived once from the declarations in `core/referral.py`.

What is new is copied straight into its table. What changes travels as one JSON parameter for a statement, in which each
payload stands as it was received; neither needs a temporary table behind a pooler (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.core.referral import CHILDREN, NESTED, REFERRAL_COLUMNS, VERSION_COLUMNS

_BOOKS = (
    ("version", "bigint"),
    ("etag", "text"),
    ("content_hash", "uuid"),
    ("repaired", "boolean"),
    ("observed_at", "timestamptz"),
)
_COLUMNS = (*((column.name, column.kind.value) for column in REFERRAL_COLUMNS), *_BOOKS)
_PAYLOAD = ("payload", "jsonb")


def _recordset(columns: Iterable[tuple[str, str]]) -> str:
    return "jsonb_to_recordset($2::jsonb) AS d(" + ", ".join(f"{name} {kind}" for name, kind in columns) + ")"


LOOK = """
SELECT id, version, content_hash, etag, observed_at, deleted_at
FROM partner_center.referrals WHERE account = $1 AND id = ANY($2::text[])
"""
"""What the copy has of some ids; decides nothing, and locks nothing."""

READ = """
SELECT id, version, content_hash, etag, observed_at, deleted_at, payload
FROM partner_center.referrals WHERE account = $1 AND id = ANY($2::text[])
"""

LOCK = READ + " ORDER BY id FOR UPDATE"
"""In the order of ids, so that two savers cannot deadlock."""

ROW = ("payload", "account", "id", *(name for name, _ in _COLUMNS))
"""The columns of a new row, as they are copied."""

PARTS = {
    child.table: ("account", "referral_id", *child.keys, *(column.name for column in child.columns))
    for child in (*CHILDREN, *NESTED)
}
"""The columns of each table of parts, as they are copied."""

WITH_HISTORY = """
SELECT DISTINCT referral_id FROM partner_center.referral_versions WHERE account = $1 AND referral_id = ANY($2::text[])
"""
"""Which new rows are of referrals that the copy had before: erased, and shown again."""

UPDATE = f"""
UPDATE partner_center.referrals r
SET {", ".join(f"{name} = d.{name}" for name, _ in (*_COLUMNS, _PAYLOAD))}, deleted_at = NULL,
    changed_at = CASE WHEN d.change IS NULL THEN r.changed_at ELSE now() END
FROM {_recordset((("id", "text"), ("change", "text"), *_COLUMNS, _PAYLOAD))}
WHERE r.account = $1 AND r.id = ANY($3::text[]) AND r.id = d.id
"""
"""The ids stand beside the document ($3 here), for a plan that reads no other rows whatever the statistics say."""

_MOMENT = (("id", "text"), ("source_at", "timestamptz"), ("observed_at", "timestamptz"))

CLOSE_VERSIONS = f"""
UPDATE partner_center.referral_versions v
SET payload = r.payload,
    valid_to = CASE WHEN d.source_at > v.valid_from THEN d.source_at
                    WHEN d.observed_at > v.valid_from THEN d.observed_at
                    ELSE v.valid_from + interval '1 microsecond' END
FROM {_recordset(_MOMENT)}
LEFT JOIN partner_center.referrals r ON r.account = $1 AND r.id = ANY($3::text[]) AND r.id = d.id
WHERE v.account = $1 AND v.referral_id = ANY($3::text[]) AND v.referral_id = d.id AND v.valid_to IS NULL
"""
"""Runs before the rows change: the outgoing payload moves into the version that it closes."""

OPEN_VERSIONS = f"""
INSERT INTO partner_center.referral_versions
    (account, referral_id, valid_from, change, changed_columns, version, run_id, {", ".join(VERSION_COLUMNS)})
SELECT r.account, r.id, greatest(last.valid_to, coalesce(d.source_at, d.observed_at)),
    CASE WHEN d.change = 'first' AND last.valid_to IS NOT NULL THEN 'back' ELSE d.change END,
    d.changed_columns, r.version, $4, {", ".join(f"r.{name}" for name in VERSION_COLUMNS)}
FROM {_recordset((*_MOMENT, ("change", "text"), ("changed_columns", "text[]")))}
JOIN partner_center.referrals r ON r.account = $1 AND r.id = ANY($3::text[]) AND r.id = d.id
LEFT JOIN LATERAL (
    SELECT max(v.valid_to) AS valid_to FROM partner_center.referral_versions v
    WHERE v.account = $1 AND v.referral_id = d.id
) last ON true
"""

OPEN_FIRST = f"""
INSERT INTO partner_center.referral_versions
    (account, referral_id, valid_from, change, version, run_id, {", ".join(VERSION_COLUMNS)})
SELECT r.account, r.id, coalesce(r.updated_at, r.observed_at), 'first', r.version, $3,
    {", ".join(f"r.{name}" for name in VERSION_COLUMNS)}
FROM partner_center.referrals r WHERE r.account = $1 AND r.id = ANY($2::text[])
"""
"""The first version of rows that were copied just now: it begins at the source's own time, where there is one."""

MARK_GONE = """
UPDATE partner_center.referrals SET deleted_at = now(), changed_at = now()
WHERE account = $1 AND id = ANY($2::text[]) AND deleted_at IS NULL RETURNING id
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


def delete_parts(table: str) -> str:
    """Delete the parts of some referrals from one table."""
    return f"DELETE FROM partner_center.{table} WHERE account = $1 AND referral_id = ANY($2::text[])"


NAMING_PEOPLE = ("referral_customer_contacts", "referral_team_members")

_REWRITTEN = (("payload", "jsonb"), ("content_hash", "uuid"), ("notes", "text"), ("invite_notes", "text"))

REWRITE = f"""
UPDATE partner_center.referrals r SET {", ".join(f"{name} = d.{name}" for name, _ in _REWRITTEN)}
FROM {_recordset((("id", "text"), *_REWRITTEN))}
WHERE r.account = $1 AND r.id = d.id
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
