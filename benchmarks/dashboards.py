"""How long dashboards wait at 200,000 referrals with a million versions: `make bench-dashboards`.

Every query of the provisioned dashboards; the twelve questions of docs/questions.md; every view of `bi` from its first
row to its last, without sending them; the match with 150,000 opportunities of docs/crm-match.md; and what keeps history
up to date. On a PostgreSQL of its own with default settings, the embedded one or that of `BENCH_PG_BIN`. The best and
the slowest of five, and the processor's time of the best in all of the server's processes: on a busy machine that says
more.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg

from benchmarks.made_up import fill
from benchmarks.server import cpu_of_server, server
from tests.support.crm_match import PAGE, TABLE, documented, script
from tests.support.dashboards import queries
from tests.support.documents import QUESTIONS, sql_blocks
from worker.store import migrate
from worker.store.analysis import refresh_history
from worker.store.database import Database, open_database

REFERRALS = 200_000
ROUNDS = 5
VIEWS = "SELECT relname FROM pg_class WHERE relnamespace = 'bi'::regnamespace AND relkind = 'v' ORDER BY 1"
OPPORTUNITIES = """
INSERT INTO sales.opportunity
SELECT 'O' || n, CASE WHEN n % 7 < 3 THEN '7-' || n END, n % 10000 + n % 2,
    (ARRAY['EUR', 'USD', 'SEK', 'GBP'])[1 + n % 4], current_date + n % 90,
    (ARRAY['Proposal', 'Closed Won', 'Closed Lost'])[1 + n % 3]
FROM generate_series(1, $1::integer) n
"""
CHANGE = """
UPDATE partner_center.referrals SET deal_value = deal_value + 1
WHERE id IN (SELECT 'r' || n FROM generate_series(1, 1000) n);
INSERT INTO sync.stale_stages SELECT referral_key FROM partner_center.referrals
WHERE id IN (SELECT 'r' || n FROM generate_series(1, 1000) n)
"""
FORGET = """
TRUNCATE sync.stages, sync.estimated_stages, sync.stale_stages;
INSERT INTO sync.stale_stages SELECT referral_key FROM partner_center.referral_versions
"""


async def main(referrals: int) -> None:
    """Fill a database and print one line for each query."""
    async with server("default") as url:
        await migrate.upgrade(url)
        await fill(url, referrals)
        connection = await asyncpg.connect(url)
        versions = await connection.fetchval("SELECT count(*) FROM partner_center.referral_history")
        await _match(connection, url, referrals * 3 // 4)
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        sys.stdout.write(f"{referrals:,} referrals, {versions:,} versions\n{'best':>8} {'worst':>8} {'CPU':>8}  ms\n")
        views = [row["relname"] for row in await connection.fetch(VIEWS)]
        for name, sql in _asked(views):
            await _measure(name, backend, lambda sql=sql: connection.fetch(sql))  # type: ignore[misc]
        async with open_database(url, connections=1) as database:
            await _refreshes(connection, database, backend)
        await connection.close()


def _asked(views: list[str]) -> Iterator[tuple[str, str]]:
    yield from queries()
    yield from ((f"question {number}", sql) for number, sql in QUESTIONS.items())
    for view in (*(f"bi.{view}" for view in views), "crm.crm_match"):
        yield f"all of {view}", f"EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM {view}"  # noqa: S608 - a catalogue's name
    read = [sql for sql in sql_blocks(PAGE) if sql.startswith("--")]
    yield from ((sql.partition("\n")[0].removeprefix("-- "), sql) for sql in read)


async def _match(connection: asyncpg.Connection, url: str, opportunities: int) -> None:
    """Make the view of docs/crm-match.md over opportunities, of which most belong to a referral."""
    await connection.execute(TABLE)
    await connection.execute(OPPORTUNITIES, opportunities)
    await connection.execute("ANALYZE sales.opportunity")
    done = await asyncio.to_thread(script, url, *documented())
    if done.returncode:
        raise SystemExit(done.stderr)


async def _refreshes(connection: asyncpg.Connection, database: Database, backend: int) -> None:
    """Measure what brings history up to date: where nothing changed, after a thousand changes, and from nothing."""
    await _measure("refresh of history, nothing changed", backend, lambda: refresh_history(database))
    for name, change in (("1,000 referrals changed", CHANGE), ("for the first time", FORGET)):
        await _measure(
            f"refresh of history, {name}",
            backend,
            lambda: refresh_history(database),
            lambda change=change: connection.execute(change),  # type: ignore[misc]
        )


async def _measure(
    name: str, backend: int, work: Callable[[], Awaitable[Any]], before: Callable[[], Awaitable[Any]] | None = None
) -> None:
    taken = []
    for _ in range(ROUNDS):
        if before is not None:
            await before()
        spent, started = cpu_of_server(backend), time.perf_counter()
        await work()
        seconds = time.perf_counter() - started
        taken.append((seconds * 1000, (cpu_of_server(backend) - spent) * 1000))
    best = min(taken)
    sys.stdout.write(f"{best[0]:8.0f} {max(taken)[0]:8.0f} {best[1]:8.0f}  {name}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else REFERRALS))
