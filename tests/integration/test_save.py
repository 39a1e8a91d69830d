"""Saving, on a real PostgreSQL: the rules that were each seen to lose data when broken."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from tests.support.databases import new_database
from tests.support.pages import ENCODE, NOON, page, referral
from tests.support.recorder import COPY, Recorder
from tests.support.runs import leased
from tests.support.steps import crash
from worker.demo.data import make_referrals
from worker.embedded import server as embedded
from worker.errors import LeaseError, StoreError, StoreUnavailable
from worker.model import instant
from worker.model.counts import Counts, WatermarkCheckpoint
from worker.model.mapping import map_pages
from worker.model.record import Page
from worker.model.schema import CHILDREN, NESTED
from worker.store import leases, migrate, queries, runs
from worker.store.database import Database, open_database
from worker.store.erase import forget
from worker.store.leases import Lease
from worker.store.save import mark_deleted, save


@pytest.fixture
async def run(database: Database) -> AsyncIterator[Lease]:
    async with leased(database, "contoso", "incremental") as current:
        yield current


async def put(database: Database, run: Lease, *pages: Page, through: str | None = None) -> Counts:
    advance = [WatermarkCheckpoint(instant.parse(through))] if through else []
    return (await save(database, run, map_pages(pages), pages=len(pages), checkpoints=advance)).counts


async def versions(db: asyncpg.Connection, referral_id: str = "r1") -> list[asyncpg.Record]:
    rows = await db.fetch(
        "SELECT * FROM partner_center.referral_history WHERE referral_id = $1 ORDER BY valid_from", referral_id
    )
    for earlier, later in pairwise(rows):
        assert earlier["valid_to"] == later["valid_from"], "the chain is unbroken"
        assert earlier["payload"] is not None
    if rows:
        assert rows[-1]["valid_to"] is None
    return list(rows)


async def marks(db: asyncpg.Connection) -> list[asyncpg.Record]:
    """What any write or lock of a row would change."""
    return list(
        await db.fetch("SELECT id, xmin::text, xmax::text, ctid::text FROM partner_center.referrals ORDER BY id")
    )


async def test_a_record_lands_typed_and_exact_with_its_child_rows(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    value = Decimal("123456789012345678901234567890.12345")
    tree = referral(
        details={
            "dealValue": value,
            "requirements": {"industries": [{"id": "Retail"}], "solutions": [{"id": "S", "price": Decimal("0.10")}]},
        },
        team=[{"email": "seller@example.com"}],
        registrations=[{"id": "g", "solutionDetails": [{"id": "s", "value": Decimal("1.50")}]}],
    )
    assert await put(database, run, page(tree)) == Counts(inserted=1, pages=1)
    row = await db.fetchrow("SELECT * FROM partner_center.referrals")
    assert row is not None
    assert (row["deal_value"], row["version"]) == (value, instant.parse(tree["updatedDateTime"]))
    assert row["updated_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC), "floored"
    assert await db.fetchval("SELECT payload #>> '{details,dealValue}' FROM partner_center.referrals") == str(value)
    for table, column, expected in (
        ("requirements", "item_id", "Retail"),
        ("solutions", "price", Decimal("0.10")),
        ("team_members", "email", "seller@example.com"),
        ("registration_solutions", "value", Decimal("1.50")),
    ):
        assert await db.fetchval(f"SELECT {column} FROM partner_center.referral_{table}") == expected  # noqa: S608 - constants


async def test_history_keeps_each_change(database: Database, run: Lease, db: asyncpg.Connection) -> None:
    await put(database, run, page(referral()))
    await put(database, run, page(referral(minute=5, status="Active"), seconds=60))
    await put(database, run, page(referral(minute=5, status="Closed"), seconds=120))
    first, second, third = await versions(db)
    assert first["valid_from"] == datetime(2024, 5, 1, 10, tzinfo=UTC), "its own updatedDateTime"
    assert second["valid_from"] == datetime(2024, 5, 1, 10, 5, tzinfo=UTC)
    assert third["valid_from"] == NOON + timedelta(seconds=120), "the source's time is not later, so when it was read"
    assert [row["change"] for row in (first, second, third)] == ["first", "changed", "changed"]
    assert second["changed_columns"] == ["status", "updated_at"]
    assert [msgspec.json.decode(row["payload"])["status"] for row in (first, second)] == ["New", "Active"]
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_versions") == 2, "the past only"


async def test_a_first_backfill_writes_no_history(database: Database, run: Lease, db: asyncpg.Connection) -> None:
    await put(database, run, page(*make_referrals(50, 3, NOON)))
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_versions") == 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_history WHERE change = 'first'") == 50


async def test_a_row_that_was_erased_goes_on_with_its_history(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    """Whoever deletes the row: its present version ends then, and lasts until the one with which it comes back."""
    await put(database, run, page(referral()))
    await put(database, run, page(referral(minute=5, status="Active"), seconds=60))
    await db.execute("DELETE FROM partner_center.referrals")
    rows = await db.fetch("SELECT valid_from, valid_to, status FROM partner_center.referral_versions ORDER BY 1")
    assert [row["status"] for row in rows] == ["New", "Active"]
    assert rows[-1]["valid_to"] > rows[-1]["valid_from"]
    later = int((datetime.now(UTC) - NOON).total_seconds()) + 3600
    await put(database, run, page(referral(minute=9, status="Closed"), seconds=later))
    assert [row["change"] for row in await versions(db)] == ["first", "changed", "back"]
    assert [row["status"] for row in await versions(db)] == ["New", "Active", "Closed"]


async def test_an_older_version_arriving_late_changes_nothing(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    await put(database, run, page(referral(minute=5, status="Active")))
    before = await marks(db)
    assert await put(database, run, page(referral(minute=1), seconds=60)) == Counts(unchanged=1, pages=1)
    assert await marks(db) == before
    assert len(await versions(db)) == 1


async def test_two_versions_on_one_page_are_no_error(database: Database, run: Lease, db: asyncpg.Connection) -> None:
    counts = await put(database, run, page(referral(minute=5, status="Active"), referral(minute=1)))
    assert (counts.inserted, counts.unchanged) == (1, 1)
    assert await db.fetchval("SELECT status FROM partner_center.referrals") == "Active"


async def test_an_unchanged_record_is_neither_written_nor_locked(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    await put(database, run, page(referral(1), referral(2)))
    before = await marks(db)
    assert await put(database, run, page(referral(1), referral(2), seconds=60)) == Counts(unchanged=2, pages=1)
    assert await marks(db) == before


async def test_a_partial_list_answer_erases_nothing_and_writes_nothing(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    full = referral(
        registrations=[{"id": "g"}], customerProfile={"name": "n", "team": [{"email": "c@example.com"}]}, eTag='"1"'
    )
    partial = referral(customerProfile={"name": "n"})
    await put(database, run, page(full, by_id=True))
    before = await marks(db)
    await put(database, run, page(partial, seconds=60))
    assert await marks(db) == before
    await put(database, run, page(partial | {"name": "silent edit"}, seconds=120))
    row = await db.fetchrow("SELECT name, etag, payload ? 'registrations' AS kept FROM partner_center.referrals")
    assert row is not None
    assert (row["name"], row["etag"], row["kept"]) == ("silent edit", '"1"', True)
    await put(database, run, page(referral(minute=9), seconds=180))
    assert await db.fetchval("SELECT etag FROM partner_center.referrals") is None, (
        "a newer version without one clears it"
    )
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_registrations") == 0


async def test_deleted_and_back_are_versions(database: Database, run: Lease, db: asyncpg.Connection) -> None:
    await put(database, run, page(referral()))
    assert await mark_deleted(database, run, ["r1", "absent"]) == 1
    assert await mark_deleted(database, run, ["r1"]) == 0
    later = int((datetime.now(UTC) - NOON).total_seconds()) + 60
    await put(database, run, page(referral(), seconds=later))
    assert await db.fetchval("SELECT deleted_at FROM partner_center.referrals") is None
    assert [row["change"] for row in await versions(db)] == ["first", "deleted", "back"]


async def test_a_row_erased_and_stored_again_continues_its_chain(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    await put(database, run, page(referral()))
    await db.execute("DELETE FROM partner_center.referrals")
    await put(database, run, page(referral(minute=3), seconds=60))
    rows = await db.fetch(
        "SELECT change, valid_from, valid_to FROM partner_center.referral_history ORDER BY valid_from"
    )
    assert [row["change"] for row in rows] == ["first", "back"]
    assert rows[0]["valid_to"] == rows[1]["valid_from"]


async def test_rejected_records_are_kept_once_and_closed_by_a_newer_version(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    bad = referral(2, anything=Decimal("1e200000"))
    counts = await put(database, run, page(referral(1), bad, b"7"))
    assert (counts.inserted, counts.rejected) == (1, 2)
    kept = await db.fetchrow("SELECT * FROM sync.rejected_records WHERE referral_id = 'r2'")
    assert kept is not None
    assert kept["payload"] == ENCODE(bad)
    before = await db.fetch("SELECT key, xmin::text FROM sync.rejected_records ORDER BY key")
    await put(database, run, page(bad, b"7", seconds=60))
    assert await db.fetch("SELECT key, xmin::text FROM sync.rejected_records ORDER BY key") == before
    await put(database, run, page(referral(2, minute=1), seconds=120))
    assert await db.fetchval("SELECT count(*) FROM sync.rejected_records WHERE closed_at IS NULL") == 1


async def test_what_postgresql_refuses_becomes_a_rejected_record_and_its_neighbours_are_stored(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    huge = b'{"id":"r2","anything":1e200000}'
    counts = await put(database, run, page(referral(1), huge, referral(3)), through="2024-05-01T10:00:00Z")
    assert (counts.inserted, counts.rejected) == (2, 1)
    assert "refused by PostgreSQL" in await db.fetchval("SELECT reason FROM sync.rejected_records")


async def test_savers_of_the_same_rows_do_not_lose_or_deadlock(database: Database, db: asyncpg.Connection) -> None:
    async def saver(kind: str, turn: int) -> None:
        async with leased(database, "contoso", kind) as run:
            for minute in range(turn, 40, 4):
                order = range(1, 21) if turn % 2 else range(20, 0, -1)
                await put(
                    database, run, page(*(referral(n, minute, status=str(minute)) for n in order), seconds=minute)
                )

    await asyncio.gather(
        *(saver(kind, turn) for turn, kind in enumerate(("incremental", "backfill", "reconcile", "refresh")))
    )
    assert {row["status"] for row in await db.fetch("SELECT status FROM partner_center.referrals")} == {"39"}
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 20
    for number in range(1, 21):
        await versions(db, f"r{number}")


async def test_who_lost_the_lease_writes_nothing(database: Database, db: asyncpg.Connection) -> None:
    async with leased(database, "contoso", "incremental") as run:
        await db.execute("UPDATE sync.leases SET fence = fence + 1, owner = 'another'")
        with pytest.raises(LeaseError):
            await put(database, run, page(referral()), through="2024-05-01T10:00:00Z")
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0
    assert await db.fetchval("SELECT owner FROM sync.leases") == "another"


async def test_a_save_holds_off_a_takeover_and_not_the_renewal(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    """A renewal that waits for a moment without any writer never comes while two are busy: the lease would run out."""
    await db.execute("SET lock_timeout = '300ms'")
    async with database.transaction() as connection:
        await leases.check(connection, run)
        await db.execute(
            "UPDATE sync.leases SET expires_at = now() + interval '45 seconds' WHERE fence = $1", run.fence
        )
        with pytest.raises(asyncpg.LockNotAvailableError):
            await db.execute("UPDATE sync.leases SET fence = fence + 1, owner = 'another'")


async def test_child_rows_go_with_their_referral(database: Database, run: Lease, db: asyncpg.Connection) -> None:
    """No key ties them to it, so everything that deletes a referral is tried here."""
    trees = [tree for tree in make_referrals(400, 3, NOON) if "registrations" in tree]
    await put(database, run, page(*trees, *(make_referrals(200, 4, NOON))))
    held = {child.table: await child_rows_of(db, child.table) for child in (*CHILDREN, *NESTED)}
    assert all(held.values()), "each table has some"
    forgotten = trees[0]["id"]
    await forget(database, "contoso", forgotten)
    for table, before in held.items():
        assert await child_rows_of(db, table) == [part for part in before if part["id"] != forgotten]
    await db.execute("DELETE FROM partner_center.referrals WHERE id > '8'")
    for table, before in held.items():
        left = [part for part in before if part["id"] <= "8" and part["id"] != forgotten]
        assert await child_rows_of(db, table) == left
    await db.execute("TRUNCATE partner_center.referrals CASCADE")
    assert [await child_rows_of(db, table) for table in held] == [[] for _ in held]


async def child_rows_of(db: asyncpg.Connection, table: str) -> list[asyncpg.Record]:
    sql = f"SELECT r.id, c.* FROM partner_center.{table} c LEFT JOIN partner_center.referrals r USING (referral_key)"  # noqa: S608 - a declaration's name
    return sorted(await db.fetch(sql), key=lambda part: str(tuple(part)))


async def test_the_child_rows_of_a_changed_referral_are_replaced_as_a_whole(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    await put(database, run, page(referral(tags=["a", "b", "c"]), referral(2, tags=["x"])))
    await put(database, run, page(referral(minute=1, tags=["b"]), seconds=60))
    found = [(part["id"], part["position"], part["tag"]) for part in await child_rows_of(db, "referral_tags")]
    assert found == [("r1", 0, "b"), ("r2", 0, "x")]
    await put(database, run, page(referral(minute=2, tags=[]), seconds=90))
    assert [part["id"] for part in await child_rows_of(db, "referral_tags")] == ["r2"]


async def test_child_rows_that_stay_are_not_written_anew(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    """Most edits change no part, and a part that is written again leaves a dead row behind."""
    parts: dict[str, Any] = {"team": [{"email": "seller@example.com"}], "tags": ["a"]}
    await put(database, run, page(referral(**parts)))
    written = "SELECT xmin::text FROM partner_center.referral_team_members"
    before = await db.fetch(written)
    await put(database, run, page(referral(minute=1, status="Active", **parts), seconds=60))
    await put(database, run, page(referral(minute=2, **parts | {"tags": ["b"]}), seconds=90))
    assert await db.fetch(written) == before
    assert [part["tag"] for part in await child_rows_of(db, "referral_tags")] == ["b"]
    assert [row["changed_columns"] for row in await versions(db)][1:] == [
        ["status", "updated_at"],
        ["status", "updated_at", "tags"],
    ]


@pytest.mark.parametrize(
    ("new", "changed", "at_most"),
    [
        (False, False, 8),  # begin and end, its bounds, look, lease, checkpoint, counts, reset
        (
            True,
            False,
            24,
        ),  # and a savepoint, keys, ten copies (rows and nine child tables), versions, rejected records, events
        (True, True, 28),  # and lock, close and open versions, update
    ],
)
async def test_a_save_takes_so_many_statements_however_many_rows_it_has(
    database_url: str, new: bool, changed: bool, at_most: int
) -> None:
    """A guard against what is sent row by row, and against one statement too many in the path of each page."""
    recorder, sent = Recorder(), list[list[str]]()
    known = make_referrals(100, 5, NOON)
    with recorder.listening():
        async with (
            open_database(database_url, connections=2) as database,
            leased(database, "contoso", "incremental") as run,
        ):
            await put(database, run, page(*known))
            for turn, size in enumerate((50, 100), 1):
                trees = make_referrals(size, 10 + turn, NOON) if new else []
                edit = {"updatedDateTime": f"2025-01-0{turn}T00:00:00Z"} if changed else {}
                read = page(*trees, *(tree | edit for tree in known[:size]), seconds=turn)
                await asyncio.sleep(0)
                recorder.calls.clear()
                counts = await put(database, run, read, through="2024-05-01T10:00:00Z")
                await asyncio.sleep(0)
                assert (counts.inserted > 0, counts.updated > 0) == (new, changed)
                texts = list(recorder.statements)
                assert (COPY in (texts[number] for number, _ in recorder.calls)) == new
                sent.append([texts[number] for number, _ in recorder.calls])
    assert len(sent[0]) == len(sent[1]), "\n".join(" ".join(one.split())[:110] for one in [*sent[0], "=====", *sent[1]])
    assert len(sent[1]) <= at_most, "\n".join(" ".join(one.split())[:80] for one in sent[1])


async def test_the_recorder_sees_what_is_copied(database_url: str) -> None:
    """Otherwise the guard above counts only a part of what a save sends."""
    recorder = Recorder()
    with recorder.listening():
        async with (
            open_database(database_url, connections=2) as database,
            leased(database, "contoso", "incremental") as run,
        ):
            await put(database, run, page(referral(1, tags=["a", "b"]), referral(2)))
            await asyncio.sleep(0)
    number = recorder.statements[COPY]
    copied = {call[1]: call for called, call in recorder.calls if called == number}
    assert copied.keys() == {"referrals", "referral_tags"}
    schema, _, columns, rows = copied["referrals"]
    assert schema == "partner_center"
    assert [len(row.split("\t")) for row in rows.splitlines()] == [len(columns)] * 2


async def test_the_watermark_moves_with_the_rows_and_never_back(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    start = instant.parse("2024-05-01T08:00:00Z")
    await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', $1)", start)
    await put(database, run, page(referral()), through="2024-05-01T10:00:00.0000001Z")
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == instant.parse("2024-05-01T10:00:00.0000001Z")
    await put(database, run, page(referral(2)), through="2024-05-01T09:00:00Z")
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == instant.parse("2024-05-01T10:00:00.0000001Z")
    await db.execute(
        "ALTER TABLE sync.watermarks ADD CHECK (checkpoint < $1)".replace(
            "$1", str(instant.parse("2024-05-01T11:00:00Z"))
        )
    )
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever makes the transaction fail
        await put(database, run, page(referral(3)), through="2024-05-01T12:00:00Z")
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE id = 'r3'") == 0, "one transaction"


async def test_rows_versions_rejected_records_checkpoint_and_counts_are_one_transaction(
    database: Database, run: Lease, db: asyncpg.Connection
) -> None:
    """What comes last in it fails, and nothing of it stands."""
    start = instant.parse("2024-05-01T08:00:00Z")
    await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', $1)", start)
    await db.execute("ALTER TABLE sync.runs ADD CHECK (pages < 1)")
    with pytest.raises(StoreError):
        await put(database, run, page(referral(), b"7"), through="2024-05-01T12:00:00Z")
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == start
    for table in ("partner_center.referrals", "partner_center.referral_history", "sync.rejected_records"):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608


async def test_one_run_of_a_kind_at_a_time(database: Database) -> None:
    async with leased(database, "contoso", "backfill"):
        with pytest.raises(LeaseError, match="contoso"):
            async with leased(database, "contoso", "backfill"):
                pass
        async with leased(database, "contoso", "incremental"), leased(database, "fabrikam", "backfill"):
            pass
    async with leased(database, "contoso", "backfill"):
        pass


async def test_what_a_finished_run_stored_is_on_disk(server_folder: Path) -> None:
    """Commits on the way do not wait for the disk; the run's end does, and all before it is then there too."""
    lazy = {"fsync": "on", "wal_writer_delay": "10s"}
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder), settings=lazy) as url:
            await migrate.upgrade(url)
            async with (
                open_database(url, connections=3) as database,
                leased(database, "contoso", "incremental") as run,
            ):
                await put(database, run, page(referral()))
            await crash(Path(folder))
        async with embedded.server(Path(folder)) as url:
            db = await asyncpg.connect(url)
            assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 1
            assert await db.fetchval("SELECT outcome FROM sync.runs") == "done"
            await db.close()


@pytest.mark.parametrize("more_to_save", [True, False])
async def test_nothing_passes_over_what_a_crash_of_postgresql_took_back(
    server_folder: Path, *, more_to_save: bool
) -> None:
    """The run goes on over a new connection: neither a later page nor its end may stand on what is lost.

    What is lost here is no page of its own, as where a reconcile repairs.
    """
    lazy = {"fsync": "on", "wal_writer_delay": "10s"}

    async def run_over_a_crash(database: Database, folder: Path, port: int) -> None:
        async with AsyncExitStack() as after_the_run, leased(database, "contoso", "incremental") as run:
            await save(database, run, map_pages([page(referral(1))]))
            await crash(folder)
            again = embedded.server(folder, port=port, settings=lazy)
            await after_the_run.enter_async_context(again)
            if more_to_save:
                await put(database, run, page(referral(2)), through="2024-05-01T10:02:00Z")

    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder), settings=lazy) as url:
            await migrate.upgrade(url)
            db = await asyncpg.connect(url)
            await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', 1)")
            await db.close()
            async with open_database(url, connections=3) as database:
                with pytest.raises(StoreError, match="crashed"):
                    await run_over_a_crash(database, Path(folder), urlsplit(url).port or 0)
        async with embedded.server(Path(folder)) as url:
            db = await asyncpg.connect(url)
            assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0
            assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == 1
            assert await db.fetchval("SELECT outcome FROM sync.runs") == "failed"
            assert await db.fetchval("SELECT expires_at <= now() FROM sync.leases"), "given back at once"
            await db.close()


ENDS_ITSELF_ONCE = """
CREATE SEQUENCE sync.once;
CREATE FUNCTION sync.end_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.outcome <> 'running' AND nextval('sync.once') <= 1 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN new;
END
$$;
CREATE TRIGGER end_once BEFORE UPDATE ON sync.runs FOR EACH ROW EXECUTE FUNCTION sync.end_once();
"""


async def test_a_run_whose_end_meets_a_broken_connection_is_recorded_all_the_same(
    database: Database, db: asyncpg.Connection
) -> None:
    await db.execute(ENDS_ITSELF_ONCE)
    async with leased(database, "contoso", "incremental"):
        pass
    assert await db.fetchval("SELECT outcome FROM sync.runs") == "done"
    async with leased(database, "contoso", "incremental"):
        pass


async def test_no_lease_is_renewed_after_its_run_whatever_happens(
    database: Database, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt to record the end fails: the error is told, and the lease runs out for the next one."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.5)
    await db.execute(ENDS_ITSELF_ONCE.replace("AND nextval('sync.once') <= 1", ""))
    with pytest.raises(StoreError):
        async with leased(database, "contoso", "incremental"):
            pass
    before = await db.fetchval("SELECT expires_at FROM sync.leases")
    await asyncio.sleep(0.5)
    assert await db.fetchval("SELECT expires_at FROM sync.leases") == before
    await db.execute("DROP TRIGGER end_once ON sync.runs; UPDATE sync.leases SET expires_at = now()")
    async with leased(database, "contoso", "incremental"):
        pass
    outcomes = [row["outcome"] for row in await db.fetch("SELECT outcome FROM sync.runs ORDER BY id")]
    assert outcomes == ["abandoned", "done"]


async def test_a_text_that_postgresql_refuses_is_recorded_as_far_as_it_can_be(
    database: Database, db: asyncpg.Connection
) -> None:
    with pytest.raises(LeaseError):
        async with leased(database, "contoso", "incremental"):
            raise LeaseError("one \0 two \udcff three")
    row = await db.fetchrow("SELECT outcome, error FROM sync.runs")
    assert row is not None
    assert (row["outcome"], row["error"]) == ("failed", "one  two ? three")


@pytest.mark.parametrize("off", [False, True])
async def test_a_database_that_turned_read_only_is_an_outage_that_ends(
    off: bool, postgres_url: str, template_database: str
) -> None:
    """Readiness verifies that it can write; when it can again, so do we, with connections of before."""
    async with new_database(postgres_url, template_database) as url, open_database(url, connections=2) as database:
        await queries.reachable(database)
        admin = await asyncpg.connect(postgres_url)
        name = urlsplit(url).path[1:]
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await queries.reachable(database)
        with pytest.raises(StoreUnavailable, match="read-only"):
            async with leased(database, "contoso", "incremental"):
                pass
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await admin.close()
        if off:
            await queries.reachable(database)
        async with leased(database, "contoso", "incremental"):
            pass


async def test_work_that_fails_before_its_run_is_in_the_books(database: Database, db: asyncpg.Connection) -> None:
    with pytest.raises(ZeroDivisionError):
        async with runs.failures_recorded(database, "contoso", "incremental"):
            1 / 0  # noqa: B018 - a bug
    run = await db.fetchrow("SELECT outcome, error FROM sync.runs")
    assert run is not None
    assert (run["outcome"], "ZeroDivisionError" in run["error"]) == ("failed", True)
    (row,) = await queries.status(database, ["contoso"])
    assert row["health"] == "failing"
    assert [one["name"] for one in await queries.totals(database)] == ["runs.failed"]
    with pytest.raises(StoreError):
        async with (
            runs.failures_recorded(database, "contoso", "incremental"),
            leased(database, "contoso", "incremental"),
        ):
            raise StoreError("The run itself records this.")
    with pytest.raises(LeaseError):
        async with runs.failures_recorded(database, "contoso", "incremental"):
            raise LeaseError("Another one is at work.")
    assert await db.fetchval("SELECT count(*) FROM sync.runs") == 2
