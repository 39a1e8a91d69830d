"""Saving: one transaction holds the rows, their versions and parts, the rejects, the position and the run's counts.

The order matters. A look without locks first drops what would not change: it only saves work and decides nothing.
Then the lease is checked and held, the rows that exist are locked in the order of their ids, and what to do is decided
on them. A row that another saver inserts in between is noticed, because our insert then returns fewer ids, and the
transaction is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
import stamina
from asyncpg.pool import PoolConnectionProxy

from worker import RELEASE
from worker.core import instant
from worker.core.instant import Instant
from worker.core.mapping import Mapped, Reject, Row, changed_columns, map_record, merge_missing
from worker.core.outcome import Advance, Counts, ToWatermark, ToWindow
from worker.core.page import Record, decode_record
from worker.core.privacy import AfterExpiry, Privacy, hidden, with_contacts_of
from worker.core.upsert import Stored, Verdict, decide, newest_of_each
from worker.store import leases, statements
from worker.store.leases import Run
from worker.store.pool import Database

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
_ATTEMPTS = 5


class _RacedError(Exception):
    """Another saver inserted one of our rows between our look and our insert."""


@dataclass(frozen=True, slots=True)
class _Change:
    row: Row
    verdict: Verdict
    change: str | None  # the kind of version that it opens, if any
    columns: list[str]
    new_to_us: bool = False  # no earlier answer had this version
    erases: bool = False  # the source has hidden contacts, and they go from the history too


async def save(
    database: Database, run: Run, mapped: Mapped, *, pages: int, advance: Advance, asked_for: bool = False
) -> Counts:
    """Store what some pages came to, and move the position with it; all or nothing.

    `asked_for`: a person asked for these very records, so they win even when they look older. Raises LeaseError when
    another process has taken this work over, and StoreError; then nothing was stored.
    """
    one_by_one = False
    async for attempt in stamina.retry_context(
        on=_may_be_tried_again, attempts=_ATTEMPTS, wait_initial=0.05, timeout=60
    ):
        with attempt:
            try:
                counts, changes = await _save(
                    database, run, mapped, pages, advance, asked_for=asked_for, one_by_one=one_by_one
                )
            except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
                one_by_one = True
                counts, changes = await _save(
                    database, run, mapped, pages, advance, asked_for=asked_for, one_by_one=True
                )
            run.changed = run.changed or bool(changes)
            for change in changes:
                if change.new_to_us:
                    run.lag.learn(change.row.version, change.row.observed_at)
            return counts
    raise AssertionError("unreachable")


async def mark_gone(database: Database, run: Run, ids: list[str]) -> int:
    """Mark rows that a proven listing and a look by id no longer have; returns how many were not marked before."""
    async with database.transaction() as connection:
        await leases.check(connection, run)
        now = (await connection.fetchval("SELECT now()")).isoformat()
        still_there = [
            record["id"]
            for record in await connection.fetch(statements.LOCK, run.account, ids)
            if record["deleted_at"] is None
        ]
        moments = [
            {"id": key, "observed_at": now, "change": "gone", "changed_columns": ["deleted_at"]} for key in still_there
        ]
        if moments:
            document = _ENCODE(moments).decode()
            await connection.execute(statements.CLOSE_VERSIONS, run.account, document)
            await connection.execute(statements.MARK_GONE, run.account, still_there)
            await connection.execute(statements.OPEN_VERSIONS, run.account, document, run.id)
    run.changed = run.changed or bool(still_there)
    return len(still_there)


def _may_be_tried_again(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(error, _RacedError) or isinstance(
        cause, asyncpg.DeadlockDetectedError | asyncpg.SerializationError
    )


async def _save(
    database: Database, run: Run, mapped: Mapped, pages: int, advance: Advance, *, asked_for: bool, one_by_one: bool
) -> tuple[Counts, list[_Change]]:
    rejects = list(mapped.rejects)
    async with database.transaction() as connection:
        rows = newest_of_each(mapped.rows)
        stored = await _look(connection, run.account, [row.id for row in rows])
        news = [row for row in rows if decide(row, stored.get(row.id), asked_for=asked_for) is not Verdict.KEEP]
        news = await _really_news(connection, run.account, news, stored, run.privacy.after_expiry)
        await leases.check(connection, run)
        changes: list[_Change] = []
        if news and not one_by_one:
            changes = await _write(connection, run, news, existing=stored.keys(), asked_for=asked_for)
        for row in news if one_by_one else ():
            try:
                async with connection.transaction():
                    changes += await _write(connection, run, [row], existing=stored.keys(), asked_for=asked_for)
            except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
                reason = f"refused by PostgreSQL: {type(error).__name__} ({error.sqlstate})"
                rejects.append(Reject(row.id, row.record.raw, reason, None, row.version))
        await _keep_aside(connection, run, rejects)
        inserted = sum(change.verdict is Verdict.INSERT for change in changes)
        counts = Counts(
            inserted=inserted,
            updated=len(changes) - inserted,
            unchanged=len(mapped.rows) + len(mapped.rejects) - len(changes) - len(rejects),
            rejected=len(rejects),
            pages=pages,
        )
        await _advance(connection, run, advance)
        await connection.execute(
            """
            UPDATE sync.runs SET inserted = inserted + $2, updated = updated + $3, unchanged = unchanged + $4,
                rejected = rejected + $5, pages = pages + $6
            WHERE id = $1
            """,
            run.id,
            counts.inserted,
            counts.updated,
            counts.unchanged,
            counts.rejected,
            counts.pages,
        )
    return counts, changes


async def _look(connection: PoolConnectionProxy, account: str, ids: list[str]) -> dict[str, Stored]:
    return {record["id"]: _stored(record) for record in await connection.fetch(statements.LOOK, account, ids)}


async def _really_news(
    connection: PoolConnectionProxy,
    account: str,
    news: list[Row],
    stored: dict[str, Stored],
    after_expiry: AfterExpiry,
) -> list[Row]:
    """Drop answers that only lack what stays of an earlier one; still without a lock, for a lock is a write too."""
    keeps = after_expiry is AfterExpiry.KEEP
    thinner = [
        row.id
        for row in news
        if row.id in stored and row.version == stored[row.id].version and (keeps or not row.by_id)
    ]
    if not thinner:
        return news
    held = {record["id"]: record for record in await connection.fetch(statements.READ, account, thinner)}
    return [
        row
        for row in news
        if row.id not in held or _judge(row, held[row.id], after_expiry, asked_for=False) is not None
    ]


async def _write(
    connection: PoolConnectionProxy, run: Run, rows: list[Row], *, existing: Any, asked_for: bool
) -> list[_Change]:
    """Decide on locked rows and write what changed; returns the changes."""
    locked: dict[str, asyncpg.Record] = {}
    if any(row.id in existing for row in rows):
        ids = [row.id for row in rows]
        locked = {record["id"]: record for record in await connection.fetch(statements.LOCK, run.account, ids)}
    rule = run.privacy.after_expiry
    judged = [_judge(row, locked.get(row.id), rule, asked_for=asked_for) for row in rows]
    changes = [change for change in judged if change is not None]
    inserts = [change for change in changes if change.verdict is Verdict.INSERT]
    updates = [change for change in changes if change.verdict is not Verdict.INSERT]
    versions = _versions_document([change for change in changes if change.change is not None])
    if versions:
        await connection.execute(statements.CLOSE_VERSIONS, run.account, versions)
    if inserts:
        written = await connection.fetch(statements.INSERT, run.account, _rows_document(inserts))
        if len(written) < len(inserts):
            raise _RacedError
    if updates:
        await connection.execute(statements.UPDATE, run.account, _rows_document(updates))
    if versions:
        await connection.execute(statements.OPEN_VERSIONS, run.account, versions, run.id)
    await _write_children(connection, run, changes)
    erased = [change.row.id for change in changes if change.erases]
    if erased:
        await connection.execute(statements.ERASE_HIDDEN, run.account, erased)
        await connection.execute(statements.DELETE_CLOSED_REJECTS, run.account, erased)
    await connection.execute(
        statements.CLOSE_REJECTS,
        run.account,
        [change.row.id for change in changes],
        [change.row.version for change in changes],
    )
    return changes


def _judge(row: Row, held: asyncpg.Record | None, after_expiry: AfterExpiry, *, asked_for: bool) -> _Change | None:
    stored = _stored(held) if held is not None else None
    verdict = decide(row, stored, asked_for=asked_for)
    if verdict is Verdict.KEEP:
        return None
    if held is None or stored is None:
        return _Change(row, verdict, "first", [], new_to_us=True)
    before = map_record(decode_record(held["payload"].encode()), stored.observed_at)
    if verdict is Verdict.RETURN and isinstance(before, Row):
        before.etag, before.content_hash = stored.etag, stored.content_hash
        return _Change(before, verdict, "back", ["deleted_at"])
    hides = False
    if isinstance(before, Row):
        row, hides = _completed(row, before, after_expiry)
        unchanged = row.version == stored.version and row.content_hash == stored.content_hash
        if unchanged and stored.deleted_at is None and row.etag in (None, stored.etag):
            return None
    if row.version == stored.version and row.etag is None:
        row.etag = stored.etag
    if stored.deleted_at is not None:
        return _Change(row, verdict, "back", ["deleted_at", *_difference(before, row)], erases=hides)
    newer = row.version > stored.version
    if row.content_hash == stored.content_hash:
        return _Change(row, verdict, None, [], new_to_us=newer)
    return _Change(row, verdict, "changed", _difference(before, row), new_to_us=newer, erases=hides)


def _completed(row: Row, before: Row, after_expiry: AfterExpiry) -> tuple[Row, bool]:
    """Add what stays of the earlier answer; returns also whether contacts have to go from the history.

    A list answer may be thinner than an earlier one by id of the same version.
    """
    if row.version == before.version and not row.by_id:
        row = _as(row, merge_missing(row.record, before.record.tree or {}))
    if not hidden(before, row):
        return row, False
    if after_expiry is AfterExpiry.KEEP:
        return _as(row, with_contacts_of(row.record, before.record)), False
    return row, after_expiry is AfterExpiry.ERASE


def _difference(before: Row | Reject, after: Row) -> list[str]:
    return changed_columns(before, after) if isinstance(before, Row) else ["payload"]


def _as(row: Row, record: Record) -> Row:
    """Return the answer with its record completed: by what a fuller answer of the same version gave, or by contacts."""
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


def _rows_document(changes: list[_Change]) -> str:
    return _ENCODE(
        [
            {
                **change.row.values,
                "id": change.row.id,
                "change": change.change,
                "version": change.row.version,
                "etag": change.row.etag,
                "content_hash": str(change.row.content_hash),
                "payload": msgspec.Raw(change.row.record.raw),
                "repaired": change.row.record.repaired,
                "observed_at": change.row.observed_at.isoformat(),
            }
            for change in changes
        ]
    ).decode()


def _versions_document(changes: list[_Change]) -> str | None:
    if not changes:
        return None
    return _ENCODE(
        [
            {
                "id": change.row.id,
                "source_at": _source_time(change),
                "observed_at": change.row.observed_at.isoformat(),
                "change": change.change,
                "changed_columns": change.columns,
            }
            for change in changes
        ]
    ).decode()


def _source_time(change: _Change) -> str | None:
    if change.change == "back" or not change.row.version:
        return None
    return instant.to_datetime(change.row.version).isoformat()


async def _write_children(connection: PoolConnectionProxy, run: Run, changes: list[_Change]) -> None:
    """Replace the parts of changed rows. A row whose content stands keeps its parts untouched."""
    renewed = [change for change in changes if change.verdict is Verdict.UPDATE]
    if renewed:
        await connection.execute(statements.DELETE_CHILDREN, run.account, [change.row.id for change in renewed])
    document: dict[str, list[dict[str, Any]]] = {}
    for change in changes:
        if change.verdict in (Verdict.INSERT, Verdict.UPDATE):
            for table, parts in change.row.children.items():
                document.setdefault(table, []).extend(part | {"referral_id": change.row.id} for part in parts)
    tables = [table for table, parts in document.items() if parts]
    if tables:
        await connection.execute(statements.insert_children(tables), run.account, _ENCODE(document).decode())


async def _keep_aside(connection: PoolConnectionProxy, run: Run, rejects: list[Reject]) -> None:
    newest: dict[str, Reject] = {}
    for reject in rejects:
        key = reject.id or reject.digest.hex()
        if key not in newest or reject.version >= newest[key].version:
            newest[key] = reject
    if newest:
        kept = [newest[key] for key in sorted(newest)]
        await connection.execute(
            statements.REJECT,
            run.account,
            run.id,
            RELEASE,
            sorted(newest),
            [reject.id for reject in kept],
            [reject.version for reject in kept],
            [reject.raw for reject in kept],
            [reject.digest for reject in kept],
            [reject.reason for reject in kept],
            [reject.field for reject in kept],
        )


async def _advance(connection: PoolConnectionProxy, run: Run, advance: Advance) -> None:
    match advance:
        case ToWatermark(through):
            await connection.execute(
                """
                UPDATE sync.watermarks SET position = $2, moved_at = now() WHERE account = $1 AND position < $2
                """,
                run.account,
                through,
            )
        case ToWindow(window_id, through, records):
            await connection.execute(
                """
                UPDATE sync.backfill_windows SET through = greatest(through, $2), records = records + $3 WHERE id = $1
                """,
                window_id,
                through,
                records,
            )


async def judge(database: Database, account: str, rows: list[Row], privacy: Privacy) -> list[tuple[str, Verdict]]:
    """Say for each newest row what saving it would do; writes and locks nothing."""
    newest = newest_of_each(rows)
    async with database.transaction() as connection:
        stored = await _look(connection, account, [row.id for row in newest])
        verdicts = {row.id: decide(row, stored.get(row.id)) for row in newest}
        news = [row for row in newest if verdicts[row.id] is not Verdict.KEEP]
        real = {row.id for row in await _really_news(connection, account, news, stored, privacy.after_expiry)}
    return [(row.id, verdicts[row.id] if row.id in real else Verdict.KEEP) for row in newest]
