"""Saving: one transaction holds rows, versions, child rows, rejected records, outbox, checkpoint and the run's counts.

The order matters. A look without locks first drops what would not change: it only saves work and decides nothing.
Then the lease is checked and locked, and so are the rows that exist, in the order of their ids; on them it is decided
what to do. A row that another saver inserts in between refuses our copy of it, and the transaction is tried again.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec
import stamina
from asyncpg.pool import PoolConnectionProxy

from worker.model.counts import Checkpoint, Counts
from worker.model.decide import Stored, Verdict, decide, newest_of_each
from worker.model.instant import Instant
from worker.model.mapping import (
    Mapped,
    RejectedRecord,
    Row,
    changed_columns,
    changed_tables,
    lacking,
    map_record,
    merge_missing,
)
from worker.model.privacy import AfterExpiry, Privacy, hidden, with_contacts_of
from worker.model.record import Record, decode_record
from worker.store import leases, outbox, runs, sql
from worker.store.database import Database
from worker.store.leases import Lease
from worker.store.write import SHORTEST_VERSION, Change, RacedError, put_checkpoints, put_rejected, write, write_deleted

_ATTEMPTS = 20
"""Each race that is lost means that another run got on; each deadlock that one of two did."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save came to: its counts, and the rows with which a new version began."""

    counts: Counts
    new_versions: list[Row]


async def save(
    database: Database,
    lease: Lease,
    mapped: Mapped,
    *,
    pages: int = 0,
    checkpoints: Sequence[Checkpoint] = (),
    force: bool = False,
) -> Saved:
    """Store what some pages came to, and move the checkpoints with it; all or nothing.

    `force`: these very records were asked for, so they win even when they look older. Raises LeaseError when
    another process has taken this work over, and StoreError; then nothing was stored.
    """
    async for attempt in stamina.retry_context(
        on=_may_be_tried_again, attempts=_ATTEMPTS, wait_initial=0.05, wait_max=1, timeout=60
    ):
        with attempt:
            counts, changes = await _save(database, lease, mapped, pages, checkpoints, force=force)
            lease.confirmed.number += counts.records + counts.pages
            return Saved(counts, [change.row for change in changes if change.is_new_version])
    raise AssertionError("unreachable")


async def mark_deleted(database: Database, lease: Lease, ids: list[str], before: datetime | None = None) -> int:
    """Mark rows that a complete listing and a request by id no longer have; returns how many were not marked before.

    One that was seen after the moment `before` is not marked: it came back while the listing was read.
    """
    async with database.transaction() as connection:
        await leases.check(connection, lease)
        now: datetime = await connection.fetchval("SELECT now()")
        live_keys = {
            record["id"]: max(now, record["valid_from"] + SHORTEST_VERSION)
            for record in await connection.fetch(sql.LOCK, lease.account, ids)
            if record["deleted_at"] is None and (before is None or record["observed_at"] < before)
        }
        if live_keys:
            await write_deleted(connection, lease, live_keys)
    return len(live_keys)


def _may_be_tried_again(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(error, RacedError) or isinstance(
        cause, asyncpg.DeadlockDetectedError | asyncpg.SerializationError
    )


async def _save(
    database: Database, lease: Lease, mapped: Mapped, pages: int, checkpoints: Sequence[Checkpoint], *, force: bool
) -> tuple[Counts, list[Change]]:
    rejects = list(mapped.rejects)
    async with database.transaction(flushed=False) as connection:
        rows = newest_of_each(mapped.rows)
        stored = await _look(connection, lease.account, [row.id for row in rows])
        news = [row for row in rows if decide(row, stored.get(row.id), force=force).changes]
        news = await _drop_noops(connection, lease.account, news, stored, lease.privacy.after_expiry)
        await leases.check(connection, lease)
        changes = await _write_what_can_be(connection, lease, news, rejects, existing=stored, force=force)
        await put_rejected(connection, lease, rejects)
        await outbox.put(connection, lease, changes)
        inserted = sum(change.verdict is Verdict.INSERT for change in changes)
        counts = Counts(
            inserted=inserted,
            updated=len(changes) - inserted,
            unchanged=len(mapped.rows) + len(mapped.rejects) - len(changes) - len(rejects),
            rejected=len(rejects),
            pages=pages,
        )
        await put_checkpoints(connection, lease, checkpoints, rows)
        await runs.count(connection, lease, counts)
    return counts, changes


async def _write_what_can_be(
    connection: PoolConnectionProxy,
    lease: Lease,
    rows: list[Row],
    rejects: list[RejectedRecord],
    *,
    existing: Container[str],
    force: bool,
) -> list[Change]:
    """Write rows; what PostgreSQL refuses is halved until the very record is found, which becomes a rejected record."""
    if not rows:
        return []
    try:
        async with connection.transaction():
            changes = await _decided(connection, lease, rows, existing=existing, force=force)
            await write(connection, lease, changes)
            return changes
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
        if len(rows) == 1:
            reason = f"refused by PostgreSQL: {type(error).__name__} ({error.sqlstate})"
            rejects.append(RejectedRecord(rows[0].id, rows[0].raw, reason, None, rows[0].version))
            return []
    changes = []
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        changes += await _write_what_can_be(connection, lease, half, rejects, existing=existing, force=force)
    return changes


async def _look(connection: PoolConnectionProxy, account: str, ids: list[str]) -> dict[str, Stored]:
    if not ids:
        return {}
    return {record["id"]: _stored(record) for record in await connection.fetch(sql.LOOK, account, ids)}


async def _drop_noops(
    connection: PoolConnectionProxy,
    account: str,
    news: list[Row],
    stored: dict[str, Stored],
    after_expiry: AfterExpiry,
) -> list[Row]:
    """Drop answers that only lack what stays of an earlier one; still without a lock, for a lock is a write too."""
    keeps = after_expiry is AfterExpiry.KEEP
    partial = [
        row.id
        for row in news
        if row.id in stored and row.version == stored[row.id].version and (keeps or not row.by_id)
    ]
    if not partial:
        return news
    existing = {record["id"]: record for record in await connection.fetch(sql.READ, account, partial)}
    return [
        row
        for row in news
        if row.id not in existing or _judge(row, existing[row.id], after_expiry, force=False) is not None
    ]


async def _decided(
    connection: PoolConnectionProxy, lease: Lease, rows: list[Row], *, existing: Container[str], force: bool
) -> list[Change]:
    """Decide on locked rows."""
    locked: dict[str, asyncpg.Record] = {}
    ids = [row.id for row in rows if row.id in existing]
    if ids:
        locked = {record["id"]: record for record in await connection.fetch(sql.LOCK, lease.account, ids)}
    rule = lease.privacy.after_expiry
    judged = [_judge(row, locked.get(row.id), rule, force=force) for row in rows]
    return [change for change in judged if change is not None]


def _judge(row: Row, existing: asyncpg.Record | None, after_expiry: AfterExpiry, *, force: bool) -> Change | None:
    stored = _stored(existing) if existing is not None else None
    verdict = decide(row, stored, force=force)
    if not verdict.changes:
        return None
    if existing is None or stored is None:
        return Change(row, verdict, "first", [], is_new_version=True)
    before = map_record(decode_record(existing["payload"].encode()), stored.observed_at)
    stood = before if isinstance(before, Row) else None
    of = {"key": existing["referral_key"], "since": existing["valid_from"], "before": stood}
    if verdict is Verdict.RETURN and isinstance(before, Row):
        before.etag, before.content_hash = stored.etag, stored.content_hash
        return Change(before, verdict, "back", ["deleted_at"], **of)
    hides = False
    if isinstance(before, Row):
        row, hides = _completed(row, before, after_expiry)
        unchanged = row.version == stored.version and row.content_hash == stored.content_hash
        if unchanged and stored.deleted_at is None and row.etag in (None, stored.etag):
            return None
    if row.version == stored.version and row.etag is None:
        row.etag = stored.etag
    if stored.deleted_at is not None:
        columns, tables = _difference(before, row)
        return Change(row, verdict, "back", ["deleted_at", *columns], tables, erases=hides, **of)
    newer = row.version > stored.version
    if row.content_hash == stored.content_hash:
        return Change(row, verdict, None, [], is_new_version=newer, **of)
    columns, tables = _difference(before, row)
    return Change(row, verdict, "changed", columns, tables, is_new_version=newer, erases=hides, **of)


def _completed(row: Row, before: Row, after_expiry: AfterExpiry) -> tuple[Row, bool]:
    """Add what stays of the earlier answer; returns also whether contacts have to go from the history.

    A list answer may be more partial than an earlier one by id of the same version.
    """
    if row.version == before.version and not row.by_id:
        row = _as(row, merge_missing(row.record, before.record.tree or {}))
    if not hidden(before, row):
        return row, False
    if after_expiry is AfterExpiry.KEEP:
        return _as(row, with_contacts_of(row.record, before.record)), False
    return row, after_expiry is AfterExpiry.ERASE


def _difference(before: Row | RejectedRecord, after: Row) -> tuple[list[str], list[str]]:
    """Name what differs, and the child tables that do: all, where what was stored cannot be read any more.

    Of that the stage alone is compared: views of time in stage read only versions that say they begin one.
    """
    if not isinstance(before, Row):
        earlier = msgspec.json.decode(before.raw)
        stage = [name for name in ("status", "substatus") if earlier.get(name) != after.value(name)]
        return ["payload", *stage], list(sql.CHILD_TABLES)
    return changed_columns(before, after), changed_tables(before, after)


def _as(row: Row, record: Record) -> Row:
    """Return the answer with its record completed from an earlier answer of the same version, or with contacts."""
    completed = map_record(record, row.observed_at, by_id=row.by_id)
    if not isinstance(completed, Row):
        return row
    completed.etag = row.etag
    return completed


def _stored(record: asyncpg.Record) -> Stored:
    return Stored(
        Instant(record["version"]),
        record["content_hash"],
        record["etag"],
        record["observed_at"],
        record["deleted_at"],
    )


async def judge(database: Database, account: str, rows: list[Row], privacy: Privacy) -> list[tuple[str, Verdict]]:
    """Say for each newest row what saving it would do; writes and locks nothing."""
    newest = newest_of_each(rows)
    async with database.transaction() as connection:
        stored = await _look(connection, account, [row.id for row in newest])
        verdicts = {row.id: decide(row, stored.get(row.id)) for row in newest}
        news = [row for row in newest if verdicts[row.id].changes]
        real = {row.id for row in await _drop_noops(connection, account, news, stored, privacy.after_expiry)}
    noops = {row.id for row in news} - real
    return [(row.id, Verdict.KEEP if row.id in noops else verdicts[row.id]) for row in newest]


async def undecided(
    database: Database, account: str, rows: list[Row], privacy: Privacy, only_by_id: set[str]
) -> list[tuple[Row, Instant, set[str]]]:
    """Return the newest rows that only a request by id can decide on, with the stored version and what each lacks.

    Those of an older version than the copy has lack no members. Others lack members which the copy has of the same
    version, and which are not `only_by_id`: saving keeps such members, for one list answer may lack more than another.
    Writes and locks nothing.
    """
    newest = newest_of_each(rows)
    async with database.transaction() as connection:
        stored = await _look(connection, account, [row.id for row in newest])
        differ = {row.id: row for row in newest if row.id in stored and _differs_at_its_version(row, stored[row.id])}
        existing = await connection.fetch(sql.READ, account, list(differ)) if differ else []
    found: list[tuple[Row, Instant, set[str]]] = [
        (row, stored[row.id].version, set()) for row in newest if decide(row, stored.get(row.id)) is Verdict.OLDER
    ]
    for record in existing:
        row = differ[record["id"]]
        before = map_record(decode_record(record["payload"].encode()), row.observed_at)
        if isinstance(before, Row):
            keeps = hidden(before, row) and privacy.after_expiry is AfterExpiry.KEEP
            shown = with_contacts_of(row.record, before.record) if keeps else row.record
            lacks = lacking(before.record.tree or {}, shown.tree or {}) - only_by_id - {"eTag"}
            if lacks:
                found.append((row, row.version, lacks))
    return found


def _differs_at_its_version(row: Row, stored: Stored) -> bool:
    return row.version == stored.version and row.content_hash != stored.content_hash
