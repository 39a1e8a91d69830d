"""Writing what was decided: rows, their versions and child rows, rejected records, and checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from worker import RELEASE
from worker.errors import LeaseError, StoreUnavailable
from worker.model import instant
from worker.model.codec import encode
from worker.model.counts import Checkpoint, WatermarkCheckpoint, WindowCheckpoint
from worker.model.decide import Verdict
from worker.model.mapping import RejectedRecord, Row
from worker.model.schema import REFERRAL_COLUMNS
from worker.store import sql
from worker.store.copying import NewRow, children_as_lines, in_pieces, rows_as_lines
from worker.store.leases import Lease

_NAMES = [column.name for column in REFERRAL_COLUMNS]
SHORTEST_VERSION = timedelta(microseconds=1)


class RacedError(StoreUnavailable):
    """Another saver inserted one of our rows between our look and our copy."""

    def __init__(self) -> None:
        super().__init__(
            "Other runs stored the same referrals at the same moment, again and again.", "The next run tries again."
        )


@dataclass(slots=True)  # not frozen: see NewRow
class Change:
    """What is to be written of a row.

    `change` says what begins a version, if anything does, `columns` what differs, and `tables` those child tables that
    do. `key` and `since` are of the stored row: its number, and when its present version began. `is_new_version`: no
    earlier answer had this version. `erases`: the source has hidden contacts, and they go from the history too.
    `before` is the stored row, where there is one that can be read.
    """

    row: Row
    verdict: Verdict
    change: str | None
    columns: list[str]
    tables: list[str] = field(default_factory=list)
    key: int = 0
    since: datetime | None = None
    is_new_version: bool = False
    erases: bool = False
    before: Row | None = None

    def begins(self, since: datetime | None) -> datetime:
        """Return from when the new version holds: the source's time if that is later than `since`, else when observed.

        A microsecond later than `since` if both are earlier: no version is empty.
        """
        says_when = self.change != "back" and self.row.version
        source_at = instant.to_datetime(self.row.version) if says_when else None
        if since is None:
            return source_at or self.row.observed_at
        later = [at for at in (source_at, self.row.observed_at) if at is not None and at > since]
        return later[0] if later else since + SHORTEST_VERSION


async def write(connection: PoolConnectionProxy, lease: Lease, changes: list[Change]) -> None:
    """Write changes that were decided on locked rows; raises RacedError when a new row is there already."""
    inserts = [change for change in changes if change.verdict is Verdict.INSERT]
    updates = [change for change in changes if change.verdict is not Verdict.INSERT]
    await _insert(connection, lease, inserts)
    await _update(connection, lease, updates)
    erased = [change.row.id for change in changes if change.erases]
    if erased:
        await connection.execute(sql.ERASE_HIDDEN, lease.account, erased)
        await connection.execute(sql.DELETE_CLOSED_REJECTS, lease.account, erased)
    await connection.execute(
        sql.CLOSE_REJECTS,
        lease.account,
        [change.row.id for change in changes],
        [change.row.version for change in changes],
    )


async def _insert(connection: PoolConnectionProxy, lease: Lease, inserts: list[Change]) -> None:
    """Copy new rows and their child rows; a referral that was here before goes on with its history."""
    if not inserts:
        return
    ids = [change.row.id for change in inserts]
    found = await connection.fetch(sql.LAST_VERSIONS, lease.account, ids)
    ended = {record["referral_id"]: record["valid_to"] for record in found}
    keys = [record["nextval"] for record in await connection.fetch(sql.KEYS, len(inserts))]
    new = [
        NewRow(change.row, key, change.begins(ended.get(change.row.id)), "back" if change.row.id in ended else "first")
        for key, change in zip(keys, inserts, strict=True)
    ]
    if ended:
        back = [one for one in new if one.row.id in ended]
        await connection.execute(
            sql.CONTINUE_HISTORY,
            lease.account,
            [one.row.id for one in back],
            [one.key for one in back],
            _texts(ended[one.row.id] for one in back),
            _texts(one.valid_from for one in back),
        )
    try:
        await _copy(connection, "referrals", sql.ROW, rows_as_lines(lease.account, lease.id, new))
    except asyncpg.UniqueViolationError as error:
        raise RacedError from error
    await copy_children(connection, sql.CHILD_TABLES, [(one.key, one.row) for one in new])


async def _update(connection: PoolConnectionProxy, lease: Lease, updates: list[Change]) -> None:
    """Let the versions end that others follow, change the rows, and replace their child rows where those differ."""
    if not updates:
        return
    begins = {change.row.id: change.begins(change.since) for change in updates if change.change is not None}
    if begins:
        await end_versions(connection, lease.account, begins)
    await connection.execute(sql.UPDATE, lease.account, _rows_document(updates, begins), lease.id)
    for table in sql.CHILD_TABLES:
        renewed = [(change.key, change.row) for change in updates if table in change.tables]
        if renewed:
            await connection.execute(sql.delete_children(table), [key for key, _ in renewed])
            await copy_children(connection, [table], renewed)


async def end_versions(connection: PoolConnectionProxy, account: str, until: dict[str, datetime]) -> None:
    """Make history of what some rows hold; `until` is when the next version of each begins."""
    await connection.execute(sql.END_VERSIONS, account, list(until), _texts(until.values()))


async def write_deleted(connection: PoolConnectionProxy, lease: Lease, since: dict[str, datetime]) -> None:
    """Mark locked rows as deleted at the source; `since` is when the version that says so begins."""
    await end_versions(connection, lease.account, since)
    await connection.execute(sql.MARK_DELETED, lease.account, list(since), _texts(since.values()), lease.id)


def _texts(moments: Iterable[datetime]) -> list[str]:
    return [moment.isoformat() for moment in moments]


async def copy_children(
    connection: PoolConnectionProxy, tables: Collection[str], rows: Iterable[tuple[int, Row]]
) -> None:
    """Copy the rows of child tables for referrals, each with its key, that have none there."""
    for table, lines in children_as_lines(rows, tables).items():
        if lines:
            await _copy(connection, table, sql.CHILD_TABLES[table], in_pieces(lines))


async def _copy(
    connection: PoolConnectionProxy, table: str, columns: Sequence[str], source: AsyncIterator[bytes]
) -> None:
    await connection.copy_to_table(table, schema_name="partner_center", columns=columns, source=source, format="text")


def _rows_document(changes: list[Change], begins: dict[str, datetime]) -> str:
    return encode(
        [
            {
                **dict(zip(_NAMES, change.row.values, strict=True)),
                "id": change.row.id,
                "change": change.change,
                "changed_columns": change.columns,
                "valid_from": begins.get(change.row.id),
                "version": change.row.version,
                "etag": change.row.etag,
                "content_hash": str(change.row.content_hash),
                "payload": msgspec.Raw(change.row.raw),
                "repaired": change.row.repaired,
                "unreadable": change.row.unreadable or None,
                "observed_at": change.row.observed_at,
            }
            for change in changes
        ]
    ).decode()


async def put_rejected(connection: PoolConnectionProxy, lease: Lease, rejects: list[RejectedRecord]) -> None:
    """Keep rejected records, of each referral the newest."""
    newest: dict[str, RejectedRecord] = {}
    for reject in rejects:
        key = reject.id or reject.digest.hex()
        if key not in newest or reject.version >= newest[key].version:
            newest[key] = reject
    if newest:
        kept = [newest[key] for key in sorted(newest)]
        await connection.execute(
            sql.REJECT,
            lease.account,
            lease.id,
            RELEASE,
            sorted(newest),
            [reject.id for reject in kept],
            [reject.version for reject in kept],
            [reject.raw for reject in kept],
            [reject.digest for reject in kept],
            [reject.reason for reject in kept],
            [reject.field for reject in kept],
        )


async def put_checkpoints(
    connection: PoolConnectionProxy, lease: Lease, checkpoints: Iterable[Checkpoint], rows: Iterable[Row]
) -> None:
    """Move the checkpoints that some pages, which showed `rows`, reached, and remember the newest row at the watermark.

    Raises LeaseError where another run reads the window by now.
    """
    windows: dict[int, WindowCheckpoint] = {}
    watermarks = []
    for checkpoint in checkpoints:
        match checkpoint:
            case WatermarkCheckpoint(through):
                watermarks.append(through)
            case WindowCheckpoint(window_id):
                windows[window_id] = checkpoint.after(windows.get(window_id))
    if watermarks:
        through = max(watermarks)
        newest = max((row for row in rows if row.version <= through), key=lambda row: row.version, default=None)
        await connection.execute(
            """
            UPDATE sync.watermarks SET checkpoint = $2, moved_at = now(),
                anchor_id = coalesce($3, anchor_id), anchor_version = coalesce($4, anchor_version)
            WHERE account = $1 AND checkpoint < $2
            """,
            lease.account,
            through,
            newest and newest.id,
            newest and newest.version,
        )
    if windows:
        moved = await connection.execute(
            """
            UPDATE sync.backfill_windows w SET through = greatest(w.through, d.through),
                records = w.records + d.records, done_at = CASE WHEN d.done THEN now() ELSE w.done_at END
            FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::boolean[]) AS d(id, through, records, done)
            WHERE w.id = d.id AND w.run_id = $5
            """,
            list(windows),
            [window.through for window in windows.values()],
            [window.records for window in windows.values()],
            [window.done for window in windows.values()],
            lease.id,
        )
        if moved != f"UPDATE {len(windows)}":
            raise LeaseError(
                f"Another run took over a window of the backfill of {lease.account}; this one wrote nothing more.",
                "It was paused or cut off for longer than its lease. Nothing is lost: the other one goes on.",
            )
