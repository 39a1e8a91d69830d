"""A full backfill side by side, then a sync: `python -m benchmarks.backfill [RECORDS] [SECONDS A PAGE] [peers]`.

PostgreSQL, the source and each contender are processes of their own; the product runs by its command line and does all
of its work: versions, child rows, checkpoint, ledger. One table for one run: records a second, client CPU, peak memory,
requests, whether ids and update times are all there, and the ratio to floor C. Durability is on. `BENCH_PG_BIN` names
another PostgreSQL's folder of programs, `BENCH_URL` an empty database of a running server; payloads are stored the
same way for all.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import asyncpg

from benchmarks.contenders import CONTENDERS, storage
from worker.embedded import server as embedded
from worker.store import migrate

ROOT = Path(__file__).parent.parent
RECORDS = 50_000
CONCURRENCY = 8
CHANGED = 100
SETTINGS = {"max_connections": "60"}
PEERS = {"dlt": "plain", "dlt, child tables": "nested"}
CHECKSUM = """
SELECT encode(sha256(convert_to(string_agg(id || ' ' || (payload ->> 'updatedDateTime'), E'\n'
    ORDER BY id COLLATE "C"), 'UTF8')), 'hex') FROM {}
"""
BLOAT = """
SELECT relname, n_tup_upd, n_tup_hot_upd, n_dead_tup, pg_total_relation_size(relid) AS bytes
FROM pg_stat_user_tables WHERE schemaname = 'partner_center' ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender came to: `cpu` in seconds, `peak` in MB, `whole`: whether ids and times are the source's."""

    name: str
    seconds: float
    cpu: float
    peak: float
    requests: int
    whole: str


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
async def source(records: int, latency: float) -> AsyncIterator[str]:
    """Start the source; gives its origin."""
    command = [sys.executable, "-m", "benchmarks.source", str(records), str(latency)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            yield (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            process.terminate()


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """Start PostgreSQL, durability on; gives its URL."""
    if address := os.environ.get("BENCH_URL"):
        yield address
        return
    programs = os.environ.get("BENCH_PG_BIN")
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        bin_dir = Path(programs) if programs else None
        async with embedded.server(Path(folder), bin_dir=bin_dir, settings=SETTINGS) as url:
            yield url


async def contender(name: str, origin: str, dsn: str, expected: str) -> Result:
    """Run one of `benchmarks.contenders`."""
    command = [sys.executable, "-m", "benchmarks.contenders", name, origin, dsn]
    output, _, cpu, peak = await asyncio.to_thread(measured, command)
    found = json.loads(output)
    whole = await same(dsn, found["table"], expected) if found["table"] else ""
    return Result(name, found["seconds"], cpu, peak, int(found["requests"]), whole)


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


async def for_contender(name: str, dsn: str) -> str:
    """Return the database that a contender fills: one of its own with our tables for floor D, else the shared one."""
    if not name.startswith("floor D"):
        return dsn
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE DATABASE floor_d")
    await connection.close()
    own = urlsplit(dsn)._replace(path="/floor_d").geturl()
    await prepare(own)
    return own


async def product(origin: str, dsn: str, command: str) -> tuple[Result, asyncpg.Record]:
    """Run a command line of the product; returns also the record of its run."""
    variables = {
        "REFERRAL_SYNC_DATABASE__URL": dsn,
        "REFERRAL_SYNC_API__BASE_URL": origin,
        "REFERRAL_SYNC_API__CONCURRENCY": str(CONCURRENCY),
        "REFERRAL_SYNC_ACCOUNTS__BENCH__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__BENCH__ACCESS_TOKEN": "bench",
        "REFERRAL_SYNC_LOG__LEVEL": "error",
    }
    line = [sys.executable, "-m", "worker", command]
    _, seconds, cpu, peak = await asyncio.to_thread(measured, line, variables)
    connection = await asyncpg.connect(dsn)
    run = await connection.fetchrow(
        "SELECT *, extract(epoch FROM finished_at - started_at)::float AS seconds FROM sync.runs"
        " ORDER BY id DESC LIMIT 1"
    )
    await connection.close()
    assert run is not None  # noqa: S101 - it has just run
    whole = await same(dsn, "partner_center.referrals", asked(f"{origin}/checksum"))
    return Result(f"referral-sync {command}", seconds, cpu, peak, run["requests"], whole), run


async def syncs(origin: str, dsn: str) -> list[str]:
    """Sync when nothing changed, when records changed, and again; says what each cost."""
    lines = []
    await product(origin, dsn, "sync")  # the backfill's own newest minutes
    for name, touches in (("idle", 0), (f"{CHANGED} changed", CHANGED), ("idle", 0), (f"{CHANGED} changed", CHANGED)):
        if touches:
            asked(f"{origin}/touch/{touches}", post=True)
        result, run = await product(origin, dsn, "sync")
        lines.append(
            f"sync, {name:12}{run['requests']:4} requests in {run['api_seconds'] * 1000:5.0f} ms,"
            f" run {run['seconds'] * 1000:5.0f} ms, command {result.seconds:.2f} s,"
            f" {run['updated']} updated, {result.whole}"
        )
    return lines


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


async def side_by_side(records: int, latency: float, *, peers: bool) -> None:
    """Run everyone and print the table."""
    async with server() as dsn, source(records, latency) as origin:
        expected = asked(f"{origin}/checksum")
        results = [await contender(name, origin, await for_contender(name, dsn), expected) for name in CONTENDERS]
        if peers:
            results += [await peer(name, how, origin, dsn) for name, how in PEERS.items()]
        await prepare(dsn)
        load, run = await product(origin, dsn, "backfill")
        results.append(load)
        show(results, records, latency, await stored(dsn))
        parts = ", ".join(f"{part} {run[f'{part}_seconds']:.1f} s" for part in ("api", "decode", "map", "store"))
        say(f"backfill: {parts}, all readers together", *(await syncs(origin, dsn)), *(await bloat(dsn)))


async def peer(name: str, how: str, origin: str, dsn: str) -> Result:
    """Run dlt in its own environment."""
    command = [os.environ["PEERS_PYTHON"], str(ROOT / "benchmarks" / "peers.py"), how, origin, dsn]
    output, _, cpu, peak = await asyncio.to_thread(measured, command)
    found = json.loads(output.splitlines()[-1])
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetchval(f"SELECT count(*) FROM {found['table']}")  # noqa: S608 - a peer's table
    await connection.close()
    return Result(name, found["seconds"], cpu, peak, int(found["requests"]), f"{rows:,} rows")


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


def show(results: list[Result], records: int, latency: float, how: str) -> None:
    """Print the table."""
    floor = next(one for one in results if one.name.startswith("floor C"))
    say(
        f"\n{records:,} records in pages of 100, {latency * 1000:.0f} ms a page; {how}",
        f"{'':26}{'records/s':>10}{'of C':>7}{'CPU s/100,000':>15}{'peak MB':>9}{'requests':>10}  rows",
        *(
            f"{one.name:26}{records / one.seconds:>10,.0f}{floor.seconds / one.seconds:>7.2f}"
            f"{one.cpu / records * 1e5:>15.1f}{one.peak:9.0f}{one.requests:10,}  {one.whole}"
            for one in results
        ),
    )


def say(*lines: str) -> None:
    """Print at once, for runs take minutes."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one != "peers"]
    asyncio.run(
        side_by_side(
            int(given[0]) if given else RECORDS,
            float(given[1]) if len(given) > 1 else 0.0,
            peers="peers" in sys.argv,
        )
    )
