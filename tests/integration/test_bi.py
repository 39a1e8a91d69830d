"""What analysts see: every view on a filled database, history as of any day, and who may read what."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import pytest
import sqlalchemy as sa

from tests.support.runs import leased
from tests.support.steps import backfill_all, reconcile_once, sync_once
from tools.dictionary import SOURCES, TARGET, dictionary, examples, sources
from tools.dictionary import load as load_made_up
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.errors import StoreError
from worker.model.mapping import map_pages
from worker.model.record import Page, decode_record
from worker.store import migrate, view_settings
from worker.store.analysis import refresh_history
from worker.store.save import mark_deleted, save
from worker.sync.pipeline import Pipeline

ROOT = Path(__file__).parent.parent.parent
PERSONAL = {"customer_contacts", "notes", "team_phones"}
EMPTY = {"deleted", "changes", "value_changes"}
"""What a first backfill leaves empty."""
VIEWS = "SELECT relname FROM pg_class WHERE relnamespace = 'bi'::regnamespace AND relkind = 'v' ORDER BY 1"


async def views(db: asyncpg.Connection) -> list[str]:
    return [row["relname"] for row in await db.fetch(VIEWS)]


async def test_every_view_shows_rows_of_a_filled_database(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(400)
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    empty = {view for view in await views(db) if not await db.fetchval(f"SELECT count(*) FROM bi.{view}")}  # noqa: S608
    assert empty == EMPTY
    key = min((await simulator.state())["referrals"])
    await simulator.delete(key)
    await reconcile_once(pipeline)
    assert await db.fetchval("SELECT id FROM bi.deleted") == key
    assert await db.fetchval("SELECT count(*) FROM bi.referrals WHERE id = $1", key) == 0


async def test_a_reader_of_the_past_does_not_hold_up_its_refresh(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Neither the first, which fills what is empty, nor those that change it."""
    await simulator.reset(50)
    await backfill_all(pipeline)
    records = (await simulator.state(full=True))["records"]
    key = min(key for key, record in records.items() if record["status"] == "Active")
    for value in (None, 12_345):
        if value:
            await simulator.update(key, {"details": {"dealValue": value}})
            await sync_once(pipeline)
        async with db.transaction():
            before = await db.fetch("SELECT * FROM bi.pipeline_daily")
            await refresh_history(pipeline.database)
            assert await db.fetch("SELECT * FROM bi.pipeline_daily") != before


def is_awaiting(record: dict[str, Any]) -> bool:
    """Tell by the record itself whether nobody has answered it."""
    answered = {"Accepted", "Won", "Lost", "Declined", "Expired", "Error"}
    dates = record.get("acceptedDateTime"), record.get("closedDateTime")
    return record.get("status") == "New" and record.get("substatus") not in answered and not any(dates)


async def test_the_three_questions_of_the_vendor(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Inbound co-sell newest first; what awaits our answer; what a seller works on."""
    await simulator.reset(300)
    await backfill_all(pipeline)
    records = (await simulator.state(full=True))["records"].values()
    inbound = {r["id"] for r in records if r.get("type") == "Shared" and r.get("direction") == "Incoming"}
    rows = await db.fetch("SELECT id, created_at FROM bi.inbound_cosell")
    assert {row["id"] for row in rows} == inbound
    times = [row["created_at"] for row in rows]
    assert times == sorted(times, reverse=True)
    awaiting = {r["id"] for r in records if r.get("direction") == "Incoming" and is_awaiting(r)}
    rows = await db.fetch("SELECT id, respond_by, days_left, is_overdue, created_at FROM bi.awaiting_response")
    assert {row["id"] for row in rows} == awaiting
    for row in rows:
        assert row["is_overdue"] == (row["days_left"] < 0)
    working = {
        (member["email"].lower(), r["id"])
        for r in records
        if (r.get("status"), r.get("direction"), r.get("type")) == ("Active", "Outgoing", "Shared")
        for member in r.get("team") or ()
    }
    rows = await db.fetch("SELECT seller_email, id FROM bi.active_outbound_by_seller")
    assert {(row["seller_email"], row["id"]) for row in rows} == working


def referral(number: int, at: datetime, **members: Any) -> dict[str, Any]:
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.0000001Z"
    return {"id": f"r{number}", "createdDateTime": "2024-03-01T09:00:00Z", "updatedDateTime": stamp, "type": "Shared",
            "direction": "Incoming"} | members  # fmt: skip


async def put(pipeline: Pipeline, *trees: dict[str, Any]) -> None:
    observed = datetime.now(UTC)
    records = [decode_record(msgspec.json.encode(tree)) for tree in trees]
    async with leased(pipeline.database, pipeline.account, "incremental") as run:
        await save(pipeline.database, run, map_pages([Page(records, None, observed)]), pages=1)


def on(day: int, hour: int = 12) -> datetime:
    return datetime(2024, 5, day, hour, tzinfo=UTC)


async def test_time_in_each_stage_of_a_reopened_deal(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    steps = [
        (1, "New", "Pending", 100), (3, "Active", "Accepted", 100), (4, "Active", "Accepted", 250),
        (8, "Closed", "Lost", 250), (9, "Active", "Accepted", 250), (10, "Closed", "Won", 300),
    ]  # fmt: skip
    for day, status, substatus, value in steps:
        await put(pipeline, referral(1, on(day), status=status, substatus=substatus, details={"dealValue": value}))
    await refresh_history(pipeline.database)
    rows = await db.fetch("SELECT * FROM bi.stage_durations ORDER BY step")
    assert [(row["step"], row["substatus"]) for row in rows] == [
        (1, "Pending"), (2, "Accepted"), (3, "Lost"), (4, "Accepted"), (5, "Won"),
    ]  # fmt: skip
    days = [Decimal("63.13"), Decimal("5.00"), Decimal("1.00"), Decimal("1.00")]
    assert [row["days"] for row in rows[:-1]] == days, "the first stage began when the referral was created"
    assert [row["is_estimated"] for row in rows] == [True, False, False, False, False]
    assert rows[-1]["left_at"] is None
    changes = await db.fetch("SELECT to_substatus FROM bi.status_changes WHERE change = 'changed' ORDER BY changed_at")
    assert [row["to_substatus"] for row in changes] == ["Accepted", "Lost", "Accepted", "Won"]


async def test_a_stage_begins_after_a_version_that_cannot_be_read_any_more(
    pipeline: Pipeline, db: asyncpg.Connection
) -> None:
    """Then columns cannot be compared one by one; the stage is, for time in stage reads nothing else."""
    await put(pipeline, referral(1, on(1), status="New", substatus="Pending"))
    spoilt = "UPDATE partner_center.referrals SET payload = payload - 'id'"
    for day, status, substatus in ((2, "New", "Pending"), (3, "Active", "Accepted")):
        await db.execute(spoilt)
        await put(pipeline, referral(1, on(day), status=status, substatus=substatus, name=f"day {day}"))
    found = await db.fetch("SELECT change, changed_columns FROM partner_center.referral_history ORDER BY valid_from")
    assert [row["changed_columns"] for row in found] == [None, ["payload"], ["payload", "status", "substatus"]]
    await refresh_history(pipeline.database)
    stages = await db.fetch("SELECT status, entered_at, left_at FROM bi.stage_durations ORDER BY step")
    assert [row["status"] for row in stages] == ["New", "Active"]
    assert stages[0]["left_at"] == stages[1]["entered_at"]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
async def test_the_pipeline_as_of_any_day(zone: str, pipeline: Pipeline, db: asyncpg.Connection) -> None:
    """Compared, day by day, with what the versions say of the end of that day."""
    await view_settings.put_setting(pipeline.database, "bi.timezone", zone)
    await put(
        pipeline, *(referral(n, on(1, n), status="New", details={"dealValue": n, "currency": "EUR"}) for n in range(5))
    )
    await put(pipeline, referral(1, on(3), status="Active", details={"dealValue": 50, "currency": "EUR"}))
    await put(pipeline, referral(2, on(4, 23), status="Active", details={"dealValue": 7, "currency": "USD"}))
    await put(pipeline, referral(1, on(6), status="Closed", details={"dealValue": 60, "currency": "EUR"}))
    await put(pipeline, referral(1, on(5), status="New", details={"dealValue": 1, "currency": "EUR"}))  # too late
    async with leased(pipeline.database, pipeline.account, "reconcile") as run:
        await mark_deleted(pipeline.database, run, ["r3"])
    await refresh_history(pipeline.database)
    versions = await db.fetch("SELECT * FROM partner_center.referral_history WHERE change <> 'deleted'")
    shown = {
        (row["day"], row["status"], row["currency"]): (row["deals"], row["deal_value"])
        for row in await db.fetch("SELECT * FROM bi.pipeline_daily WHERE day <= '2024-05-20' AND NOT is_estimated")
    }
    for offset in range(20):
        day = date(2024, 5, 1) + timedelta(days=offset)
        end = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) + timedelta(days=1)
        expected = defaultdict[tuple[Any, ...], list[Decimal]](list)
        for version in versions:
            open_then = version["valid_from"] < end and (version["valid_to"] is None or version["valid_to"] >= end)
            if open_then and version["status"] != "Closed":
                expected[day, version["status"], version["currency"]].append(version["deal_value"])
        for key in {key for key in shown if key[0] == day} | expected.keys():
            assert shown.get(key) == (len(expected[key]), sum(expected[key])), key
    today = await db.fetchval(
        "SELECT sum(deals) FROM bi.pipeline_daily WHERE day = (now() AT TIME ZONE $1)::date", zone
    )
    assert today == 3, "r0, r2 and r4; r1 is closed, r3 is deleted"


async def test_a_sum_has_no_digits_of_deals_that_are_closed(pipeline: Pipeline, db: asyncpg.Connection) -> None:
    await put(
        pipeline,
        referral(1, on(1), status="New", details={"dealValue": Decimal("100.5"), "currency": "EUR"}),
        referral(2, on(1), status="New", details={"dealValue": Decimal("0.123456789"), "currency": "EUR"}),
    )
    await put(pipeline, referral(2, on(3), status="Closed", details={"dealValue": Decimal(1), "currency": "EUR"}))
    await refresh_history(pipeline.database)
    rows = await db.fetch(
        "SELECT DISTINCT deal_value::text FROM bi.pipeline_daily"
        " WHERE NOT is_estimated AND day IN ('2024-05-02', '2024-05-04')"
    )
    assert {row["deal_value"] for row in rows} == {"100.623456789", "100.5"}


async def test_the_pipeline_before_the_first_sight(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Loaded today, a deal was open on each day on which its own dates say so; and what was seen is never estimated."""
    await simulator.reset(900)
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    records = list((await simulator.state(full=True))["records"].values())
    for days_ago in (1, 30, 60, 89, 200):
        day = datetime.now(UTC).date() - timedelta(days=days_ago)
        end = f"{day + timedelta(days=1)}T00:00:00"
        open_then = [r for r in records if r["createdDateTime"] < end and not was_closed(r, end)]
        found = await db.fetchrow(
            "SELECT sum(deals) AS deals, sum(deals) FILTER (WHERE is_spam) AS spam"
            " FROM bi.pipeline_daily WHERE day = $1",
            day,
        )
        assert found is not None
        assert found["deals"] == len(open_then), f"{days_ago} days ago"
        assert (found["spam"] or 0) == len([r for r in open_then if r.get("isSpam")])
    seen_before = await db.fetchval(
        """
        SELECT count(*) FROM sync.estimated_stages e
        JOIN partner_center.referral_history h ON h.referral_key = e.referral_key AND h.change = 'first'
        WHERE e.to_at > h.valid_from
        """
    )
    assert seen_before == 0


def was_closed(record: dict[str, Any], end: str) -> bool:
    """Tell by the record's own dates whether it was closed at a moment; without one, by its last update."""
    closed = record.get("closedDateTime") or record["updatedDateTime"]
    return record.get("status") == "Closed" and closed < end


async def test_any_column_can_be_rebuilt_from_the_kept_payloads(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """What a column held at any time is in the payload of that version; the open one's is the referral's own."""
    await simulator.reset(60)
    await backfill_all(pipeline)
    keys = sorted((await simulator.state())["referrals"])
    for key in keys[:20]:
        await simulator.update(key, {"status": "Active", "details": {"dealValue": 77, "currency": "SEK"}})
    await simulator.delete(keys[20])
    await reconcile_once(pipeline)
    for key in keys[:10]:
        await simulator.update(key, {"status": "Closed", "substatus": "Won"})
    await reconcile_once(pipeline)
    rebuilt = await db.fetch(
        """
        SELECT v.status, v.deal_value, v.currency, p.payload ->> 'status' AS was_status,
            (p.payload #>> '{details,dealValue}')::numeric AS was_value,
            p.payload #>> '{details,currency}' AS was_currency
        FROM partner_center.referral_history v
        JOIN partner_center.referrals r ON r.account = v.account AND r.id = v.referral_id
        CROSS JOIN LATERAL (SELECT coalesce(v.payload, r.payload) AS payload) p
        """
    )
    assert len(rebuilt) == 60 + 20 + 1 + 10
    for row in rebuilt:
        assert (row["status"], row["deal_value"], row["currency"]) == (
            row["was_status"],
            row["was_value"],
            row["was_currency"],
        )


async def test_readers_read_bi_and_nothing_else(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(50)
    await backfill_all(pipeline)
    for role, refused in (("bi_reader", PERSONAL), ("bi_reader_pii", set[str]())):
        await db.execute(f"SET ROLE {role}")
        for view in await views(db):
            query = f"SELECT * FROM bi.{view} LIMIT 1"  # noqa: S608
            if view in refused:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await db.fetch(query)
            else:
                await db.fetch(query)
        for table in (
            "partner_center.referrals",
            "partner_center.referral_history",
            "sync.runs",
            "sync.rejected_records",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.fetch(f"SELECT * FROM {table} LIMIT 1")  # noqa: S608
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("CREATE TABLE bi.mine (a integer)")
        await db.execute("RESET ROLE")


async def test_no_personal_data_for_the_plain_reader(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(150)
    await backfill_all(pipeline)
    secrets = {row["phone_number"] for row in await db.fetch("SELECT phone_number FROM bi.customer_contacts")}
    secrets |= {row["email"] for row in await db.fetch("SELECT email FROM bi.customer_contacts")}
    secrets |= {row["notes"] for row in await db.fetch("SELECT notes FROM bi.notes")}
    secrets |= {row["phone_number"] for row in await db.fetch("SELECT phone_number FROM bi.team_phones")}
    secrets = {secret for secret in secrets if secret}
    assert len(secrets) > 50
    for view in set(await views(db)) - PERSONAL:
        text = str(await db.fetch(f"SELECT * FROM bi.{view}"))  # noqa: S608
        assert [secret for secret in secrets if secret in text] == [], view


async def test_a_dashboard_tool_reflects_and_reads(
    database_url: str, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """SQLAlchemy with psycopg2, as Superset, Metabase and pandas do, signed in with the plain reader's rights."""
    await simulator.reset(120)
    await backfill_all(pipeline)
    name = f"dashboard_{urlsplit(database_url).path[3:15]}"
    await db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE bi_reader")
    parts = urlsplit(database_url)
    url = sa.URL.create("postgresql+psycopg2", name, "x", parts.hostname, parts.port, parts.path[1:])

    def look() -> tuple[int, list[str]]:
        engine = sa.create_engine(url)
        try:
            table = sa.Table("referrals", sa.MetaData(), schema="bi", autoload_with=engine)
            assert table.c.category.comment is not None
            names = sa.inspect(engine).get_view_names(schema="bi")
            with engine.connect() as connection:
                open_deals = sa.select(sa.func.count()).select_from(table).where(table.c.is_open)
                return connection.execute(open_deals).scalar_one(), names
        finally:
            engine.dispose()

    try:
        count, names = await asyncio.to_thread(look)
        assert count == await db.fetchval("SELECT count(*) FROM bi.referrals WHERE is_open") > 0
        assert set(names) == set(await views(db))
    finally:
        await db.execute(f"DROP ROLE {name}")


async def test_everything_for_analysts_says_what_it_is(db: asyncpg.Connection) -> None:
    silent = await db.fetch(
        """
        SELECT n.nspname, c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname IN ('bi', 'partner_center') AND c.relkind IN ('r', 'v')
            AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)
        """
    )
    assert silent == []
    assert await db.fetchval("SELECT obj_description('bi'::regnamespace, 'pg_namespace') IS NOT NULL")
    assert await db.fetchval("SELECT obj_description('partner_center'::regnamespace, 'pg_namespace') IS NOT NULL")


async def test_the_data_dictionary_is_fresh(database_url: str, db: asyncpg.Connection) -> None:
    await load_made_up(database_url)
    assert await dictionary(db, await examples(db)) == TARGET.read_text(encoding="utf-8"), "run `make dictionary`"


async def test_the_sources_of_dbt_are_fresh(db: asyncpg.Connection) -> None:
    assert await sources(db) == SOURCES.read_text(encoding="utf-8"), "run `make dictionary`"


async def test_roles_by_two_databases_at_once_and_without_the_right(server_folder: Path) -> None:
    """In a cluster of its own: roles belong to a cluster, and the session's has them already."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder)) as url:
            admin = await asyncpg.connect(url)
            await admin.execute("CREATE ROLE plain LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEROLE")
            await admin.execute("CREATE DATABASE poor OWNER plain")
            parts = urlsplit(url)
            poor = parts._replace(netloc=f"plain:x@{parts.hostname}:{parts.port}", path="/poor").geturl()
            await migrate.upgrade(poor)
            assert await migrate.current(poor) == migrate.newest()
            assert await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'bi\\_%'") == 0
            others = [parts._replace(path=f"/other{number}").geturl() for number in range(3)]
            for number in range(3):
                await admin.execute(f"CREATE DATABASE other{number}")
            program = "import asyncio, sys; from worker.store import migrate; asyncio.run(migrate.upgrade(sys.argv[1]))"
            racers = [
                await asyncio.create_subprocess_exec(sys.executable, "-c", program, other, cwd=ROOT) for other in others
            ]
            assert await asyncio.gather(*(racer.wait() for racer in racers)) == [0, 0, 0]
            assert await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'bi\\_%'") == 2
            with_right = await asyncpg.connect(parts._replace(path="/poor").geturl())
            await with_right.execute(migrate.roles_sql())
            await with_right.execute("SET ROLE bi_reader; SELECT * FROM bi.referrals")
            await with_right.close()
            await admin.close()


async def test_a_migration_gives_up_where_somebody_never_lets_go(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has to write is locked by somebody else, for good: it gives up, with nothing changed."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(migrate, "ATTEMPTS", 4)
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute("CREATE SCHEMA sync; CREATE TABLE sync.alembic_version (version_num text PRIMARY KEY)")
    async with holder.transaction():
        await holder.execute("LOCK TABLE sync.alembic_version IN SHARE MODE")
        with pytest.raises(StoreError, match="in use"):
            await migrate.upgrade(empty_database_url)
    assert await migrate.current(empty_database_url) is None
    assert await holder.fetchval("SELECT to_regnamespace('partner_center') IS NULL")
    await migrate.upgrade(empty_database_url)
    assert await migrate.current(empty_database_url) == migrate.newest()
    await holder.close()
