"""The contenders beside the product, each in a process of its own: `python -m benchmarks.contenders NAME ORIGIN DSN`.

Each prints a line of JSON: seconds and CPU seconds of its timed part, requests, and the table that it filled. Who
started it measures what that costs the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import msgspec
import uvloop

from worker.model.mapping import Row, map_pages
from worker.model.record import Page, parse_listing
from worker.store import sql
from worker.store.copying import NewRow, children_as_lines, in_pieces, rows_as_lines

WINDOWS = 8
LIST = "/v1.0/engagements/referrals"
TABLE = """
CREATE TABLE {name} (id text {key}, created_at timestamptz, updated_at timestamptz, status text, name text,
    deal_value numeric, currency text, payload jsonb)
"""
COLUMNS = ("id", "created_at", "updated_at", "status", "name", "deal_value", "currency", "payload")


class _Details(msgspec.Struct):
    dealValue: float | str | None = None  # noqa: N815 - the API's name
    currency: str | None = None


class _Referral(msgspec.Struct):
    id: str
    createdDateTime: str | None = None  # noqa: N815
    updatedDateTime: str | None = None  # noqa: N815
    status: str | None = None
    name: str | None = None
    details: _Details | None = None


class _Page(msgspec.Struct):
    value: list[msgspec.Raw]
    link: str | None = msgspec.field(name="@odata.nextLink", default=None)


_PAGE = msgspec.json.Decoder(_Page)
_REFERRAL = msgspec.json.Decoder(_Referral)


async def bodies(session: aiohttp.ClientSession, origin: str, query: str) -> AsyncIterator[bytes]:
    """Follow a listing to its end."""
    while query:
        async with session.get(f"{origin}{LIST}?{query}") as answer:
            body = await answer.read()
        yield body
        tail = body[-200:]
        place = tail.find(b"$skiptoken=")
        query = tail[place : tail.index(b'"', place)].decode() if place >= 0 else ""


async def windows(session: aiohttp.ClientSession, origin: str) -> list[str]:
    """Cut creation time into as many ranges as there are readers, by rank, as one who knows the data could."""
    async with session.get(f"{origin}/edges/{WINDOWS}") as answer:
        edges: list[str] = await answer.json()
    queries = []
    for number, lower in enumerate(edges):
        terms = [f"createdDateTime ge {lower}"]
        if number + 1 < len(edges):
            terms.append(f"createdDateTime lt {edges[number + 1]}")
        queries.append(f"$filter={quote(' and '.join(terms))}&$orderby=createdDateTime%20asc")
    return queries


def row(raw: msgspec.Raw) -> tuple[object, ...]:
    """Map a record to the bare table."""
    found = _REFERRAL.decode(raw)
    details = found.details or _Details()
    value = None if details.dealValue is None else str(details.dealValue)
    return (
        found.id, moment(found.createdDateTime), moment(found.updatedDateTime), found.status, found.name,
        value, details.currency, bytes(raw).decode(),
    )  # fmt: skip


def moment(text: str | None) -> datetime | None:
    """Read a time as far as PostgreSQL keeps it."""
    return None if text is None else datetime.fromisoformat(text)


async def storage(connection: asyncpg.Connection, table: str) -> None:
    """Store payloads as every contender does: lz4 where the server has it, else uncompressed out of line."""
    has = await connection.fetchval(
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    )
    change = "SET COMPRESSION lz4" if has else "SET STORAGE EXTERNAL"
    await connection.execute(f"ALTER TABLE {table} ALTER COLUMN payload {change}")


class _Timed:
    """What the timed part of a contender took: seconds of the clock, and of its CPU."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def result(self, table: str, requests: int = 0) -> dict[str, Any]:
        """Return what a contender prints."""
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        return {"seconds": seconds, "cpu": cpu, "requests": requests, "table": table}


async def fetch_and_drop(origin: str, _: str) -> dict[str, Any]:
    """Floor A."""
    requests = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WINDOWS)) as session:
        timed = _Timed()

        async def drain(query: str) -> None:
            nonlocal requests
            async for _body in bodies(session, origin, query):
                requests += 1

        await asyncio.gather(*(drain(query) for query in await windows(session, origin)))
        return timed.result("", requests)


async def copy_only(origin: str, dsn: str) -> dict[str, Any]:
    """Floor B: only the COPY is timed."""
    rows: list[tuple[object, ...]] = []
    async with aiohttp.ClientSession() as session:
        for query in await windows(session, origin):
            async for body in bodies(session, origin, query):
                rows += [row(raw) for raw in _PAGE.decode(body).value]
    connection = await _connect(dsn)
    await connection.execute(TABLE.format(name="floor_b", key=""))
    await storage(connection, "floor_b")
    timed = _Timed()
    for start in range(0, len(rows), 1000):
        await connection.copy_records_to_table("floor_b", records=rows[start : start + 1000], columns=COLUMNS)
    return timed.result("floor_b")


async def bare_job(origin: str, dsn: str) -> dict[str, Any]:
    """Floor C: windows, COPY and merge into one table, two writers; no versions, no child rows, no ledger."""
    setup = await _connect(dsn)
    await setup.execute(TABLE.format(name="floor_c", key="PRIMARY KEY"))
    await storage(setup, "floor_c")
    waiting: asyncio.Queue[list[tuple[object, ...]] | None] = asyncio.Queue(maxsize=4)
    requests = 0
    names = ", ".join(COLUMNS)
    merge = (
        f"INSERT INTO floor_c SELECT DISTINCT ON (id) {names} FROM stage ORDER BY id, updated_at DESC"  # noqa: S608
        " ON CONFLICT (id) DO UPDATE SET payload = excluded.payload, updated_at = excluded.updated_at"
        " WHERE floor_c.updated_at < excluded.updated_at"
    )

    async def write() -> None:
        connection = await _connect(dsn)
        await connection.execute(
            f"CREATE TEMP TABLE stage ON COMMIT DELETE ROWS AS SELECT {names} FROM floor_c LIMIT 0;"  # noqa: S608
            " ALTER TABLE stage SET (toast_tuple_target = 8160)"
        )
        while (rows := await waiting.get()) is not None:
            async with connection.transaction():
                await connection.copy_records_to_table("stage", records=rows, columns=COLUMNS)
                await connection.execute(merge)

    async def read(session: aiohttp.ClientSession, query: str) -> None:
        nonlocal requests
        held: list[tuple[object, ...]] = []
        async for body in bodies(session, origin, query):
            requests += 1
            held += [row(raw) for raw in _PAGE.decode(body).value]
            if len(held) >= 1000:
                await waiting.put(held)
                held = []
        await waiting.put(held)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WINDOWS)) as session:
        timed = _Timed()
        writers = [asyncio.create_task(write()) for _ in range(2)]
        await asyncio.gather(*(read(session, query) for query in await windows(session, origin)))
        for _ in writers:
            await waiting.put(None)
        await asyncio.gather(*writers)
        return timed.result("floor_c", requests)


async def own_tables(origin: str, dsn: str) -> dict[str, Any]:
    """Floor D: the product's own rows, mapped and written out beforehand, copied by two connections into its tables."""
    pieces: asyncio.Queue[dict[str, list[bytes]]] = asyncio.Queue()
    key = 0
    async with aiohttp.ClientSession() as session:
        for query in await windows(session, origin):
            held: list[Row] = []
            async for body in bodies(session, origin, query):
                page = parse_listing(body, observed_at=datetime.now(UTC))
                held += map_pages([Page(page.records, None, page.observed_at)]).rows
                if len(held) >= 1000:
                    pieces.put_nowait(await _written(held, key))
                    key, held = key + len(held), []
            pieces.put_nowait(await _written(held, key))
            key += len(held)

    async def write() -> None:
        connection = await _connect(dsn)
        while not pieces.empty():
            piece = pieces.get_nowait()
            async with connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                for table, columns in ((("referrals"), sql.ROW), *sql.CHILD_TABLES.items()):
                    if piece[table]:
                        await connection.copy_to_table(
                            table,
                            schema_name="partner_center",
                            columns=columns,
                            source=_each(piece[table]),
                            format="text",
                        )

    timed = _Timed()
    await asyncio.gather(write(), write())
    return timed.result("partner_center.referrals")


async def _written(rows: list[Row], key: int) -> dict[str, list[bytes]]:
    """Write out rows and their child rows as `COPY` takes them."""
    rows = sorted(rows, key=lambda one: one.id)
    new = [NewRow(row, key + number, row.observed_at, "first") for number, row in enumerate(rows)]
    written = {"referrals": [piece async for piece in rows_as_lines("floor-d", 0, new)]}
    for table, lines in children_as_lines([(one.key, one.row) for one in new], sql.CHILD_TABLES).items():
        written[table] = [piece async for piece in in_pieces(lines)]
    return written


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def obvious_script(origin: str, dsn: str) -> dict[str, Any]:
    """What one writes in an afternoon: a page, `executemany`, the next page."""
    connection = await _connect(dsn)
    await connection.execute(TABLE.format(name="script", key="PRIMARY KEY"))
    await storage(connection, "script")
    places = ", ".join(f"${number}" for number in range(1, len(COLUMNS) + 1))
    upsert = (
        f"INSERT INTO script VALUES ({places}) ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at,"  # noqa: S608
        " status = excluded.status, name = excluded.name, payload = excluded.payload"
    )
    requests = 0
    async with aiohttp.ClientSession() as session:
        timed = _Timed()
        async for body in bodies(session, origin, "$orderby=createdDateTime%20asc"):
            requests += 1
            page = json.loads(body)["value"]
            await connection.executemany(
                upsert,
                [
                    (
                        one["id"], moment(one.get("createdDateTime")), moment(one.get("updatedDateTime")),
                        one.get("status"), one.get("name"), None, None, json.dumps(one),
                    )
                    for one in page
                ],
            )  # fmt: skip
        return timed.result("script", requests)


async def _connect(dsn: str) -> asyncpg.Connection:
    return await asyncpg.connect(dsn)


FLOOR_C, FLOOR_D, SCRIPT = "floor C: the bare job", "floor D: our tables", "aiohttp + executemany"
CONTENDERS: dict[str, Callable[[str, str], Awaitable[dict[str, Any]]]] = {
    "floor A: fetch and drop": fetch_and_drop,
    "floor B: COPY alone": copy_only,
    FLOOR_C: bare_job,
    FLOOR_D: own_tables,
    SCRIPT: obvious_script,
}
WITHOUT_LATENCY = ("floor B: COPY alone", FLOOR_D)
"""Those that fetch before they are timed: latency changes nothing about them."""

if __name__ == "__main__":

    async def main() -> None:
        """Run one."""
        sys.stdout.write(json.dumps(await CONTENDERS[sys.argv[1]](sys.argv[2], sys.argv[3])) + "\n")

    uvloop.run(main())
