"""Upgrades in use: from each earlier revision with data in it, under readers, while its worker still writes.

`writers/REVISION.json` is what the worker of that revision sent to PostgreSQL, statement by statement, recorded from
its own code: a first page, then ticks with changes, new referrals, rejects and one referral marked gone.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.conftest import new_database
from tests.integration.test_save import page, put, referral
from tests.recorder import COPY, WRITERS
from tests.steps import ACCOUNT, assert_chain
from worker.store import leases, migrate
from worker.store.analysis import refresh_history
from worker.store.pool import open_database

EARLIER = sorted(path.stem for path in WRITERS.glob("*.json"))
STATE = """
SELECT jsonb_object_agg(r.id, jsonb_build_array(r.status, r.deal_value, r.version, r.payload, r.deleted_at IS NULL, (
    SELECT jsonb_agg(jsonb_build_array(v.change, v.changed_columns, v.status, v.payload) ORDER BY v.valid_from)
    FROM partner_center.referral_versions v WHERE v.account = r.account AND v.referral_id = r.id
), (SELECT count(*) FROM partner_center.referral_team_members m WHERE m.referral_id = r.id)))::text
FROM partner_center.referrals r
"""
SHOWN = """
SELECT c.oid, c.relname, a.attnum, a.attname, a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'bi'::regnamespace AND a.attnum > 0
"""
COUNTS = "SELECT sum(inserted), sum(updated), sum(unchanged), sum(rejected) FROM sync.runs"


class Writer:
    """An earlier worker at its work."""

    def __init__(self, url: str, revision: str) -> None:
        self._url = url
        told = json.loads((WRITERS / f"{revision}.json").read_text(encoding="utf-8"))
        self._statements = told["statements"]
        self.first, self.then = told["first"], told["then"]

    def says(self, number: int) -> str:
        """Return a statement of its repertoire."""
        statement: str = self._statements[number]
        return statement

    async def send(self, calls: list[Any], pause: float = 0.0) -> None:
        """Send statements in their order; any refusal is a failure."""
        connection = await asyncpg.connect(self._url, statement_cache_size=0)
        try:
            for number, arguments in calls:
                sql, given = self._statements[number], [_python(one) for one in arguments]
                if sql == COPY:
                    schema, table, columns, records = given
                    await connection.copy_records_to_table(table, schema_name=schema, columns=columns, records=records)
                else:
                    await (connection.fetch(sql, *given) if given else connection.execute(sql))
                await asyncio.sleep(pause)
        finally:
            await connection.close()


def _python(value: Any) -> Any:
    match value:
        case {"time": text}:
            return datetime.fromisoformat(text)
        case {"seconds": seconds}:
            return timedelta(seconds=seconds)
        case {"bytes": text}:
            return bytes.fromhex(text)
        case {"uuid": text}:
            return UUID(text)
        case {"number": text}:
            return Decimal(text)
        case list():
            return [_python(one) for one in value]
    return value


async def reader(url: str, stopped: asyncio.Event) -> int:
    """Read every view that there was at the start, in transactions that stay open for a while; return how often."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    found = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'bi'::regnamespace AND relkind = 'v'"
    )
    times = 0
    try:
        while not stopped.is_set():
            async with connection.transaction():
                for view in found:
                    await connection.fetch(f"SELECT * FROM bi.{view['relname']}")  # noqa: S608 - a catalogue's name
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.05)
            times += 1
    finally:
        await connection.close()
    return times


def test_each_earlier_revision_has_its_writer() -> None:
    assert [*EARLIER, migrate.newest()] == migrate.revisions()


@pytest.mark.parametrize("revision", EARLIER)
async def test_an_upgrade_under_readers_and_an_earlier_writer(
    revision: str, postgres_url: str, empty_database_url: str
) -> None:
    async with new_database(postgres_url, "template0") as undisturbed:
        await migrate.upgrade(undisturbed, revision)
        alone = Writer(undisturbed, revision)
        await alone.send(alone.first)
        await alone.send(alone.then)
        connection = await asyncpg.connect(undisturbed)
        expected, counted = await connection.fetchval(STATE), await connection.fetchrow(COUNTS)
        await connection.close()

    await migrate.upgrade(empty_database_url, revision)
    writer = Writer(empty_database_url, revision)
    await writer.send(writer.first)
    connection = await asyncpg.connect(empty_database_url, statement_cache_size=0)
    shown = await connection.fetch(SHOWN)
    ends = [number for number, (sql, _) in enumerate(writer.then, 1) if writer.says(sql) == "COMMIT;"]
    middle, last = ends[len(ends) // 10], ends[-len(ends) // 10]
    await writer.send(writer.then[:middle])
    stopped = asyncio.Event()
    readers = [asyncio.create_task(reader(empty_database_url, stopped)) for _ in range(2)]
    writing = asyncio.create_task(writer.send(writer.then[middle:last], pause=0.005))
    await migrate.upgrade(empty_database_url)
    await writing
    stopped.set()
    assert min(await asyncio.gather(*readers)) > 0
    await writer.send(writer.then[last:])
    assert [row for row in shown if row not in await connection.fetch(SHOWN)] == [], "what dashboards saw is still it"
    assert json.loads(await connection.fetchval(STATE)) == json.loads(expected)
    assert await connection.fetchrow(COUNTS) == counted
    await assert_chain(connection)
    async with open_database(empty_database_url, connections=2) as database:
        async with leases.run(database, ACCOUNT, "incremental") as run:
            counts = await put(database, run, page(referral(0, 59, status="Closed"), referral(500, 59)))
        assert (counts.inserted, counts.updated) == (1, 1), "this release goes on where the earlier one was"
        await refresh_history(database)
    await assert_chain(connection)
    assert await connection.fetchval("SELECT sum(deals) FROM bi.pipeline_daily WHERE day = current_date") > 0
    await connection.close()
