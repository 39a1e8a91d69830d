"""Writing what was decided: rows, their versions and parts, rejects, and positions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from worker import RELEASE
from worker.core import instant
from worker.core.mapping import Reject, Row
from worker.core.outcome import Advance, ToWatermark, ToWindow
from worker.core.referral import REFERRAL_COLUMNS
from worker.core.upsert import Verdict
from worker.errors import StoreUnavailable
from worker.store import statements
from worker.store.copying import parts_as_lines, rows_as_lines
from worker.store.leases import Run

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
_NAMES = [column.name for column in REFERRAL_COLUMNS]


class RacedError(StoreUnavailable):
    """Another saver inserted one of our rows between our look and our copy."""

    def __init__(self) -> None:
        super().__init__(
            "Other runs stored the same referrals at the same moment, again and again.", "The next run tries again."
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written of a row.

    `change` is the kind of version that it opens, if any, `columns` what differs, and `tables` those of parts that do.
    `new_to_us`: no earlier answer had this version. `erases`: the source has hidden contacts, and they go from the
    history too.
    """

    row: Row
    verdict: Verdict
    change: str | None
    columns: list[str]
    tables: list[str] = field(default_factory=list)
    new_to_us: bool = False
    erases: bool = False


async def write(connection: PoolConnectionProxy, run: Run, changes: list[Change]) -> None:
    """Write changes that were decided on locked rows; raises RacedError when a new row is there already."""
    inserts = [change for change in changes if change.verdict is Verdict.INSERT]
    updates = [change for change in changes if change.verdict is not Verdict.INSERT]
    again = await _with_history(connection, run.account, inserts)
    chained = [change for change in changes if change.verdict is not Verdict.INSERT or change.row.id in again]
    turned = [change for change in chained if change.change is not None]
    versions = run.account, _versions_document(turned), [change.row.id for change in turned]
    if turned:
        await connection.execute(statements.CLOSE_VERSIONS, *versions)
    if inserts:
        await _copy_rows(connection, run.account, inserts)
    if updates:
        ids = [change.row.id for change in updates]
        await connection.execute(statements.UPDATE, run.account, _rows_document(updates), ids)
    if turned:
        await connection.execute(statements.OPEN_VERSIONS, *versions, run.id)
    first = [change.row.id for change in inserts if change.row.id not in again]
    if first:
        await connection.execute(statements.OPEN_FIRST, run.account, first, run.id)
    await _renew_parts(connection, run.account, inserts, updates)
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


async def _renew_parts(
    connection: PoolConnectionProxy, account: str, inserts: list[Change], updates: list[Change]
) -> None:
    """Copy the parts of new rows, and replace those of changed rows in the tables where they differ."""
    for table in statements.PARTS:
        renewed = [change.row for change in updates if table in change.tables]
        if renewed:
            await connection.execute(statements.delete_parts(table), account, [row.id for row in renewed])
        await copy_parts(connection, account, table, [*(change.row for change in inserts), *renewed])


async def copy_parts(connection: PoolConnectionProxy, account: str, table: str, rows: Iterable[Row]) -> None:
    """Copy the parts of rows that have none in this table."""
    parts = [(account, row.id, *part) for row in rows for part in row.children.get(table, ())]
    if parts:
        await _copy(connection, table, statements.PARTS[table], parts_as_lines(parts))


async def _copy(
    connection: PoolConnectionProxy, table: str, columns: Sequence[str], source: AsyncIterator[bytes]
) -> None:
    await connection.copy_to_table(table, schema_name="partner_center", columns=columns, source=source, format="text")


async def _copy_rows(connection: PoolConnectionProxy, account: str, inserts: list[Change]) -> None:
    source = rows_as_lines(account, [change.row for change in inserts])
    try:
        await _copy(connection, "referrals", statements.ROW, source)
    except asyncpg.UniqueViolationError as error:
        raise RacedError from error


async def _with_history(connection: PoolConnectionProxy, account: str, inserts: list[Change]) -> set[str]:
    if not inserts:
        return set()
    found = await connection.fetch(statements.WITH_HISTORY, account, [change.row.id for change in inserts])
    return {record["referral_id"] for record in found}


def _rows_document(changes: list[Change]) -> str:
    return _ENCODE(
        [
            {
                **dict(zip(_NAMES, change.row.values, strict=True)),
                "id": change.row.id,
                "change": change.change,
                "version": change.row.version,
                "etag": change.row.etag,
                "content_hash": str(change.row.content_hash),
                "payload": msgspec.Raw(change.row.raw),
                "repaired": change.row.repaired,
                "observed_at": change.row.observed_at,
            }
            for change in changes
        ]
    ).decode()


def _versions_document(changes: list[Change]) -> str:
    return _ENCODE(
        [
            {
                "id": change.row.id,
                "source_at": _source_time(change),
                "observed_at": change.row.observed_at,
                "change": change.change,
                "changed_columns": change.columns,
            }
            for change in changes
        ]
    ).decode()


def _source_time(change: Change) -> datetime | None:
    if change.change == "back" or not change.row.version:
        return None
    return instant.to_datetime(change.row.version)


async def keep_aside(connection: PoolConnectionProxy, run: Run, rejects: list[Reject]) -> None:
    """Keep rejects, of each referral the newest."""
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


async def advance_to(connection: PoolConnectionProxy, run: Run, advances: Iterable[Advance]) -> None:
    """Move the positions that some pages reached."""
    windows: dict[int, ToWindow] = {}
    watermarks = []
    for advance in advances:
        match advance:
            case ToWatermark(through):
                watermarks.append(through)
            case ToWindow(window_id):
                windows[window_id] = advance.after(windows.get(window_id))
    if watermarks:
        await connection.execute(
            "UPDATE sync.watermarks SET position = $2, moved_at = now() WHERE account = $1 AND position < $2",
            run.account,
            max(watermarks),
        )
    if windows:
        await connection.execute(
            """
            UPDATE sync.backfill_windows w SET through = greatest(w.through, d.through),
                records = w.records + d.records, done_at = CASE WHEN d.done THEN now() ELSE w.done_at END
            FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::boolean[]) AS d(id, through, records, done)
            WHERE w.id = d.id
            """,
            list(windows),
            [window.through for window in windows.values()],
            [window.records for window in windows.values()],
            [window.done for window in windows.values()],
        )
