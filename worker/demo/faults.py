"""Faults to order: which request they meet, and the broken answers themselves."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import msgspec
from aiohttp import web

from worker.model.codec import encode

# fmt: off
Kind = Literal[
    "status", "redirect", "hang", "reset",  # instead of an answer
    "truncate", "stall", "not_json", "empty", "huge",  # an answer broken on its way
    "duplicate_rows", "drop_rows", "no_value", "no_link", "repeat_link", "garbage_link", "endless",  # a page that lies
    "error_inside", "second_document", "html_behind",  # a 200 that is none
]
# fmt: on
INSTEAD = frozenset(("status", "redirect", "hang", "reset"))
_CODES = {
    400: "invalidRequest",
    401: "unauthenticated",
    403: "accessDenied",
    404: "itemNotFound",
    409: "resourceModified",
    412: "preconditionFailed",
    503: "serviceNotAvailable",
}
_CHUNK = b" " * 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, met by `times` requests whose raw path and query match the pattern `path`, after `skip` others.

    kind          status (an error answer) | redirect (302 to `location`) | hang (no answer for `seconds`) |
                  reset (the connection is cut with RST) | truncate (half the body, then closed) | stall (half the body,
                  then nothing for `seconds`) | not_json | empty | huge (a good page padded to `size` bytes) |
                  duplicate_rows (each row twice) | drop_rows (every second row is left out) | no_value |
                  no_link (the link is left out) | repeat_link (the link that led here again) |
                  garbage_link (a foreign host) | endless (ever new links to the same page) |
                  error_inside (half the rows, then an error member) | second_document (half the rows, then an error
                  document behind the first) | html_behind (half the rows, then a page of HTML)
    times         -1: until the queue is cleared
    status, body, code, retry_after   of an error answer; `body` is one of the shapes met in the wild
    """

    kind: Kind = "status"
    times: int = 1
    skip: int = 0
    path: str = r"^/v1\.0/"
    status: int = 503
    body: Literal["partner", "family", "gateway", "html", "empty"] = "partner"
    code: str | int | None = None
    retry_after: str | None = None
    location: str = "https://attacker.example.com/v1.0/engagements/referrals?$skiptoken=stolen"
    seconds: float = 3600.0
    size: int = 100_000_000

    def __post_init__(self) -> None:
        """Refuse a pattern that cannot be one."""
        try:
            re.compile(self.path)
        except re.error as fault:
            raise ValueError(f"The path '{self.path}' is no regular expression: {fault}.") from fault


def read_fault(given: Mapping[str, Any]) -> Fault:
    """Read a fault from JSON; ValueError names what is wrong."""
    unknown = set(given) - {field.name for field in fields(Fault)}
    if unknown:
        raise ValueError(f"A fault has no member called {', '.join(sorted(unknown))}.")
    try:
        return msgspec.convert(dict(given), Fault)
    except msgspec.ValidationError as fault:
        raise ValueError(str(fault)) from fault


class FaultQueue:
    """Faults waiting for their requests, in order."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """Put faults at the end."""
        self.waiting.extend(faults)

    def take(self, raw_path: str) -> Fault | None:
        """Return the fault that this request meets, and count it."""
        for place, fault in enumerate(self.waiting):
            if not re.search(fault.path, raw_path):
                continue
            if fault.skip:
                self.waiting[place] = replace(fault, skip=fault.skip - 1)
                continue
            if fault.times == 1:
                del self.waiting[place]
            elif fault.times > 1:
                self.waiting[place] = replace(fault, times=fault.times - 1)
            return fault
        return None


def partner_error(status: int, message: str, *, target: str = "", code: str | int | None = None) -> bytes:
    """Return an error body of the Partner API, with both spellings of the inner error."""
    name = code or _CODES.get(status, "generalException")
    inner = {"code": "unAuthorized" if status == 401 else str(name), "innererror": {"code": "detail"}}  # noqa: PLR2004 - the status itself
    return encode({"error": {"code": name, "message": message, "target": target, "innerError": inner}})


def error_answer(fault: Fault) -> web.Response:
    """Return the error answer of a `status` fault."""
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    wait = fault.retry_after or "57"
    json_bodies = {
        "partner": lambda: partner_error(fault.status, "The request could not be processed.", code=fault.code),
        "family": lambda: encode(
            {"code": fault.code or fault.status, "description": "Rejected.", "data": [], "source": "PartnerFD"}
        ),
        "gateway": lambda: encode(
            {"statusCode": fault.status, "message": f"Rate limit is exceeded. Try again in {wait} seconds."}
        ),
    }
    if fault.body in json_bodies:
        body = json_bodies[fault.body]()
        return web.Response(status=fault.status, headers=headers, body=body, content_type="application/json")
    page = b"<html><head><title>Service unavailable</title></head><body><h1>Sorry</h1></body></html>"
    body = page if fault.body == "html" else b""
    return web.Response(status=fault.status, headers=headers, body=body, content_type="text/html")


async def answer_instead(request: web.Request, fault: Fault, closing: asyncio.Event) -> web.StreamResponse:
    """Give the answer of a fault that leaves no room for the real one."""
    match fault.kind:
        case "redirect":
            return web.Response(status=302, headers={"Location": fault.location})
        case "hang":
            await _pause(closing, fault.seconds)
        case "reset":
            return reset(request)
        case _:
            return error_answer(fault)
    return web.Response(status=504)


def reset(request: web.Request) -> web.StreamResponse:
    """Cut the connection so that the other side sees a reset."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()  # goes nowhere


async def deliver(
    request: web.Request, answer: web.Response, fault: Fault | None, closing: asyncio.Event
) -> web.StreamResponse:
    """Send a good answer, broken on its way where the fault says so."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    match fault.kind if fault else None:
        case "not_json":
            answer.body = b"upstream connect error or disconnect before headers"
        case "empty":
            answer.body = b""
        case "second_document":
            answer.body = body + partner_error(500, "The request could not be processed.")
        case "html_behind":
            answer.body = body + b"\r\n<html><body><h1>Sorry</h1></body></html>"
        case "truncate" | "stall" | "huge" if fault is not None:
            return await _send_slowly(request, answer, fault, closing, body)
    return answer


async def _send_slowly(
    request: web.Request, answer: web.Response, fault: Fault, closing: asyncio.Event, body: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if fault.kind != "huge":
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if fault.kind == "stall":
            await _pause(closing, fault.seconds)
        if request.transport is not None:
            request.transport.close()
        return response
    response.headers.popall("Content-Length", None)
    await response.prepare(request)
    await response.write(body[:-1])
    for _ in range(fault.size // len(_CHUNK)):
        await response.write(_CHUNK)
    await response.write(body[-1:])
    return response


async def _pause(closing: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than the server lives."""
    try:
        async with asyncio.timeout(seconds):
            await closing.wait()
    except TimeoutError:
        return
