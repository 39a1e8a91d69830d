"""The control endpoint under `/_control/`: how tests and the demo change the simulated world. No sign-in, JSON only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from worker.demo import ticks
from worker.demo.api import CONTROL, SIMULATOR
from worker.demo.faults import read_fault
from worker.demo.world import Simulator
from worker.model.codec import decode, encode

Control = Callable[[Simulator, web.Request], Awaitable[Any]]


def add_controls(app: web.Application) -> None:
    """Add the routes; what each takes and gives is told at its function."""
    routes: list[tuple[str, str, Control]] = [
        ("POST", "referrals", create),
        ("PATCH", "referrals/{id}", update),
        ("DELETE", "referrals/{id}", delete),
        ("PUT", "raw/{id}", store_raw),
        ("GET", "behaviour", behaviour),
        ("POST", "behaviour", behave),
        ("POST", "faults", fail),
        ("DELETE", "faults", clear_faults),
        ("POST", "tokens", change_tokens),
        ("POST", "clock", set_clock),
        ("POST", "reveal", reveal),
        ("GET", "requests", requests),
        ("DELETE", "requests", clear_requests),
        ("GET", "state", state),
        ("POST", "reset", reset),
    ]
    for method, path, control in routes:
        app.router.add_route(method, CONTROL + path, _answering(control))


def _answering(control: Control) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            status, body = 200, await control(request.app[SIMULATOR], request)
        except KeyError as missing:
            status, body = 404, {"error": f"There is no referral {missing}."}
        except (ValueError, TypeError, msgspec.DecodeError) as fault:
            status, body = 400, {"error": str(fault)}
        return web.Response(status=status, body=encode(body), content_type="application/json")

    return answer


async def _object(request: web.Request) -> dict[str, Any]:
    value = decode(await request.read() or b"{}")
    if not isinstance(value, dict):
        raise TypeError("The body must be a JSON object.")
    return value


async def create(simulator: Simulator, request: web.Request) -> list[dict[str, Any]]:
    """Take an array of partial records; give the whole ones."""
    records = decode(await request.read() or b"[{}]")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise TypeError("The body must be an array of objects.")
    return simulator.create(records)


async def update(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take the members to change, with `silent` and `remove` (paths) beside them; give the whole record."""
    changes = await _object(request)
    silent, remove = bool(changes.pop("silent", False)), changes.pop("remove", [])
    return simulator.update(request.match_info["id"], changes, silent=silent, remove=remove)


async def delete(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take a referral away."""
    simulator.delete(request.match_info["id"])
    return {}


async def store_raw(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take any bytes as the record; sort keys as `createdDateTime` and `updatedDateTime` in the query."""
    query = request.query
    times = {"created": query.get("createdDateTime"), "updated": query.get("updatedDateTime")}
    if any(text is not None and ticks.parse(text) is None for text in times.values()):
        raise ValueError("A sort key is no timestamp.")
    simulator.store_raw(request.match_info["id"], await request.read(), **times)
    return {}


async def behaviour(simulator: Simulator, _request: web.Request) -> dict[str, Any]:
    """Give all options."""
    return asdict(simulator.behaviour)


async def behave(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take the options to change; give all."""
    return asdict(simulator.behave(**await _object(request)))


async def fail(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take one fault or an array of them."""
    given = decode(await request.read())
    faults = [read_fault(each) for each in (given if isinstance(given, list) else [given])]
    simulator.fail(*faults)
    return {"waiting": len(simulator.faults.waiting)}


async def clear_faults(simulator: Simulator, _request: web.Request) -> dict[str, Any]:
    """Forget the faults that still wait."""
    simulator.faults.waiting.clear()
    return {}


async def change_tokens(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take `add`, `revoke`, `expire`, `add_refresh`, `revoke_refresh`: arrays of tokens, or "all"."""
    simulator.signin.change(await _object(request))
    return {"access": list(simulator.signin.access), "refresh": sorted(simulator.signin.refresh)}


async def set_clock(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take `offset`, seconds to add to the `Date` header."""
    simulator.clock_offset = float((await _object(request)).get("offset", 0))
    return {"offset": simulator.clock_offset}


async def reveal(simulator: Simulator, _request: web.Request) -> dict[str, Any]:
    """Show all late rows."""
    return {"revealed": simulator.reveal()}


async def requests(simulator: Simulator, _request: web.Request) -> list[Mapping[str, Any]]:
    """Give the log: time, method, raw path and query, status, rows, fault, has_token, and grant_type of sign-ins."""
    return list(simulator.requests)


async def clear_requests(simulator: Simulator, _request: web.Request) -> dict[str, Any]:
    """Empty the log."""
    simulator.requests.clear()
    return {}


async def state(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Give what the source holds; `full=1` adds the records."""
    return simulator.state(whole=request.query.get("full") == "1")


async def reset(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    """Take `count` and `seed`; all data are made anew."""
    given = await _object(request)
    simulator.reset(int(given.get("count", 1000)), int(given.get("seed", 1)))
    return {"count": len(simulator.listing.rows)}
