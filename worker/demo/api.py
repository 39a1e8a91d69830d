"""The referrals API and the sign-in service over HTTP."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from aiohttp import web

from worker.demo.behaviour import Behaviour
from worker.demo.faults import (
    INSTEAD,
    Fault,
    answer_instead,
    deliver,
    error_answer,
    partner_error,
)
from worker.demo.listing import Entry, Ordered
from worker.demo.odata import MEMBERS, BadQueryError
from worker.demo.paging import CONTEXT, LIST_PATH, Position, deep_tuple, next_link, read_token, write_token
from worker.demo.query import Query, make_plan, parse_query
from worker.demo.signin import CLAIMS, RefusedError, discovery, refusal
from worker.demo.world import Simulator
from worker.model.codec import encode

SIMULATOR = web.AppKey("simulator", Simulator)
ENTRY = web.RequestKey("entry", dict[str, Any])
FAULT = web.RequestKey("fault", Fault)
CONTROL = "/_control/"
Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_api(app: web.Application) -> None:
    """Add the routes of the API and of the sign-in service."""
    get, post = app.router.add_get, app.router.add_post
    get(LIST_PATH, list_referrals, allow_head=False)
    get(LIST_PATH + "/{id}", get_referral, allow_head=False)
    post("/{tenant}/oauth2/token", issue_token)
    post("/{tenant}/oauth2/v2.0/token", issue_token)
    post("/{tenant}/oauth2/devicecode", begin_device)
    post("/{tenant}/oauth2/v2.0/devicecode", begin_device)
    get("/{tenant}/oauth2/authorize", begin_code, allow_head=False)
    get("/{tenant}/oauth2/v2.0/authorize", begin_code, allow_head=False)
    get("/{tenant}/.well-known/openid-configuration", describe_tenant, allow_head=False)
    get("/{tenant}/v2.0/.well-known/openid-configuration", describe_tenant, allow_head=False)


@web.middleware
async def front(request: web.Request, handler: Answerer) -> web.StreamResponse:
    """Log each request, let its fault happen, and put the headers of every answer on."""
    simulator = request.app[SIMULATOR]
    if request.path.startswith(CONTROL):
        return await handler(request)
    entry: dict[str, Any] = {
        "time": time.time(),
        "method": request.method,
        "path": request.raw_path,
        "status": 0,
        "rows": 0,
        "fault": None,
        "has_token": "Authorization" in request.headers,
    }
    request[ENTRY] = entry
    simulator.requests.append(entry)
    simulator.active += 1
    try:
        fault = simulator.faults.take(request.raw_path)
        if fault is not None:
            request[FAULT], entry["fault"] = fault, fault.kind
        response = await _answered(request, handler, fault)
        entry["status"] = response.status
        return response
    finally:
        simulator.active -= 1


async def _answered(request: web.Request, answer: Answerer, fault: Fault | None) -> web.StreamResponse:
    simulator = request.app[SIMULATOR]
    limit = simulator.behaviour.max_concurrent
    if limit and simulator.active > limit:
        busy = Fault(status=429, retry_after="1", body="gateway")
        return _with_headers(request, error_answer(busy))
    if fault is not None and fault.kind in INSTEAD:
        return _with_headers(request, await answer_instead(request, fault, simulator.closing))
    try:
        response = await answer(request)
    except web.HTTPException as refused:
        response = _error(refused.status, "No such resource.")
    if request.path.startswith("/v1.0/") and simulator.behaviour.latency:
        await asyncio.sleep(simulator.behaviour.latency)
    _with_headers(request, response)
    return (
        await deliver(request, response, fault, simulator.closing) if isinstance(response, web.Response) else response
    )


def _with_headers(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    simulator = request.app[SIMULATOR]
    response.headers["Date"] = formatdate(time.time() + simulator.clock_offset, usegmt=True)
    response.headers["request-id"] = str(uuid.uuid4())
    if "client-request-id" in request.headers:
        response.headers["client-request-id"] = request.headers["client-request-id"]
    return response


def _error(status: int, message: str, target: str = "") -> web.Response:
    body = partner_error(status, message, target=target)
    return web.Response(status=status, body=body, content_type="application/json")


def _refused(request: web.Request, simulator: Simulator) -> web.Response | None:
    """Return the refusal of a call to the API that is not made as it must be."""
    if simulator.behaviour.require_request_id:
        given = request.headers.get("client-request-id", "")
        try:
            call = str(uuid.UUID(given))
        except ValueError:
            return _error(400, "The header client-request-id must be a GUID.", "client-request-id")
        if call in simulator.seen_ids:
            return _error(400, "The header client-request-id was used before.", "client-request-id")
        simulator.seen_ids.add(call)
    if not simulator.signin.accepts(request.headers.get("Authorization", "")):
        refusal = _error(401, "The access token is missing, expired or not valid for this API.")
        refusal.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        return refusal
    if simulator.behaviour.demand_claims != "nothing" and not simulator.signin.has_claims(
        request.headers.get("Authorization", "")
    ):
        return _claims_refusal(challenge=simulator.behaviour.demand_claims == "challenge")
    accept = request.headers.get("Accept", "*/*")
    if not any(kind in accept for kind in ("application/json", "application/*", "*/*")):
        return _error(406, "Only application/json can be sent.", "Accept")
    return None


def _claims_refusal(*, challenge: bool) -> web.Response:
    body = partner_error(403, "More is needed than this token shows.", code="insufficent_claims")
    refusal = web.Response(status=403, body=body, content_type="application/json")
    if challenge:
        claims = base64.b64encode(CLAIMS.encode()).decode()
        refusal.headers["WWW-Authenticate"] = f'Bearer realm="", error="insufficient_claims", claims="{claims}"'
    return refusal


async def get_referral(request: web.Request) -> web.Response:
    """Answer `GET /v1.0/engagements/referrals/{id}`."""
    simulator = request.app[SIMULATOR]
    refusal = _refused(request, simulator)
    if refusal is not None:
        return refusal
    simulator.reveal(due_only=True)
    row = simulator.found(request.match_info["id"])
    if row is None:
        return _error(404, "The referral was not found.", "id")
    request[ENTRY]["rows"] = 1
    return web.Response(body=row.single(), content_type="application/json", headers={"ETag": row.etag})


async def list_referrals(request: web.Request) -> web.Response:
    """Answer `GET /v1.0/engagements/referrals`."""
    simulator = request.app[SIMULATOR]
    refusal = _refused(request, simulator)
    if refusal is not None:
        return refusal
    simulator.reveal(due_only=True)
    raw = request.raw_path.partition("?")[2]
    try:
        body, count = _page(simulator, raw, request.get(FAULT))
    except BadQueryError as fault:
        return _error(400, str(fault), fault.target)
    request[ENTRY]["rows"] = count
    return web.Response(body=body, content_type="application/json")


def _page(simulator: Simulator, raw: str, fault: Fault | None) -> tuple[bytes, int]:
    """Return a page's JSON and how many rows it holds."""
    behaviour = simulator.behaviour
    query, token = parse_query(raw, plus_is_space=behaviour.plus_is_space)
    skip = query.skip if behaviour.skip else 0
    position = Position(query=query, offset=skip, left=query.top) if token is None else read_token(token)
    query = position.query or query
    plan = make_plan(query, behaviour)
    ordered = simulator.listing.select(plan)
    if behaviour.untimed == "hidden" and plan.order[0][0] != "id":
        ordered = ordered.timed()
    start = position.offset
    if position.after is not None:
        try:
            start = ordered.after((deep_tuple(position.after[0]), position.after[1]))
        except TypeError:
            raise BadQueryError("The skip token belongs to another order.") from None
    size = behaviour.page_size if position.left is None else min(behaviour.page_size, position.left)
    if behaviour.ties == "random" and "id" not in dict(plan.order):
        entries = ordered.shuffled(start, start + size, simulator.rng)
    else:
        entries = ordered.slice(start, start + size)
    position = replace(position, query=query, offset=start, after=None)
    following = _following(behaviour, position, entries, len(ordered))
    bodies, link = _shortened(simulator, _bodies(simulator, query, entries), following)
    bodies, link = _faulty(simulator, fault, bodies, link, position, token)
    kind = fault.kind if fault else None
    body = _envelope(simulator, query, ordered, bodies, link, without_value=kind == "no_value")
    if kind == "error_inside":
        body = body[:-1] + b"," + partner_error(500, "The request could not be processed.")[1:]
    return body, len(bodies)


def _shortened(simulator: Simulator, bodies: list[bytes], following: Position | None) -> tuple[list[bytes], str | None]:
    """Return a page's rows and its link, some of which the behaviour may leave out where more rows follow."""
    if following is None:
        return bodies, None
    behaviour = simulator.behaviour
    simulator.cut_answers += 1
    if behaviour.short_pages and simulator.cut_answers % 3 == 0:
        return bodies[: len(bodies) // 2 or 1], None
    fifth = behaviour.link_omitted == "every_fifth" and simulator.cut_answers % 5 == 0
    if fifth or behaviour.link_omitted == "always":
        return bodies, None
    return bodies, next_link(write_token(following), behaviour, simulator.origin)


def _faulty(
    simulator: Simulator,
    fault: Fault | None,
    bodies: list[bytes],
    link: str | None,
    position: Position,
    token: str | None,
) -> tuple[list[bytes], str | None]:
    """Return what a fault leaves of a page's rows and its link."""
    behaviour, origin = simulator.behaviour, simulator.origin
    match fault.kind if fault else None:
        case "duplicate_rows":
            return [body for body in bodies for _ in range(2)], link
        case "drop_rows":
            return bodies[::2], link
        case "error_inside" | "second_document" | "html_behind":
            return bodies[: len(bodies) // 2], None
        case "no_link":
            return bodies, None
        case "repeat_link":
            return bodies, next_link(token or write_token(position), behaviour, origin)
        case "endless":
            return bodies, next_link(write_token(replace(position, turn=position.turn + 1)), behaviour, origin)
        case "garbage_link" if fault is not None:
            return bodies, fault.location
    return bodies, link


def _following(behaviour: Behaviour, position: Position, entries: list[Entry], total: int) -> Position | None:
    """Return where the page after the one at `position` begins, None after the last."""
    end = position.offset + len(entries)
    left = None if position.left is None else position.left - len(entries)
    if end >= total or left == 0 or not entries:
        return None
    return replace(
        position,
        query=position.query if behaviour.token_carries_query else None,
        offset=end,
        after=entries[-1] if behaviour.paging == "keyset" else None,
        left=left,
    )


def _bodies(simulator: Simulator, query: Query, entries: list[Entry]) -> list[bytes]:
    behaviour, rows = simulator.behaviour, simulator.listing.rows
    if not query.select:
        etag, thin = behaviour.list_etag, behaviour.thin_list
        return [rows[row_id].listed(etag=etag, thin=thin) for _, row_id in entries]
    names = [path.strip().split("/")[0] for path in query.select.split(",")]
    unknown = [name for name in names if name not in MEMBERS]
    if unknown:
        raise BadQueryError(f"Could not find a property named '{unknown[0]}' on type 'Referral'.", "$select")
    records = (rows[row_id].record for _, row_id in entries)
    return [encode({name: record[name] for name in names if name in record}) for record in records]


def _envelope(
    simulator: Simulator, query: Query, ordered: Ordered, bodies: list[bytes], link: str | None, *, without_value: bool
) -> bytes:
    parts = [b'{"@odata.context":', encode(CONTEXT)]
    counted = simulator.behaviour.count
    if counted != "absent":
        total = len(ordered) if query.count or counted == "total" else len(bodies)
        parts += [b',"@odata.count":', str(total).encode()]
    if not without_value:
        parts += [b',"value":[', b",".join(bodies), b"]"]
    name, ending = encode(simulator.behaviour.link_name), simulator.behaviour.end_link
    if link is not None:
        parts += [b",", name, b":", encode(link)]
    elif ending != "absent":
        parts += [b",", name, b":", b"null" if ending == "null" else b'""']
    return b"".join([*parts, b"}"])


async def issue_token(request: web.Request) -> web.Response:
    """Answer the token endpoints of both versions."""
    simulator = request.app[SIMULATOR]
    form = {name: str(value) for name, value in (await request.post()).items()}
    request[ENTRY]["grant_type"] = form.get("grant_type")
    version = 2 if "/v2.0/" in request.path else 1
    try:
        return web.json_response(simulator.signin.redeem(form, simulator.behaviour, version=version))
    except RefusedError as refused:
        return refusal(refused)


async def begin_device(request: web.Request) -> web.Response:
    """Answer the start of a device sign-in."""
    simulator = request.app[SIMULATOR]
    return web.json_response(simulator.signin.begin_device(simulator.behaviour, simulator.origin))


async def begin_code(request: web.Request) -> web.Response:
    """Send a browser straight back with an authorization code."""
    location = request.app[SIMULATOR].signin.begin_code(request.query)
    return web.Response(status=302, headers={"Location": location})


async def describe_tenant(request: web.Request) -> web.Response:
    """Answer the OpenID configuration."""
    return web.json_response(discovery(request.app[SIMULATOR].origin, request.match_info["tenant"]))
