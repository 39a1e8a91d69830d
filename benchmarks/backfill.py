"""A full backfill side by side with its floors, and syncs after it: `python -m benchmarks.backfill [RECORDS] [...]`.

PostgreSQL, the source and each contender are processes of their own; the product runs by its command line and does all
of its work: child rows, checkpoints, ledger. One table for each latency, with every contender on a server by default
settings and on a tuned one, and behind it what must be reached, wanted and measured. Durability is on, a checkpoint
goes before each contender, and payloads are stored the same way for all. See `benchmarks/server.py` for the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import asyncpg

from benchmarks.contenders import CONTENDERS, FLOOR_C, FLOOR_D, SCRIPT, WITHOUT_LATENCY, storage
from benchmarks.server import SETTINGS, Cost, cost, server, without_autovacuum
from benchmarks.source import PAGE
from worker.store import migrate

ROOT = Path(__file__).parent.parent
RECORDS = 50_000
PEER_RECORDS = 20_000
"""At most so many for the peers, which are slow; their rate does not depend on it."""
CONCURRENCY = 8
CHANGED = 100
PRODUCT, NESTED = "referral-sync backfill", "dlt, child tables"
PEERS = {"dlt": "plain", NESTED: "nested"}
if (sys.platform, platform.machine()) == ("linux", "x86_64"):
    PEERS["sling, as a loader"] = "sling"
CHECKSUM = """
SELECT encode(sha256(convert_to(string_agg(id || ' ' || (payload ->> 'updatedDateTime'), E'\n'
    ORDER BY id COLLATE "C"), 'UTF8')), 'hex') FROM {}
"""
OVERLAP = """
SELECT count(*) FROM partner_center.referrals WHERE version >= (SELECT checkpoint - 6000000000 FROM sync.watermarks)
"""
"""The ten minutes below the watermark, in ticks of 100 ns."""
BLOAT = """
SELECT relname, n_tup_upd, n_tup_hot_upd, n_dead_tup, pg_total_relation_size(relid) AS bytes
FROM pg_stat_user_tables WHERE schemaname = 'partner_center' ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender came to: `cpu` in seconds, `peak` in MB, `whole`: whether ids and times are the source's."""

    name: str
    records: int
    seconds: float
    cpu: float
    peak: float
    requests: int
    server: Cost
    whole: str

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def client_ms(self) -> float:
        """CPU of the client, ms for 1,000 records."""
        return self.cpu / self.records * 1e6

    @property
    def server_ms(self) -> float:
        """CPU of the server, ms for 1,000 records."""
        return self.server.cpu / self.records * 1e6

    @property
    def wal_kb(self) -> float:
        """WAL, KB a record."""
        return self.server.wal / self.records / 1e3


def measured(command: list[str], variables: dict[str, str] | None = None) -> tuple[str, float, float, float]:
    """Run a process to its end; its output, seconds, CPU seconds and peak memory in MB."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (variables or {}), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return output, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, _megabytes(usage)


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def asked(url: str, *, post: bool = False) -> str:
    """Ask the source something that is no part of the API."""
    with urlopen(Request(url, method="POST" if post else "GET")) as answer:  # noqa: S310 - our own process
        text: str = answer.read().decode()
    return text


@asynccontextmanager
async def source(*arguments: float) -> AsyncIterator[str]:
    """Start the source with its command line's arguments; gives its origin."""
    command = [sys.executable, "-m", "benchmarks.source", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            yield (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            process.terminate()


async def contender(name: str, origin: str, dsn: str, records: int) -> Result:
    """Run one of `benchmarks.contenders`, in a database of its own where it fills the product's tables."""
    own = await database(dsn, "floor_d") if name == FLOOR_D else dsn
    before = await cost(dsn, checkpoint=True)
    output, _, _, peak = await asyncio.to_thread(
        measured, [sys.executable, "-m", "benchmarks.contenders", name, origin, own]
    )
    found, spent = json.loads(output), await cost(dsn) - before
    whole = await same(own, found["table"], asked(f"{origin}/checksum")) if found["table"] else ""
    return Result(name, records, found["seconds"], found["cpu"], peak, int(found["requests"]), spent, whole)


async def same(dsn: str, table: str, expected: str) -> str:
    """Compare a table's ids and update times with the source's."""
    connection = await asyncpg.connect(dsn)
    found = await connection.fetchval(CHECKSUM.format(table))
    rows = await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a contender's table
    await connection.close()
    return f"{rows:,} {'ok' if found == expected else 'DIFFER'}"


async def prepare(dsn: str) -> None:
    """Make the product's tables, with payloads stored as everybody stores them here."""
    await migrate.upgrade(dsn)
    connection = await asyncpg.connect(dsn)
    for table in ("referrals", "referral_versions"):
        await storage(connection, f"partner_center.{table}")
    await connection.close()


async def database(dsn: str, name: str) -> str:
    """Make a database with the product's tables."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    own = urlsplit(dsn)._replace(path=f"/{name}").geturl()
    await prepare(own)
    return own


async def product(origin: str, dsn: str, *command: str) -> tuple[Result, asyncpg.Record]:
    """Run a command line of the product; returns also the record of its last run, one of several processes."""
    variables = {
        "REFERRAL_SYNC_DATABASE__URL": dsn,
        "REFERRAL_SYNC_API__BASE_URL": origin,
        "REFERRAL_SYNC_API__CONCURRENCY": str(CONCURRENCY),
        "REFERRAL_SYNC_ACCOUNTS__BENCH__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__BENCH__ACCESS_TOKEN": "bench",
        "REFERRAL_SYNC_LOG__LEVEL": "error",
    }
    before = await cost(dsn, checkpoint=True)
    line = [sys.executable, "-m", "worker", *command]
    _, seconds, cpu, peak = await asyncio.to_thread(measured, line, variables)
    spent = await cost(dsn) - before
    connection = await asyncpg.connect(dsn)
    run = await connection.fetchrow(
        "SELECT *, extract(epoch FROM finished_at - started_at)::float AS seconds FROM sync.runs"
        " ORDER BY id DESC LIMIT 1"
    )
    requests = await connection.fetchval(
        "SELECT sum(requests)::int FROM sync.runs WHERE started_at > now() - make_interval(secs => $1)", seconds + 0.5
    )
    rows = await connection.fetchval("SELECT count(*) FROM partner_center.referrals")
    await connection.close()
    assert run is not None  # noqa: S101 - it has just run
    whole = await same(dsn, "partner_center.referrals", asked(f"{origin}/checksum"))
    name = " ".join(["referral-sync", *command])
    return Result(name, rows, seconds, cpu, peak, requests, spent, whole), run


async def syncs(origin: str, dsn: str) -> tuple[list[str], list[tuple[str, str, str, bool]]]:
    """Sync when nothing changed, when records changed, and again; says what each cost, and what is promised of it."""
    await product(origin, dsn, "sync")  # the backfill's own newest minutes
    connection = await asyncpg.connect(dsn)
    await connection.execute("VACUUM (ANALYZE)")  # else the first sync pays for what was backfilled
    await connection.close()
    async with without_autovacuum(dsn):
        return await _syncs(origin, dsn)


async def _syncs(origin: str, dsn: str) -> tuple[list[str], list[tuple[str, str, str, bool]]]:
    lines, reached = [], []
    for number, touches in enumerate((0, CHANGED, 0, CHANGED)):
        name = f"{touches} changed" if touches else "idle"
        if touches:
            asked(f"{origin}/touch/{touches}", post=True)
        pages = _requests(await _in_overlap(dsn) + touches)
        result, run = await product(origin, dsn, "sync")
        rows, wal = result.server.inserted + result.server.dead, result.server.wal / 1e3
        lines.append(
            f"sync, {name:12}{run['requests']:4} requests in {run['api_seconds'] * 1000:5.0f} ms,"
            f" run {run['seconds'] * 1000:5.0f} ms, command {result.seconds:.2f} s, {rows} rows written,"
            f" {result.server.dead} dead, {wal:,.0f} KB of WAL after a checkpoint, {result.whole}"
        )
        if number > 1:
            continue  # by now the last changes fill the overlap, which is read each time
        if touches:
            dead = result.server.dead / touches
            reached += [
                (f"sync of {touches}: dead rows a change", "<= 2", f"{dead:.1f}", dead <= 2),
                (f"sync of {touches}: KB of WAL a change", "<= 25", f"{wal / touches:.1f}", wal / touches <= 25),
                (f"sync of {touches}: requests", str(pages), str(run["requests"]), run["requests"] <= pages),
            ]
        else:
            seen = f"{run['requests']}, {rows}"
            reached.append(("idle sync: requests, rows written", f"{pages}, 0", seen, seen == f"{pages}, 0"))
    return lines, reached


async def _in_overlap(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    rows: int = await connection.fetchval(OVERLAP)
    await connection.close()
    return rows


def _requests(rows: int) -> int:
    """Return how many requests a sync needs for so many records: one where they are less than a page.

    Else pages that join in a record each, and a look whether the last one is the end (decision 18).
    """
    return 1 if rows < PAGE else math.ceil(rows / (PAGE - 1)) + 1


async def bloat(dsn: str) -> list[str]:
    """Say what updates have left in the tables."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(BLOAT)
    await connection.close()
    return [
        f"{row['relname']:34}{row['n_tup_upd']:8,} updated{row['n_tup_hot_upd']:8,} of them HOT"
        f"{row['n_dead_tup']:8,} dead{row['bytes'] / 1e6:8.1f} MB"
        for row in rows
    ]


async def side_by_side(settings: str, records: int, latency: float, *, peers: bool, processes: list[int]) -> None:
    """Run everyone on one server; print the table and what must be reached."""
    async with server(settings) as dsn:
        results: dict[str, Result] = {}
        if peers:
            async with source(min(records, PEER_RECORDS), latency) as origin:
                for name, how in PEERS.items():
                    results[name] = await peer(name, how, origin, dsn, min(records, PEER_RECORDS))
        async with source(records, latency) as origin:
            for name in CONTENDERS:
                if not latency or name not in WITHOUT_LATENCY:
                    results[name] = await contender(name, origin, dsn, records)
            for number in processes:
                own = await database(dsn, f"product_{number}")
                found, _ = await product(origin, own, "backfill", "--processes", str(number))
                results[found.name] = found
            own = await database(dsn, "product")
            results[PRODUCT], run = await product(origin, own, "backfill")
            show(
                list(results.values()),
                f"{records:,} records, {latency * 1000:.0f} ms a page; {settings} settings, {await stored(own)}",
            )
            parts = ", ".join(f"{part} {run[f'{part}_seconds']:.1f} s" for part in ("api", "decode", "map", "store"))
            lines, promised = await syncs(origin, own)
            say("", f"last run of the backfill: {parts}, all its readers together", *lines, *(await bloat(own)))
        say("", f"{'must reach':40}{'wanted':>10}{'measured':>12}")
        for what, wanted, seen, holds in (*reached(results), *promised):
            say(f"{what:40}{wanted:>10}{seen:>12}  {'ok' if holds else 'MISSED'}")


def reached(results: dict[str, Result]) -> Iterator[tuple[str, str, str, bool]]:
    """Compare a table with what issue and README promise of it: what, wanted, measured, and whether it holds."""
    own, floor = results[PRODUCT], results[FLOOR_C].rate

    def least(what: str, seen: float, wanted: float) -> tuple[str, str, str, bool]:
        return what, f">= {wanted}", f"{seen:.2f}", seen >= wanted

    def most(what: str, seen: float, wanted: float) -> tuple[str, str, str, bool]:
        return what, f"<= {wanted}", f"{seen:.1f}", seen <= wanted

    if FLOOR_D in results:
        yield least("floor D of floor C", results[FLOOR_D].rate / floor, 0.75)
    yield least("product of floor C", own.rate / floor, 0.4)
    yield least("product of the script", own.rate / results[SCRIPT].rate, 1.0)
    if NESTED in results:
        yield least("product of dlt with child tables", own.rate / results[NESTED].rate, 6.0)
    yield most("client CPU ms for 1,000 records", own.client_ms, 150)
    yield most("server CPU ms for 1,000 records", own.server_ms, 200)
    yield most("WAL KB a record", own.wal_kb, 4.5)


async def peer(name: str, how: str, origin: str, dsn: str, records: int) -> Result:
    """Run a peer in an environment of its own."""
    command = [os.environ["PEERS_PYTHON"], str(ROOT / "benchmarks" / "peers.py"), how, origin, dsn]
    before = await cost(dsn, checkpoint=True)
    output, _, cpu, peak = await asyncio.to_thread(measured, command)
    found, spent = json.loads(output.splitlines()[-1]), await cost(dsn) - before
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetchval(f"SELECT count(*) FROM {found['table']}")  # noqa: S608 - a peer's table
    await connection.close()
    return Result(name, records, found["seconds"], cpu, peak, int(found["requests"]), spent, f"{rows:,} rows")


async def stored(dsn: str) -> str:
    """Say how payloads are stored."""
    connection = await asyncpg.connect(dsn)
    kind = await connection.fetchval(
        """
        SELECT CASE WHEN attcompression = 'l' THEN 'lz4' WHEN attstorage = 'e' THEN 'uncompressed' ELSE 'pglz' END
        FROM pg_attribute WHERE attrelid = 'partner_center.referrals'::regclass AND attname = 'payload'
        """
    )
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    return f"PostgreSQL {version}, payloads {kind}"


def show(results: list[Result], title: str) -> None:
    """Print the table."""
    c = next(one for one in results if one.name == FLOOR_C).rate
    d = next((one.rate for one in results if one.name == FLOOR_D), float("nan"))
    say(
        f"\n{title}; ms are CPU for 1,000 records, KB are WAL a record",
        f"{'':38}{'records/s':>10}{'of C':>7}{'of D':>7}{'client ms':>11}{'server ms':>11}{'KB':>7}{'peak MB':>9}"
        f"{'requests':>10}  rows",
        *(
            f"{one.name:38}{one.rate:>10,.0f}{one.rate / c:>7.2f}{one.rate / d:>7.2f}{one.client_ms:>11.0f}"
            f"{one.server_ms:>11.0f}{one.wal_kb:>7.1f}{one.peak:9.0f}{one.requests:10,}  {one.whole}"
            for one in results
        ),
    )


def say(*lines: str) -> None:
    """Print at once, for runs take minutes."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="?", type=int, default=RECORDS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--latency", nargs="+", type=float, default=[0.0, 0.05], help="seconds a page")
    parser.add_argument("--processes", nargs="+", type=int, default=[], help="the backfill with so many as well")
    parser.add_argument("--peers", action="store_true", help="dlt and sling as well, by $PEERS_PYTHON")
    asked_for = parser.parse_args()
    for latency in asked_for.latency:
        for settings in asked_for.settings:
            await side_by_side(
                settings, asked_for.records, latency, peers=asked_for.peers, processes=asked_for.processes
            )


if __name__ == "__main__":
    asyncio.run(main())
