"""The ops endpoint of a real daemon: metrics that are documented and watched, and the page for people."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.conditions import rows, until
from tests.support.daemon import Daemon, daemon
from tests.support.referrals import incoming
from worker import RELEASE
from worker.demo.control import Control

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "dashboards" / "prometheus" / "alerts.yml"
PEOPLE = {"email", "name", "phone", "customer", "referral", "id"}


async def get(running: Daemon, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(running.origin + path, headers=headers) as answer:
        return answer.status, await answer.text(), dict(answer.headers)


def metrics_of(text: str) -> dict[str, set[str]]:
    """Return the names of samples with the names of their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        if not family.samples:
            found.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
    return found


def selectors(node: Any) -> Iterator[Any]:
    """Give every metric that an expression selects."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if hasattr(node, name):
            yield from selectors(getattr(node, name))
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


async def test_every_metric_is_documented_and_every_alert_can_fire(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(40)
    await simulator.create([incoming(5)])
    await simulator.faults({"kind": "status", "status": 429, "retry_after": "1", "skip": 2})
    channel = {"REFERRAL_SYNC_NOTIFY__CHANNELS__SALES__URL": "json://127.0.0.1:9/x"}
    async with daemon(environment | channel, tmp_path) as running:
        await until(rows(db, 41), "loaded")
        await db.execute(
            "INSERT INTO sync.tokens (account, chain, sealed, lapses_at) VALUES ('contoso', 'x', 'y', now() + '9 days')"
        )

        async def synced() -> bool:
            return bool(
                await db.fetchval("SELECT count(*) FROM sync.runs WHERE kind = 'incremental' AND outcome = 'done'")
            )

        await until(synced, "a sync")
        status, text, headers = await get(running, "/metrics")
        assert await running.stop() == 0
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    found = metrics_of(text)
    assert all(name.startswith("referral_sync_") for name in found)
    assert f'referral_sync_build_info{{version="{RELEASE}"}} 1.0' in text
    assert not {label for labels in found.values() for label in labels} & PEOPLE
    assert 'referral_sync_requests_total{account="contoso",kind="backfill",status="429"} 1.0' in text
    assert 'referral_sync_records_total{account="contoso",count="inserted",kind="backfill"} 41.0' in text
    assert 'referral_sync_sign_in_days_left{account="contoso"} 8.99' in text
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    assert documented == set(found)
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert f"\n### {rule['alert']}\n" in runbook, f"{rule['alert']} has no entry in the runbook"
        used = list(selectors(promql_parser.parse(rule["expr"])))
        assert used, rule["alert"]
        for selector in used:
            assert selector.name in found, f"{rule['alert']} watches {selector.name}, which no scrape has"
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= found[selector.name], f"{rule['alert']} selects labels that {selector.name} has not"


async def test_the_page_says_how_it_is(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(40)
    async with daemon(environment, tmp_path, REFERRAL_SYNC_SCHEDULE__INCREMENTAL="1h") as running:
        await until(rows(db, 40), "loaded")

        async def loaded() -> bool:
            return "40 listed" in (await get(running, "/"))[1]

        await until(loaded, "on the page")
        status, page, headers = await get(running, "/")
        assert status == 200
        assert headers["Content-Type"].startswith("text/html")
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<script" not in page
        assert " style=" not in page
        assert 'http-equiv="refresh"' in page
        assert "incremental sync in" in page
        assert "reconcile in" in page
        assert "backfill" in page
        for method in ("POST", "PUT", "DELETE"):
            async with aiohttp.ClientSession() as session, session.request(method, running.origin + "/") as answer:
                assert answer.status == 405
        assert await running.stop() == 0


async def test_status_has_the_release_and_says_which_accounts_are_configured(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1)
    await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('former', 1)")
    channel = {"REFERRAL_SYNC_NOTIFY__CHANNELS__SALES__URL": "json://127.0.0.1:9/x"}
    async with daemon(environment | channel, tmp_path) as running:
        await until(rows(db, 1), "loaded")
        document = json.loads((await get(running, "/status"))[1])
        started = next(
            one for one in map(json.loads, running.output().splitlines()) if one["event"] == "worker_started"
        )
        assert await running.stop() == 0
    assert document["release"] == started["release"] == RELEASE
    assert {one["account"]: one["configured"] for one in document["accounts"]} == {"contoso": True, "former": False}


@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
async def test_the_token_guards_what_tells_of_accounts(
    path: str, environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(0)
    async with daemon(environment, tmp_path, REFERRAL_SYNC_HTTP__TOKEN="a-long-secret") as running:

        async def ready() -> bool:
            return await running.status("/readyz") == 200

        await until(ready, "ready")
        browser = base64.b64encode(b"anybody:a-long-secret").decode()
        for given, expected in (
            ("", 401),
            ("Bearer wrong", 401),
            ("Basic not-base64!", 401),
            ("Basic " + base64.b64encode(b"anybody:wrong").decode(), 401),
            ("Bearer a-long-secret", 200),
            (f"Basic {browser}", 200),
        ):
            status, text, headers = await get(running, path, **({"Authorization": given} if given else {}))
            assert status == expected, given
            assert "a-long-secret" not in text
            if expected == 401:
                assert headers["WWW-Authenticate"].startswith("Basic")
        assert await running.stop() == 0


async def test_bytes_that_no_token_has_are_refused(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1)
    async with daemon(environment, tmp_path, REFERRAL_SYNC_HTTP__TOKEN="s3cret") as running:
        await until(rows(db, 1), "loaded")
        for value in (b"Bearer \xff", b"Basic \xff\xfe", b"Basic " + base64.b64encode(b"x:\xff")):
            assert await raw(running, b"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: " + value) == b"401"
        assert "Traceback" not in running.output()


async def test_a_name_that_is_not_of_this_machine_reaches_nothing(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """A page in a browser may have its own name point to a loopback address."""
    await simulator.reset(1)
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 1), "loaded")
        for host, status in (
            (b"localhost:8080", b"200"),
            (b"[::1]", b"200"),
            (b"attacker.example", b"421"),
            (b"[", b"421"),
        ):
            for path in (b"/status", b"/", b"/metrics", b"/healthz"):
                assert await raw(running, b"GET " + path + b" HTTP/1.1\r\nHost: " + host) == status


@pytest.mark.long
async def test_connections_that_ask_nothing_are_closed(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(1)
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 1), "loaded")
        host, port = running.origin.removeprefix("http://").split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
        silent[0][1].write(b"GET /status HT")
        await simulator.create([{}])
        await until(rows(db, 2), "working beside them")

        async def closed() -> bool:
            return all(reader.at_eof() for reader, _ in silent)

        waiting = [asyncio.create_task(reader.read()) for reader, _ in silent]
        await until(closed, "closed", 30)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await running.status("/healthz") == 200
        for _, writer in silent:
            writer.close()


async def raw(running: Daemon, head: bytes) -> bytes:
    """Ask with bytes as they are; returns the status."""
    host, port = running.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head + b"\r\nConnection: close\r\n\r\n")
        return (await reader.read()).split(b" ")[1]
    finally:
        writer.close()
