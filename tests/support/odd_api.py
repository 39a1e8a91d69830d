"""A referrals API of few lines that a test can bend in ways which the simulator does not know."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote
from uuid import UUID

from aiohttp import web

PAGE = 20
_PATH = "/v1.0/engagements/referrals"
_TERM = re.compile(r"(\w+) (ge|lt|eq) '?([^']*)'?")
_BEGAN = datetime(2025, 1, 1, tzinfo=UTC)

Record = dict[str, Any]


def made_up(count: int) -> dict[str, Record]:
    """Some referrals an hour apart, by their ids; none of a status follows another of the same."""
    records = [
        {
            "id": str(UUID(int=(7919 * number % 1009) << 64 | 0xABC)),
            "engagementId": str(UUID(int=number + 1)),
            "name": f"Deal {number}",
            "status": ("New", "Active", "Closed", "Active")[number % 4],
            "type": "Shared",
            "createdDateTime": _hour(number),
            "updatedDateTime": _hour(number + 100 * (number % 7)),
        }
        for number in range(count)
    ]
    return {record["id"]: record for record in records}


def _hour(number: int) -> str:
    return (_BEGAN + timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%S.0000000Z")


class OddApi:
    """An API that filters, orders, skips and links as documented; a test overrides what it gets wrong."""

    def __init__(self, records: dict[str, Record]) -> None:
        self.records = records
        self.headers: dict[str, str] = {}

    def filtered(self, rows: list[Record]) -> list[Record]:
        """Return what a filter by time leaves of the rows that it must leave."""
        return rows

    def page(self, rows: list[Record], at: int, order: str) -> list[Record]:
        """Return the page that begins at a place; `rows` are in order."""
        del order
        return rows[at : at + PAGE]

    def next_place(self, at: int, shown: int, rows: int, order: str) -> int | None:
        """Return where a link leads to, None where there is none."""
        del order
        return at + shown if at + shown < rows else None

    def shown(self, record: Record) -> Record:
        """Return a record as a listing shows it."""
        return record

    def by_id(self, referral_id: str) -> Record | int:
        """Return a record as it is shown by id, or a status."""
        return self.records.get(referral_id, 404)

    def listing(self, options: dict[str, str]) -> Record:
        """Answer a query."""
        rows, order = sorted(self.records.values(), key=lambda row: str(row["id"])), options.get("$orderby", "")
        for field, operator, value in _TERM.findall(options.get("$filter", "")):
            rows = [
                row
                for row in rows
                if {"ge": row[field] >= value, "lt": row[field] < value, "eq": row[field] == value}[operator]
            ]
        if "DateTime" in options.get("$filter", ""):
            rows = self.filtered(rows)
        if order:
            field, _, direction = order.partition(" ")
            rows.sort(key=lambda row: (row[field], row["id"]), reverse=direction == "desc")
        rows = rows[int(options.get("$skip", "0")) :]
        at = int(options.get("at", "0"))
        page = self.page(rows, at, order)
        answer: Record = {"value": [self.shown(row) for row in page]}
        following = self.next_place(at, len(page), len(rows), order)
        if following is not None:
            again = options | {"at": str(following), "n": str(int(options.get("n", "0")) + 1)}
            query = "&".join(f"{name}={quote(value)}" for name, value in again.items())
            answer["@odata.nextLink"] = f"http://api.partner.microsoft.com/v1.0/referrals?{query}"
        return answer

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        if request.path == _PATH:
            return web.json_response(self.listing(dict(parse_qsl(request.query_string))), headers=self.headers)
        found = self.by_id(request.path.removeprefix(f"{_PATH}/"))
        if isinstance(found, int):
            return web.Response(status=found, text=json.dumps({"error": {"code": "itemNotFound"}}))
        return web.json_response(found, headers=self.headers)


@asynccontextmanager
async def served(api: OddApi) -> AsyncIterator[str]:
    """Serve an API on a free port; gives its origin."""
    application = web.Application()
    application.router.add_get("/{path:.*}", api.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
