"""A full load side by side: `make bench`, or `python -m benchmarks.backfill [RECORDS] [SECONDS A PAGE]`.

PostgreSQL, the source and each contender are processes of their own; the product runs by its command line and does all
of its work: versions, parts, position, ledger. One table: records a second, client CPU, peak memory, requests, rows,
and the ratio to floor C of the same run. Durability is on.
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
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.contenders import CONTENDERS, storage
from worker.store import embedded, migrate

ROOT = Path(__file__).parent.parent
RECORDS = 20_000
CONCURRENCY = 8
PRODUCT = "referral-sync backfill"
TICK = "referral-sync sync, idle"
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "60"}


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender came to; `cpu` in seconds, `peak` in MB."""

    name: str
    seconds: float
    cpu: float
    peak: float
    requests: int
    rows: int


def measured(command: list[str], variables: dict[str, str] | None = None) -> tuple[str, float, float, float]:
    """Run a process to its end; its output, seconds, CPU seconds and peak memory in MB."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (variables or {}), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return told, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, _megabytes(usage)


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def contender(name: str, origin: str, dsn: str) -> Result:
    """Run one of `benchmarks.contenders`."""
    told, _, cpu, peak = measured([sys.executable, "-m", "benchmarks.contenders", name, origin, dsn])
    found = json.loads(told)
    return Result(name, found["seconds"], cpu, peak, int(found["requests"]), int(found["rows"]))


async def product(origin: str, dsn: str) -> list[Result]:
    """Run the product's command line: a load, and a tick when nothing changed."""
    await migrate.upgrade(dsn)
    connection = await asyncpg.connect(dsn)
    for table in ("referrals", "referral_versions"):
        await storage(connection, f"partner_center.{table}")
    variables = {
        "REFERRAL_SYNC_DATABASE__URL": dsn,
        "REFERRAL_SYNC_API__BASE_URL": origin,
        "REFERRAL_SYNC_API__CONCURRENCY": str(CONCURRENCY),
        "REFERRAL_SYNC_ACCOUNTS__BENCH__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__BENCH__ACCESS_TOKEN": "bench",
        "REFERRAL_SYNC_LOG__LEVEL": "error",
    }
    results = []
    for name, command in ((PRODUCT, "backfill"), (TICK, "sync")):
        _, seconds, cpu, peak = await asyncio.to_thread(measured, [sys.executable, "-m", "worker", command], variables)
        run = await connection.fetchrow("SELECT * FROM sync.runs ORDER BY id DESC LIMIT 1")
        assert run is not None  # noqa: S101 - it has just run
        rows = await connection.fetchval("SELECT count(*) FROM partner_center.referrals")
        results.append(Result(name, seconds, cpu, peak, run["requests"], rows))
        split = ", ".join(f"{part} {run[f'{part}_seconds']:.1f} s" for part in ("api", "decode", "map", "store"))
        sys.stdout.write(f"{name}: {split}, all readers together\n")
    await connection.close()
    return results


async def main(records: int, latency: float) -> None:
    """Run everyone and print the table."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        async with embedded.server(Path(folder), settings=SETTINGS) as dsn:
            command = [sys.executable, "-m", "benchmarks.source", str(records), str(latency)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as source:
                assert source.stdout is not None  # noqa: S101 - a pipe was asked for
                origin = source.stdout.readline().strip()
                try:
                    results = [await asyncio.to_thread(contender, name, origin, dsn) for name in CONTENDERS]
                    results += await product(origin, dsn)
                finally:
                    source.terminate()
    show(results, records, latency)


def show(results: list[Result], records: int, latency: float) -> None:
    """Print the table."""
    floor = next(one for one in results if one.name.startswith("floor C"))
    sys.stdout.write(f"\n{records:,} records in pages of 100, {latency * 1000:.0f} ms a page\n")
    sys.stdout.write(
        f"{'':28}{'records/s':>10}{'of C':>7}{'CPU ms/1,000':>14}{'peak MB':>9}{'requests':>10}{'rows':>9}\n"
    )
    for one in results:
        rate = records / one.seconds
        share = f"{rate * floor.seconds / records:.2f}" if one.name != TICK else ""
        speed = f"{rate:,.0f}" if one.name != TICK else f"{one.seconds:.2f} s"
        cpu = f"{one.cpu / records * 1e6:.0f}" if one.name != TICK else ""
        line = f"{one.name:28}{speed:>10}{share:>7}{cpu:>14}{one.peak:9.0f}{one.requests:10,}{one.rows:9,}\n"
        sys.stdout.write(line)


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(int(given[0]) if given else RECORDS, float(given[1]) if len(given) > 1 else 0.0))
