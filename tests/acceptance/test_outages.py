"""Outages of everything around the daemon: it stays up, says so, and catches up afterwards."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import trustme

from tests.support.command import Command
from tests.support.conditions import at_least, rows, until
from tests.support.daemon import Daemon, daemon, free_port
from tests.support.proxy import Proxy, place
from tests.support.steps import assert_chain, assert_same_as_source, crash
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.store import migrate

pytestmark = pytest.mark.long

COUNT = "SELECT count(*) FROM partner_center.referrals"


def said(running: Daemon, event: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return bool(running.events(event))

    return found


async def test_postgresql_stopped_at_once_and_started_again(
    environment: dict[str, str], simulator: Control, server_folder: Path, tmp_path: Path
) -> None:
    """An immediate shutdown in the middle of a backfill is a crash to PostgreSQL: the latest commits may not stand.

    Rows, the ledger and the counts are then of one moment, so that the load goes on from there.
    """
    await simulator.reset(1200)
    await simulator.behaviour(page_size=20, latency=0.1)
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder), settings={"fsync": "on"}) as url:
            await migrate.upgrade(url)
            async with Proxy(url) as proxy:
                through_proxy = proxy.url_of(url)
                async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=through_proxy) as running:
                    db = await asyncpg.connect(url)
                    await until(at_least(db, 100), "loading")
                    await db.close()
                    await crash(Path(folder))
                    await until(said(running, "run_failed"), "said")
                    assert await running.status("/healthz") == 200

                    async def not_ready() -> bool:
                        return await running.status("/readyz") == 503

                    await until(not_ready, "not ready")
                    async with embedded.server(Path(folder), settings={"fsync": "on"}) as again:
                        proxy.target = place(again)
                        db = await asyncpg.connect(again)
                        assert await db.fetchval(COUNT) == await db.fetchval("SELECT sum(inserted) FROM sync.runs")
                        assert await db.fetchval(COUNT) <= await db.fetchval(
                            "SELECT sum(records) FROM sync.backfill_windows"
                        )
                        await simulator.behaviour(latency=0)
                        await db.execute("UPDATE sync.leases SET expires_at = now()")
                        await until(rows(db, 1200), "loaded after the crash")
                        assert await running.stop() == 0
                        await assert_same_as_source(db, simulator)
                        await assert_chain(db)
                        await db.close()


@pytest.mark.parametrize("after", ["SELECT 1", "SELECT 1 FROM pg_namespace WHERE nspname = 'sync'"])
async def test_postgresql_restarted_while_the_daemon_starts(
    after: str, environment: dict[str, str], simulator: Control, server_folder: Path, tmp_path: Path
) -> None:
    """A fresh server that goes away as soon as it is connected to, and again as soon as the migration stands."""
    await simulator.reset(40)
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder)) as url, Proxy(url) as proxy:
            through_proxy = proxy.url_of(url)
            db = await asyncpg.connect(url)
            async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=through_proxy) as running:

                async def reached() -> bool:
                    busy = (
                        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'referral-sync' OR query ~ 'alembic'"
                    )
                    return bool(await db.fetchval(busy)) and bool(await db.fetchval(after))

                await until(reached, "connected")
                await db.close()
                await crash(Path(folder))

                async def result() -> bool:
                    assert running.process.poll() is None, running.output()
                    return bool(running.events("database_unreachable") or running.events("run_failed"))

                await until(result, "said")
                async with embedded.server(Path(folder)) as again:
                    proxy.target = place(again)
                    db = await asyncpg.connect(again)

                    async def loaded() -> bool:
                        if await db.fetchval("SELECT to_regclass('partner_center.referrals') IS NULL"):
                            return False
                        return bool(await db.fetchval("SELECT count(*) = 40 FROM partner_center.referrals"))

                    await until(loaded, "loaded")
                    assert await running.stop() == 0
                    await db.close()


async def test_a_half_open_line_to_the_database(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Nothing is answered and nothing is closed; then every connection is cut."""
    await simulator.reset(60)
    own = environment["REFERRAL_SYNC_DATABASE__URL"]
    async with Proxy(own) as proxy:
        url = proxy.url_of(own)
        async with daemon(environment, tmp_path, REFERRAL_SYNC_DATABASE__URL=url) as running:
            await until(rows(db, 60), "loaded")
            proxy.flowing.clear()
            await simulator.create([{}])
            assert await running.status("/healthz") == 200
            proxy.reset_all()
            proxy.flowing.set()
            await until(rows(db, 61), "recovered")
            assert await running.stop() == 0


async def test_a_sync_that_lost_the_database_is_tried_again_when_it_is_back(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """Not only when it is due again, which is in an hour."""
    await simulator.reset(60)
    own = environment["REFERRAL_SYNC_DATABASE__URL"]
    async with Proxy(own) as proxy:
        url = proxy.url_of(own)
        behind = {"REFERRAL_SYNC_DATABASE__URL": url, "REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1h"}
        async with daemon(environment, tmp_path, **behind) as running:
            await until(rows(db, 60), "loaded")
            await until(said(running, "run_finished"), "over")
            await simulator.create([{}])
            await simulator.behaviour(latency=5)
            await db.execute("UPDATE sync.schedules SET due_at = now() WHERE kind = 'incremental'")

            async def syncs() -> bool:
                asked = "SELECT count(*) FROM sync.runs WHERE kind = 'incremental' AND outcome = 'running'"
                return bool(await db.fetchval(asked))

            await until(syncs, "syncing")
            proxy.target = ("127.0.0.1", free_port())
            proxy.reset_all()
            await until(said(running, "queue_unreachable"), "unreachable")
            await simulator.behaviour(latency=0)
            proxy.target = place(own)
            await until(rows(db, 61), "synced again")
            assert await running.stop() == 0
    outcomes = await db.fetch("SELECT outcome FROM sync.runs WHERE kind = 'incremental' ORDER BY id")
    # A run that needed no statement during the outage has not lost it.
    assert [row["outcome"] for row in outcomes] in (["failed", "done"], ["done"])


async def test_the_line_to_the_api_breaks_in_every_way(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(300)
    own = environment["REFERRAL_SYNC_API__BASE_URL"]
    async with Proxy(own) as proxy:
        origin = proxy.url_of(own)
        async with daemon(environment, tmp_path, REFERRAL_SYNC_API__BASE_URL=origin) as running:
            proxy.cut_after = 150_000
            await asyncio.sleep(2)
            proxy.cut_after = None
            await until(rows(db, 300), "loaded although bodies were cut")
            proxy.flowing.clear()
            await simulator.create([{}])
            await asyncio.sleep(1)
            proxy.reset_all()
            proxy.flowing.set()
            await until(rows(db, 301), "recovered from a half-open line")
            proxy.delay = 0.2
            await simulator.create([{}])
            await until(rows(db, 302), "slow but sure")
            assert await running.stop() == 0
    await assert_same_as_source(db, simulator)


async def test_a_full_disk_is_said_and_outlived(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path, command: Command
) -> None:
    """PostgreSQL's own error for a full disk, raised where a full disk raises it: while a row is stored."""
    await simulator.reset(30)
    await db.execute(
        """
        CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER no_space BEFORE INSERT ON partner_center.referrals EXECUTE FUNCTION no_space();
        """
    )
    result = command("sync")
    assert result.returncode == 1
    assert "out of space" in result.stderr
    assert "Traceback" not in result.stderr
    async with daemon(environment, tmp_path) as running:
        await until(said(running, "run_failed"), "said")
        await db.execute("DROP TRIGGER no_space ON partner_center.referrals")
        await until(rows(db, 30), "recovered")
        assert await running.stop() == 0


async def test_names_certificates_and_token_programs_that_fail(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path, command: Command
) -> None:
    """Each is said in a sentence with its hint, by the command and by the daemon, which stays up."""
    await simulator.reset(10)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    tls = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    cases = {
        "cannot be reached": {"REFERRAL_SYNC_API__BASE_URL": "https://no-such-host.invalid"},
        "cannot be verified": {"REFERRAL_SYNC_API__BASE_URL": tls},
        "ended with exit code": {
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "command",
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__COMMAND": '["/bin/false"]',
        },
    }

    async def is_said(message: str, variables: dict[str, str]) -> None:
        bare = {key: value for key, value in environment.items() if not key.endswith("ACCESS_TOKEN")}
        settings = bare if "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH" in variables else environment
        async with daemon(settings, tmp_path, **variables) as running:
            await until(said(running, "run_failed"), message)
            assert message in str(running.events("run_failed")[0]["error"])
            assert await running.status("/healthz") == 200
            assert await running.stop() == 0

    await asyncio.gather(*(is_said(message, variables) for message, variables in cases.items()))
    server.close()
    command("sync")
    await assert_same_as_source(db, simulator)


async def test_an_api_that_asks_for_a_long_pause_gets_it(
    environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(10)
    async with daemon(environment, tmp_path) as running:
        await until(rows(db, 10), "loaded")
        await simulator.faults({"status": 429, "retry_after": "3600", "times": 1})
        await until(said(running, "run_deferred"), "backing off")
        await simulator.clear_requests()
        await asyncio.sleep(3)
        assert await simulator.requests() == [], "not asked again before the pause is over"
        assert await running.stop() == 0


@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_status_and_metrics_want_the_token(
    path: str, environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(10)
    async with daemon(environment, tmp_path, REFERRAL_SYNC_HTTP__TOKEN="a-long-secret") as running:
        await until(rows(db, 10), "loaded")
        assert await running.status(path) == 401
        assert await running.status(path, token="a-long-secret") == 200
        assert await running.stop() == 0
