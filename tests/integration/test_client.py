"""Requests against a real server: what is sent, what is tried again, and what each failure says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import stamina
import structlog
import trustme

from worker.auth import tokens as auth_module
from worker.auth.tokens import command_token, static_token
from worker.demo import simulator as server
from worker.demo.control import Control
from worker.errors import SignInError, SourceError, SourceRejected, SourceUnavailable, SyncError
from worker.source import client as client_module
from worker.source.client import Client, TokenSource, open_client
from worker.source.refusals import error_code

Open = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect(simulator_origin: str, simulator: Control) -> Open:
    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Client]:
        token: TokenSource = static_token("simulator", "accounts.contoso.access_token")
        settings: dict[str, Any] = {
            "base_url": simulator_origin,
            "token": token,
            "clock": lambda: datetime.now(UTC),
            "ca_file": None,
            "max_page_bytes": 1 << 24,
        }
        async with open_client(**settings | options) as client:
            yield client

    return opened


@pytest.fixture
def impatient() -> Any:
    """Try twice, without waiting."""
    with stamina.set_testing(True, attempts=2):
        yield


async def test_each_call_has_an_id_of_its_own_retries_too(connect: Open, simulator: Control, impatient: None) -> None:
    await simulator.reset(3)
    await simulator.faults({"status": 503, "times": 1})
    async with connect() as client:
        assert len((await client.list("")).records) == 3
        await client.list("")
        assert client.traffic.requests == 3
    statuses = [request["status"] for request in await simulator.requests()]
    assert statuses == [503, 200, 200], "the simulator refuses an id that it has seen"


@pytest.mark.parametrize("status", [408, 423, 429, 500, 502, 503, 504, 509])
async def test_what_may_pass_is_tried_again(status: int, connect: Open, simulator: Control, impatient: None) -> None:
    await simulator.reset(1)
    await simulator.faults({"status": status, "times": 1})
    async with connect() as client:
        assert len((await client.list("")).records) == 1


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 415, 422, 501, 507])
async def test_what_is_final_is_not(status: int, connect: Open, simulator: Control) -> None:
    await simulator.faults({"status": status, "times": 1})
    async with connect() as client:
        with pytest.raises(SourceRejected) as caught:
            await client.list("")
        assert (caught.value.status, client.traffic.requests) == (status, 1)


@pytest.mark.parametrize("body", ["partner", "family", "gateway", "html", "empty"])
async def test_every_shape_of_error_body_is_survived(body: str, connect: Open, simulator: Control) -> None:
    await simulator.faults({"status": 400, "body": body, "times": 1})
    async with connect() as client:
        with pytest.raises(SourceRejected, match=r"HTTP 400.*request id \S{8,}"):
            await client.list("")


def test_the_code_of_an_error_body_is_read_in_three_shapes() -> None:
    assert error_code(b'{"error":{"code":"accessDenied","message":"x"}}') == "accessDenied"
    assert error_code(b'{"code":900420,"description":"x"}') == "900420"
    assert error_code(b'{"statusCode":429,"message":"wait"}') == "429"
    for body in (b"", b"<html>", b"[]", b'{"error":{"code":{"a":1}}}', b'{"code":"<script>alert(1)</script>"}'):
        assert error_code(body) == ""


@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_is_a_floor(dated: bool, connect: Open, simulator: Control) -> None:
    await simulator.reset(1)
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    await simulator.faults({"status": 429, "retry_after": moment if dated else "2", "times": 1})
    started = time.monotonic()
    async with connect() as client:
        await client.list("")
    assert time.monotonic() - started > 1.5


async def test_beyond_the_cap_the_run_ends_instead_of_sleeping(connect: Open, simulator: Control) -> None:
    await simulator.faults({"status": 429, "retry_after": "86400", "times": 1})
    async with connect() as client:
        with pytest.raises(SourceUnavailable, match="3600 s"):
            await client.list("")
        assert client.traffic.requests == 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("31536000", 3600, 3600),
        ("9" * 400, 3600, 3600),
        (str(int(time.time()) + 3000), 1200, 3001),
        (str(int(time.time()) - 600), 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(days=900), usegmt=True), 3600, 3600),
        (format_datetime(datetime.now(UTC) - timedelta(days=900), usegmt=True), 0, 0),
        ("0", 0, 0),
        ("-5", None, None),
        ("Mon, 99999999999999999999 Jan 2024 00:00:00 GMT", None, None),
        ("soon", None, None),
        ("\u0663", None, None),
    ],
    ids=[f"asked{number}" for number in range(11)],  # not the moments themselves: two processes collect the tests
)
async def test_retry_after_has_a_cap_and_is_parsed_without_surprise(
    asked: str, least: float | None, most: float | None, connect: Open, simulator: Control, impatient: None
) -> None:
    await simulator.faults({"status": 503, "retry_after": asked, "times": 2})
    async with connect() as client:
        with pytest.raises(SourceUnavailable) as caught:
            await client.list("")
    if least is None or most is None:
        assert caught.value.retry_after is None
    else:
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("status", [425, 449, 520, 522, 530])
async def test_what_proxies_answer_for_a_while_is_tried_again(
    status: int, connect: Open, simulator: Control, impatient: None
) -> None:
    await simulator.reset(1)
    await simulator.faults({"status": status, "times": 1})
    async with connect() as client:
        assert len((await client.list("")).records) == 1


async def test_nobodys_password_file_and_no_proxy_is_used_on_this_machine(
    connect: Open, simulator: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default entry of ~/.netrc would break each request; a proxy would see the bearer token."""
    (tmp_path / ".netrc").write_text("default login somebody password hidden\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    await simulator.reset(1)
    async with connect() as client:
        assert len((await client.list("")).records) == 1
    assert client_module.proxy_of("http://example.com") == "http://127.0.0.1:9"
    monkeypatch.setenv("no_proxy", "example.com")
    assert client_module.proxy_of("http://example.com") is None


async def test_a_run_has_a_budget_of_repeated_requests(
    connect: Open, simulator: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_BUDGET", 3)
    await simulator.faults(*({"status": 503, "times": 1, "retry_after": "0"} for _ in range(50)))
    with stamina.set_testing(True, attempts=50):
        async with connect() as client:
            with pytest.raises(SourceError, match="had to be repeated"):
                await client.list("")
            assert client.traffic.retries == 3
            assert client.traffic.requests == 4


async def test_a_429_holds_the_others_back(connect: Open, simulator: Control) -> None:
    """While one request waits as it was asked to, no other is sent."""
    await simulator.reset(5)
    await simulator.faults({"status": 429, "retry_after": "1", "times": 1})
    async with connect() as client:
        first = asyncio.create_task(client.list(""))
        done, _ = await asyncio.wait({first}, timeout=0.3)
        assert not done, "it waits as long as it was asked to"
        started = time.monotonic()
        await client.list("")
        assert time.monotonic() - started > 0.5
        await first


async def test_a_401_renews_the_token_once(connect: Open, simulator: Control, tmp_path: Path) -> None:
    await simulator.reset(2)
    await simulator.tokens(add=["token-2"])
    program = tmp_path / "token.py"
    program.write_text(
        "import pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "number = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(number))\nprint(f'token-{number}')\n"
    )
    token = command_token([sys.executable, str(program)], "accounts.contoso.command")
    async with connect(token=token) as client:
        assert len((await client.list("")).records) == 2
        await client.list("")
        assert (tmp_path / "count").read_text() == "2"
        await simulator.tokens(revoke="all")
        with pytest.raises(SignInError, match="fresh token"):
            await client.list("")
        assert (tmp_path / "count").read_text() == "3", "once, and no hammering"


async def test_a_refused_static_token_names_its_key(connect: Open) -> None:
    async with connect(token=static_token("wrong", "accounts.contoso.access_token")) as client:
        with pytest.raises(SignInError) as caught:
            await client.list("")
        assert "accounts.contoso.access_token" in caught.value.hint
        assert client.traffic.requests == 1


async def test_a_403_requires_action(connect: Open, simulator: Control) -> None:
    await simulator.faults({"status": 403, "times": 1})
    async with connect() as client:
        with pytest.raises(SignInError, match="permission"):
            await client.list("")


@pytest.mark.parametrize("kind", ["truncate", "reset", "not_json", "empty", "no_value"])
async def test_a_broken_answer_is_tried_again_and_then_said(
    kind: str, connect: Open, simulator: Control, impatient: None
) -> None:
    await simulator.reset(5)
    await simulator.faults({"kind": kind, "times": 1})
    async with connect() as client:
        assert len((await client.list("")).records) == 5
        await simulator.faults({"kind": kind, "times": -1})
        with pytest.raises(SourceUnavailable):
            await client.list("")
    await simulator.clear_faults()


async def test_a_redirect_is_not_followed(connect: Open, simulator: Control) -> None:
    await simulator.faults({"kind": "redirect", "times": 1, "location": "http://127.0.0.1:9/"})
    async with connect() as client:
        with pytest.raises(SourceRejected, match="redirect"):
            await client.list("")


async def test_a_stalled_body_ends(
    connect: Open, simulator: Control, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(client_module, "READ_SECONDS", 0.5)
    await simulator.reset(5)
    await simulator.faults({"kind": "stall", "times": 2})
    async with connect() as client:
        with pytest.raises(SourceUnavailable, match="in time"):
            await client.list("")
    await simulator.clear_faults()


async def test_a_body_has_a_limit_that_the_error_names(connect: Open, simulator: Control) -> None:
    await simulator.reset(5)
    await simulator.faults({"kind": "huge", "times": 1, "size": 1 << 20})
    async with connect(max_page_bytes=100_000) as client:
        with pytest.raises(SourceError, match="100000 bytes") as caught:
            await client.list("")
        assert "api.max_page_bytes" in caught.value.hint
        assert client.traffic.requests == 1
    await simulator.clear_faults()


async def test_by_id_has_the_etag_and_knows_what_is_not_there(connect: Open, simulator: Control) -> None:
    await simulator.reset(2)
    referral_id = next(iter((await simulator.state())["referrals"]))
    async with connect() as client:
        page = await client.fetch(referral_id)
        assert page is not None
        assert page.by_id
        assert (page.records[0].tree or {})["eTag"]
        assert await client.fetch("00000000-0000-0000-0000-000000000000") is None
        assert await client.fetch("../../x?y#z/é") is None, "an id is one segment of the path"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9", "https://partner.invalid"])
async def test_an_unreachable_server_is_named(origin: str, connect: Open, impatient: None) -> None:
    async with connect(base_url=origin) as client:
        with pytest.raises(SourceUnavailable) as caught:
            await client.list("")
        assert origin in str(caught.value)
        assert "api.base_url" in caught.value.hint


async def test_tls_is_verified_and_an_authority_can_be_added(connect: Open, tmp_path: Path, impatient: None) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    chain, key, ca = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    leaf.cert_chain_pems[0].write_to_path(chain)
    leaf.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    running = await server.start([], tls=(str(chain), str(key)))
    try:
        async with connect(base_url=running.origin) as client:
            with pytest.raises(SourceUnavailable) as caught:
                await client.list("")
            assert "api.ca_file" in caught.value.hint
        async with connect(base_url=running.origin, ca_file=ca) as client:
            assert (await client.list("")).records == []
    finally:
        await running.stop()


async def test_no_token_in_logs_or_errors(connect: Open, simulator: Control) -> None:
    secret = "very-secret-token"
    await simulator.tokens(add=[secret])
    await simulator.faults({"status": 400, "times": 1, "skip": 1})
    with structlog.testing.capture_logs() as lines:
        async with connect(token=static_token(secret, "key")) as client:
            await client.list("")
            with pytest.raises(SyncError) as caught:
                await client.list("$filter=x")
    assert lines
    assert secret not in repr(lines) + str(caught.value) + caught.value.hint + repr(client.__dict__["_token"])


@pytest.mark.parametrize(
    ("program", "message"),
    [("raise SystemExit(3)", "exit code 3"), ("print()", "no usable token"), ("print('two words')", "no usable token")],
)
async def test_a_token_program_that_fails_is_said(program: str, message: str) -> None:
    with pytest.raises(SignInError, match=message):
        await command_token([sys.executable, "-c", program], "accounts.contoso.command")(False)
    with pytest.raises(SignInError, match="cannot be started"):
        await command_token(["/nowhere/program"], "accounts.contoso.command")(False)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 300 & echo token-of-the-shell",
        "(trap '' TERM; sleep 300) & echo token-of-the-shell",
    ],
)
async def test_what_a_token_program_leaves_behind_is_ended_with_it(script: str, tmp_path: Path) -> None:
    marked = f"echo $$ > {tmp_path / 'group'}; {script}"
    started = time.monotonic()
    assert await command_token(["sh", "-c", marked], "accounts.contoso.command")(False) == "token-of-the-shell"
    assert time.monotonic() - started < 60
    assert not group_lives(int((tmp_path / "group").read_text()))


@pytest.mark.parametrize("script", ["sleep 300", "sh -c 'sleep 300'", "yes", "yes '' & sleep 300"])
async def test_a_token_program_ends_at_its_limit_with_all_that_it_started(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_module, "COMMAND_SECONDS", 1)
    with pytest.raises(SyncError):
        await command_token(["sh", "-c", f"echo $$ > {tmp_path / 'group'}; {script}"], "accounts.contoso.command")(
            False
        )
    assert not group_lives(int((tmp_path / "group").read_text()))


def group_lives(group: int) -> bool:
    """Say whether any process of a group is there that is no zombie."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout  # noqa: S607 - ps is where PATH says
    return any(int(line.split()[0]) == group and not line.split()[1].startswith("Z") for line in found.splitlines())


async def test_a_port_without_tls_is_no_question_of_certificates(connect: Open, simulator_origin: str) -> None:
    async with connect(base_url=simulator_origin.replace("http://", "https://")) as client:
        with pytest.raises(SourceUnavailable, match="without TLS") as caught:
            await client.list("")
    assert "certificate" not in str(caught.value) + caught.value.hint
