"""How long dashboards wait at 200,000 referrals with a million versions: `make bench-dashboards`.

Every query of the provisioned dashboards, and what keeps `bi.pipeline_daily` up to date, on an embedded PostgreSQL of
its own. The best and the slowest of five.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from benchmarks.made_up import fill
from tests.support.dashboards import queries
from worker.embedded import server as embedded
from worker.store import migrate

REFERRALS = 200_000
ROUNDS = 5
REFRESH = (
    "REFRESH MATERIALIZED VIEW CONCURRENTLY sync.estimated_stages",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY sync.pipeline_spans",
)


async def main(referrals: int) -> None:
    """Fill a database and print one line for each query."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        async with embedded.server(Path(folder), settings={"max_wal_size": "4GB"}) as url:
            await migrate.upgrade(url)
            connection = await asyncpg.connect(url)
            await fill(connection, referrals)
            versions = await connection.fetchval("SELECT count(*) FROM partner_center.referral_history")
            sys.stdout.write(f"{referrals:,} referrals, {versions:,} versions\n{'best':>8} {'worst':>8}  ms\n")
            for name, sql in [*queries(), *((sql.rpartition(" ")[2], sql) for sql in REFRESH)]:
                taken = []
                for _ in range(ROUNDS):
                    started = time.perf_counter()
                    await connection.fetch(sql)
                    taken.append((time.perf_counter() - started) * 1000)
                sys.stdout.write(f"{min(taken):8.0f} {max(taken):8.0f}  {name}\n")
            await connection.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else REFERRALS))
