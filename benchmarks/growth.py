"""What stays the same as the data grows: `python -m benchmarks.growth [SMALL] [LARGE]`.

The product alone, by its command line: peak memory of a backfill, and requests and time of syncs, at two sizes.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.backfill import bloat, prepare, product, say, source, syncs
from benchmarks.server import server

SIZES = (20_000, 1_000_000)


async def main(sizes: tuple[int, ...]) -> None:
    """Backfill, sync and report at each size."""
    for records in sizes:
        async with server("default") as dsn, source(records, 0.0) as origin:
            await prepare(dsn)
            load, _ = await product(origin, dsn, "backfill")
            lines, _ = await syncs(origin, dsn)
            say(
                f"\n{records:,} records: {load.rate:,.0f}/s, {load.client_ms:.0f} CPU ms for 1,000,"
                f" peak {load.peak:.0f} MB, {load.requests:,} requests, {load.whole}",
                *lines,
                *(await bloat(dsn)),
            )


if __name__ == "__main__":
    asyncio.run(main(tuple(int(one) for one in sys.argv[1:]) or SIZES))
