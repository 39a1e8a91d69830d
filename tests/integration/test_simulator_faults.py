"""The simulated Partner Center breaks as ordered, signs in as the real service does, and runs as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from yarl import URL

from tests.support.command import PIPE, ROOT, SYSTEM, start_command
from worker.demo.control import Control
from worker.demo.data import make_referrals
from worker.demo.faults import Fault
from worker.demo.simulator import Behaviour, Simulator, run, start
from worker.errors import SyncError

LIST = "/v1.0/engagements/referrals"
NEWEST = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 230
GOOD = "simulator"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    simulator = await start(make_referrals(COUNT, 5, NEWEST))
    yield simulator
    await simulator.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def fetch(
    session: aiohttp.ClientSession, origin: str, raw: str = "", *, token: str = GOOD, tls: Any = True
) -> tuple[int, Any, bytes]:
    """Ask for a page; return status, headers and body."""
    url = URL(f"{origin}{LIST}?{raw}", encoded=True)
    headers = {"Authorization": f"Bearer {token}", "client-request-id": str(uuid.uuid4())}
    async with session.get(url, headers=headers, allow_redirects=False, ssl=tls) as answer:
        return answer.status, answer.headers, await answer.read()


def link_of(body: bytes) -> str:
    link = json.loads(body)["@odata.nextLink"]
    assert isinstance(link, str)
    return link


def query_of(body: bytes) -> str:
    return link_of(body).partition("?")[2]


# --- faults


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        ("partner", b'"innerError"'),
        ("family", b'"description"'),
        ("gateway", b"Try again in 3 seconds"),
        ("html", b"<html>"),
        ("empty", b""),
    ],
)
async def test_an_error_comes_in_every_shape(
    simulator: Simulator, session: aiohttp.ClientSession, body: Any, holds: bytes
) -> None:
    simulator.fail(Fault(status=429, retry_after="3", body=body))
    status, headers, answer = await fetch(session, simulator.origin)
    assert (status, headers["Retry-After"]) == (429, "3")
    assert holds in answer
    assert bool(answer) == bool(holds)
    assert (await fetch(session, simulator.origin))[0] == 200


async def test_faults_meet_the_requests_that_they_are_for(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(
        Fault(status=410, path="skiptoken", times=2),
        Fault(status=500, path="orderby", skip=1),
        Fault(status=501, path="v9"),
        Fault(status=502, path="orderby"),
    )
    _, _, body = await fetch(session, simulator.origin)
    statuses = [
        (await fetch(session, simulator.origin, raw))[0]
        for raw in (query_of(body), "$orderby=id", query_of(body), query_of(body), "$orderby=id", "$orderby=id")
    ]
    assert statuses == [410, 502, 410, 200, 500, 200]
    assert [entry["fault"] for entry in simulator.requests].count("status") == 4


@pytest.mark.parametrize("kind", ["truncate", "reset"])
async def test_a_cut_connection_is_an_error_for_the_client(
    simulator: Simulator, session: aiohttp.ClientSession, kind: Any
) -> None:
    simulator.fail(Fault(kind=kind, times=2))  # the client asks a second time where a kept connection was reset
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        await fetch(session, simulator.origin)


async def test_silence_ends_as_ordered(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(Fault(kind="hang", seconds=0.01), Fault(kind="stall", seconds=0.01))
    assert (await fetch(session, simulator.origin))[0] == 504
    with pytest.raises(aiohttp.ClientPayloadError):
        await fetch(session, simulator.origin)


async def test_stopping_does_not_wait_for_answers_that_are_delayed(session: aiohttp.ClientSession) -> None:
    simulator = await start([])
    simulator.fail(Fault(kind="hang"), Fault(kind="stall"))
    held = [asyncio.create_task(fetch(session, simulator.origin)) for _ in range(2)]
    async with asyncio.timeout(10), Control(simulator.origin) as control:
        while len(await control.requests()) < len(held):
            pass
        await simulator.stop()
        await asyncio.gather(*held, return_exceptions=True)


async def test_bodies_come_broken(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(
        Fault(kind="not_json"), Fault(kind="empty"), Fault(kind="no_value"), Fault(kind="huge", size=5_000_000)
    )
    _, headers, body = await fetch(session, simulator.origin)
    assert headers["Content-Type"].startswith("application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    assert (await fetch(session, simulator.origin))[2] == b""
    assert "value" not in json.loads((await fetch(session, simulator.origin))[2])
    _, _, body = await fetch(session, simulator.origin)
    assert len(body) > 4_900_000
    assert len(json.loads(body)["value"]) == 100


async def test_a_redirect_leads_elsewhere(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(Fault(kind="redirect", location="http://attacker.example.com/"))
    status, headers, _ = await fetch(session, simulator.origin)
    assert (status, headers["Location"]) == (302, "http://attacker.example.com/")


async def test_pages_lie(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(
        Fault(kind="duplicate_rows"), Fault(kind="drop_rows"), Fault(kind="no_link"), Fault(kind="garbage_link")
    )
    doubled = json.loads((await fetch(session, simulator.origin))[2])["value"]
    assert (len(doubled), len({row["id"] for row in doubled})) == (200, 100)
    halved = json.loads((await fetch(session, simulator.origin))[2])["value"]
    assert [row["id"] for row in halved] == [row["id"] for row in doubled][::4]
    assert "@odata.nextLink" not in json.loads((await fetch(session, simulator.origin))[2])
    assert link_of((await fetch(session, simulator.origin))[2]).startswith("https://attacker.example.com/")


async def test_a_link_may_repeat_itself(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    _, _, first = await fetch(session, simulator.origin)
    simulator.fail(Fault(kind="repeat_link", times=-1))
    _, _, second = await fetch(session, simulator.origin, query_of(first))
    assert query_of(second) == query_of(first)
    _, _, third = await fetch(session, simulator.origin, query_of(second))
    assert json.loads(third) == json.loads(second)


async def test_links_may_never_end_and_never_repeat(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.fail(Fault(kind="endless", times=-1))
    raw, seen = "", set()
    for _ in range(20):
        _, _, body = await fetch(session, simulator.origin, raw)
        raw = query_of(body)
        seen.add(raw)
    assert len(seen) == 20


# --- sign-in


async def post(session: aiohttp.ClientSession, url: str, form: dict[str, str]) -> tuple[int, Any]:
    async with session.post(url, data={"client_id": "app", **form}) as answer:
        return answer.status, await answer.json()


RENEW = {"grant_type": "refresh_token", "scope": "https://api.partner.microsoft.com/.default"}


async def test_a_refresh_token_buys_an_access_token_and_its_successor(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{simulator.origin}/contoso/v2.0/.well-known/openid-configuration") as answer:
        endpoint = (await answer.json())["token_endpoint"]
    status, tokens = await post(session, endpoint, {**RENEW, "refresh_token": GOOD})
    assert (status, tokens["expires_in"], tokens["token_type"]) == (200, 3600, "Bearer")
    assert (await fetch(session, simulator.origin, token=tokens["access_token"]))[0] == 200
    assert tokens["refresh_token"] != GOOD
    for token in (tokens["refresh_token"], GOOD):  # rotation leaves the old one good
        assert (await post(session, endpoint, {**RENEW, "refresh_token": token}))[0] == 200
    async with Control(simulator.origin) as control:
        assert [entry.get("grant_type") for entry in await control.requests() if entry["method"] == "POST"] == [
            "refresh_token"
        ] * 3


async def test_refresh_tokens_may_be_good_only_once(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    simulator.behave(refresh_tokens="single_use")
    endpoint = f"{simulator.origin}/contoso/oauth2/v2.0/token"
    assert (await post(session, endpoint, {**RENEW, "refresh_token": GOOD}))[0] == 200
    status, refusal = await post(session, endpoint, {**RENEW, "refresh_token": GOOD})
    assert (status, refusal["error"]) == (400, "invalid_grant")


async def test_the_old_endpoint_speaks_in_strings(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    endpoint = f"{simulator.origin}/common/oauth2/token"
    secrets = {"client_secret": "s3cret", "password": "pa55"}
    simulator.behave(**secrets, token_lifetime=0)
    form = {"grant_type": "password", "resource": "https://api.partner.microsoft.com", "username": "a@example.com"}
    assert (await post(session, endpoint, {**form, **secrets, "client_secret": ""}))[1]["error"] == "invalid_client"
    assert (await post(session, endpoint, {**form, **secrets, "password": "no"}))[1]["error"] == "invalid_grant"
    status, tokens = await post(session, endpoint, {**form, **secrets})
    assert status == 200
    assert tokens["expires_in"] == "0"
    assert abs(int(tokens["expires_on"]) - time.time()) < 100
    assert (await fetch(session, simulator.origin, token=tokens["access_token"]))[0] == 401  # lived for no time


async def test_an_application_alone_is_let_nowhere(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    endpoint = f"{simulator.origin}/contoso/oauth2/v2.0/token"
    status, tokens = await post(session, endpoint, {"grant_type": "client_credentials", "scope": "x"})
    assert status == 200
    assert (await fetch(session, simulator.origin, token=tokens["access_token"]))[0] == 401


async def test_the_device_flow_is_pending_first(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    base = f"{simulator.origin}/contoso/oauth2/v2.0"
    _, begun = await post(session, f"{base}/devicecode", {"scope": "x"})
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": begun["device_code"]}
    assert (await post(session, f"{base}/token", form))[1]["error"] == "authorization_pending"
    assert "refresh_token" in (await post(session, f"{base}/token", form))[1]
    assert (await post(session, f"{base}/token", form))[1]["error"] == "invalid_grant"


async def test_an_authorization_code_is_good_once(simulator: Simulator, session: aiohttp.ClientSession) -> None:
    base = f"{simulator.origin}/contoso/oauth2/v2.0"
    asked = {"redirect_uri": "http://localhost:9/back", "state": "mine"}
    async with session.get(f"{base}/authorize", params=asked, allow_redirects=False) as answer:
        back = URL(answer.headers["Location"])
    assert (str(back.with_query(None)), back.query["state"]) == ("http://localhost:9/back", "mine")
    form = {"grant_type": "authorization_code", "code": back.query["code"], "scope": "x"}
    assert (await post(session, f"{base}/token", form))[0] == 200
    assert (await post(session, f"{base}/token", form))[0] == 400


@pytest.mark.parametrize("form", [{"grant_type": "nonsense", "scope": "x"}, {"grant_type": "refresh_token"}])
async def test_a_bad_token_request_is_refused(
    simulator: Simulator, session: aiohttp.ClientSession, form: dict[str, str]
) -> None:
    status, refusal = await post(session, f"{simulator.origin}/contoso/oauth2/v2.0/token", form)
    assert status == 400
    assert refusal["error_description"].startswith("AADSTS")


# --- the server itself


async def test_it_speaks_tls(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    simulator = await start(make_referrals(150, 1, NEWEST), Behaviour(link="full"), tls=(str(chain), str(key)))
    try:
        status, _, body = await fetch(session, simulator.origin, tls=trusting)
        async with Control(simulator.origin, tls=trusting) as control:
            assert (await control.state())["count"] == 150
    finally:
        await simulator.stop()
    assert status == 200
    assert link_of(body).startswith(f"{simulator.origin}{LIST}?")
    assert simulator.origin.startswith("https://127.0.0.1:")


async def test_a_taken_port_is_a_plain_error(simulator: Simulator) -> None:
    with pytest.raises(SyncError, match="cannot listen") as refused:
        await start([], port=URL(simulator.origin).port or 0)
    assert "Choose another port" in refused.value.hint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_process_until_asked_to_stop(session: aiohttp.ClientSession, number: signal.Signals) -> None:
    options = ("--count", "150", "--page-size", "40", "--set", "link=full", "--port", "0")
    process = await start_command(SYSTEM, ROOT, "simulate", *options, stdout=PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        origin = (await process.stdout.readline()).decode().strip()
        _, _, body = await fetch(session, origin)
        process.send_signal(number)
        assert await process.wait() == 0
    assert len(json.loads(body)["value"]) == 40
    assert link_of(body).startswith(origin)


def test_a_wrong_option_is_reported_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Behaviour(), ["nonsense=1"], 0, 1, host="127.0.0.1", port=0) == 2
    assert capsys.readouterr().err == "There is no behaviour called nonsense.\n"
