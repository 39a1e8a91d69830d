"""A referral listing as fast as a page can be sent: every page rendered before the first request.

It answers what a window asks for, `createdDateTime ge A and createdDateTime lt B` (or `updatedDateTime`), in ascending
order, with links that carry the position. No latency unless told: `python -m benchmarks.source COUNT [SECONDS]`.
"""

from __future__ import annotations

import asyncio
import bisect
import re
import sys
from datetime import UTC, datetime
from urllib.parse import unquote

from aiohttp import web

from worker.demo.data import make_referrals
from worker.demo.rows import encode

PAGE = 100
NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
_BOUND = re.compile(r"(createdDateTime|updatedDateTime) (ge|lt) '?([0-9TZ:.-]+)'?")
_SKIP = re.compile(r"\$skiptoken=(\w+)_(\d+)_(\d+)")
LIST = "/v1.0/engagements/referrals"


class Listing:
    """Rows in the order of each time field, rendered, with the times to find a window's ends by."""

    def __init__(self, count: int) -> None:
        rows = make_referrals(count, 1, NEWEST)
        self._rendered = {row["id"]: encode(row) for row in rows}
        self._orders: dict[str, tuple[list[str], list[bytes]]] = {}
        for field in ("createdDateTime", "updatedDateTime"):
            ordered = sorted(rows, key=lambda row: (row[field], row["id"]))
            self._orders[field] = ([row[field] for row in ordered], [self._rendered[row["id"]] for row in ordered])

    def page(self, query: str) -> bytes:
        """Answer a raw query."""
        text = unquote(query)
        skip = _SKIP.search(text)
        if skip:
            field, start, end = skip[1], int(skip[2]), int(skip[3])
        else:
            field = "updatedDateTime" if "updatedDateTime" in text else "createdDateTime"
            times = self._orders[field][0]
            start, end = 0, len(times)
            for _, operator, bound in _BOUND.findall(text):
                place = bisect.bisect_left(times, bound)
                start, end = (max(start, place), end) if operator == "ge" else (start, min(end, place))
            if " desc" in text:
                return self._descending(field, start, end)
        stop = min(start + PAGE, end)
        body = b",".join(self._orders[field][1][start:stop])
        link = f',"@odata.nextLink":"http://x/v1.0/referrals?$skiptoken={field}_{stop}_{end}"' if stop < end else ""
        return b'{"value":[' + body + b"]" + link.encode() + b"}"

    def edges(self, parts: int) -> list[str]:
        """Return where creation time is cut into parts of as many rows each."""
        times = self._orders["createdDateTime"][0]
        return [times[len(times) * part // parts] for part in range(parts)]

    def by_id(self, key: str) -> bytes | None:
        """Answer a request by id."""
        return self._rendered.get(key)

    def _descending(self, field: str, start: int, end: int) -> bytes:
        rows = self._orders[field][1][max(start, end - PAGE) : end][::-1]
        return b'{"value":[' + b",".join(rows) + b"]}"


async def serve(count: int, latency: float) -> None:
    """Serve until killed; prints its origin first."""
    listing = Listing(count)

    async def pages(request: web.Request) -> web.Response:
        if latency:
            await asyncio.sleep(latency)
        return web.Response(body=listing.page(request.raw_path.partition("?")[2]), content_type="application/json")

    async def one(request: web.Request) -> web.Response:
        body = listing.by_id(request.match_info["key"])
        return web.Response(body=body, content_type="application/json") if body else web.Response(status=404)

    async def edges(request: web.Request) -> web.Response:
        return web.json_response(listing.edges(int(request.match_info["parts"])))

    app = web.Application()
    app.add_routes([web.get("/edges/{parts}", edges), web.get(LIST, pages), web.get(LIST + "/{key}", one)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))  # noqa: PLR2004 - the second argument
