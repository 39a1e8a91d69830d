"""A referral listing as fast as a page can be sent: `python -m benchmarks.source COUNT [SECONDS A PAGE [SMALL]]`.

Records of 3.3 KB with every documented field, rendered before the first request; more than 20,000 are those again with
ids and times of their own, put together as they are sent. It answers what a window asks for, `createdDateTime ge A and
createdDateTime lt B` (or `updatedDateTime`), in ascending order, with links that carry the position. With SMALL there
is a second listing, of so many records and without delay, for every token but `big`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import unquote

from aiohttp import web

from worker.demo.data import make_referrals
from worker.model import instant
from worker.model.codec import encode
from worker.model.instant import Instant

PAGE = 100
MADE = 20_000
NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600 * instant.TICKS_PER_SECOND
FIELDS = ("createdDateTime", "updatedDateTime")
_BOUND = re.compile(r"(createdDateTime|updatedDateTime) (ge|lt) '?([0-9TZ:.-]+)'?")
_SKIP = re.compile(r"\$skiptoken=(\w+)_(\d+)_(\d+)")
_PASSED = re.compile(r"\$skip=(\d+)")
LIST = "/v1.0/engagements/referrals"


@dataclass(frozen=True, slots=True)
class Template:
    """A record as rendered, and what of it is replaced in those that repeat it."""

    text: bytes
    id: str
    times: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record: which template it repeats, its id, its times in ticks, and whether it is the template itself."""

    template: int
    id: str
    created: Instant
    updated: Instant
    original: bool


class Listing:
    """Records in the order of each time field, with the times to find a window's ends by."""

    def __init__(self, count: int) -> None:
        made = make_referrals(min(count, MADE), 1, NEWEST)
        self._templates = [
            Template(encode(row), row["id"], (row[FIELDS[0]].encode(), row[FIELDS[1]].encode())) for row in made
        ]
        self.entries = [
            Entry(
                number % len(made),
                made[number]["id"] if number < len(made) else f"{number:08x}{made[number % len(made)]['id'][8:]}",
                Instant(instant.parse(made[number % len(made)][FIELDS[0]]) + number // len(made)),
                Instant(instant.parse(made[number % len(made)][FIELDS[1]]) + number // len(made)),
                number < len(made),
            )
            for number in range(count)
        ]
        self._by_id = {entry.id: number for number, entry in enumerate(self.entries)}
        self._touched = 0
        self._sort()

    def page(self, query: str) -> bytes:
        """Answer a raw query."""
        text = unquote(query)
        skip = _SKIP.search(text)
        if skip:
            field, start, end = skip[1], int(skip[2]), int(skip[3])
        else:
            field = FIELDS[1] if FIELDS[1] in text else FIELDS[0]
            times = self._times[field]
            start, end = 0, len(times)
            for _, operator, bound in _BOUND.findall(text):
                place = bisect_left(times, instant.parse(bound))
                start, end = (max(start, place), end) if operator == "ge" else (start, min(end, place))
            if passed := _PASSED.search(text):
                start = min(end, start + int(passed[1]))
            if " desc" in text:
                newest = [self._rendered(number) for number in self._orders[field][max(start, end - PAGE) : end]]
                return b'{"value":[' + b",".join(newest[::-1]) + b"]}"
        stop = min(start + PAGE, end)
        body = b",".join([self._rendered(number) for number in self._orders[field][start:stop]])
        link = f',"@odata.nextLink":"http://x/v1.0/referrals?$skiptoken={field}_{stop}_{end}"' if stop < end else ""
        return b'{"value":[' + body + b"]" + link.encode() + b"}"

    def by_id(self, key: str) -> bytes | None:
        """Answer a request by id."""
        number = self._by_id.get(key)
        return None if number is None else self._rendered(number)

    def edges(self, parts: int) -> list[str]:
        """Return where creation time is cut into parts of as many rows each."""
        times = self._times[FIELDS[0]]
        return [instant.render(times[len(times) * part // parts]) for part in range(parts)]

    def touch(self, count: int) -> None:
        """Change some records, spread over all, an hour after the newest."""
        self._touched += 1
        newest = self._times[FIELDS[1]][-1]
        for place in range(count):
            number = (place * len(self.entries) // count + self._touched) % len(self.entries)
            changed = Instant(newest + HOUR + place * 10_000)
            self.entries[number] = replace(self.entries[number], updated=changed, original=False)
        self._sort()

    def checksum(self) -> str:
        """Return what a copy of ids and update times must come to."""
        lines = sorted(f"{entry.id} {self._updated_text(entry)}" for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _sort(self) -> None:
        self._orders = {
            FIELDS[0]: sorted(range(len(self.entries)), key=lambda n: (self.entries[n].created, self.entries[n].id)),
            FIELDS[1]: sorted(range(len(self.entries)), key=lambda n: (self.entries[n].updated, self.entries[n].id)),
        }
        self._times = {
            FIELDS[0]: [self.entries[number].created for number in self._orders[FIELDS[0]]],
            FIELDS[1]: [self.entries[number].updated for number in self._orders[FIELDS[1]]],
        }

    def _updated_text(self, entry: Entry) -> str:
        return self._templates[entry.template].times[1].decode() if entry.original else instant.render(entry.updated)

    def _rendered(self, number: int) -> bytes:
        entry = self.entries[number]
        template = self._templates[entry.template]
        if entry.original:
            return template.text
        text = template.text.replace(template.id.encode(), entry.id.encode())
        for name, old, new in zip(FIELDS, template.times, (entry.created, entry.updated), strict=True):
            key = f'"{name}":"'.encode()
            text = text.replace(key + old, key + instant.render(new).encode(), 1)
        return text


async def serve(count: int, latency: float, small: int) -> None:
    """Serve until killed; prints its origin first."""
    listing = Listing(count)
    other = Listing(small) if small else listing

    async def pages(request: web.Request) -> web.Response:
        asked = listing if request.headers.get("Authorization") == "Bearer big" else other
        if latency and asked is listing:
            await asyncio.sleep(latency)
        return web.Response(body=asked.page(request.raw_path.partition("?")[2]), content_type="application/json")

    async def one(request: web.Request) -> web.Response:
        body = other.by_id(request.match_info["key"]) or listing.by_id(request.match_info["key"])
        return web.Response(body=body, content_type="application/json") if body else web.Response(status=404)

    async def edges(request: web.Request) -> web.Response:
        return web.json_response(listing.edges(int(request.match_info["parts"])))

    async def touch(request: web.Request) -> web.Response:
        other.touch(int(request.match_info["count"]))
        return web.json_response({})

    async def checksum(_: web.Request) -> web.Response:
        return web.Response(text=listing.checksum())

    app = web.Application()
    app.add_routes(
        [web.get("/edges/{parts}", edges), web.post("/touch/{count}", touch), web.get("/checksum", checksum)]
    )
    app.add_routes([web.get(LIST, pages), web.get(LIST + "/{key}", one)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = [*sys.argv[1:], "0", "0"]
    asyncio.run(serve(int(given[0]), float(given[1]), int(given[2])))
