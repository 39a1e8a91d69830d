"""Everything behind PgBouncer in transaction mode, where no two transactions need share a server connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.command import PIPE, run_command, start_command
from tests.support.conditions import at_least, rows, until
from tests.support.daemon import daemon, free_port
from tests.support.steps import assert_chain, assert_same_as_source
from worker.demo.control import Control
from worker.store import migrate

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65_534


@asynccontextmanager
async def pgbouncer(url: str) -> AsyncIterator[str]:
    """Run PgBouncer in front of a database, with two server connections for all its clients; gives its URL."""
    parts = urlsplit(url)
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={parts.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {folder}/users.txt
            pool_mode = transaction
            default_pool_size = 2
            max_client_conn = 100
            server_reset_query_always = 0
            """.replace("\n            ", "\n")
        )
        if os.geteuid() == 0:  # PgBouncer refuses to be root
            for path in (folder, folder / "users.txt", folder / "pgbouncer.ini"):
                os.chown(path, NOBODY, NOBODY)
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        process = subprocess.Popen(
            [program, "-q", str(folder / "pgbouncer.ini")],
            user=NOBODY if os.geteuid() == 0 else None,
            cwd=folder,
        )
        try:
            await _listening(process, port)
            yield parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl()
        finally:
            process.terminate()
            process.wait(10)


async def _listening(process: subprocess.Popen[bytes], port: int) -> None:
    async def answers() -> bool:
        assert process.poll() is None, "PgBouncer did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(answers, "PgBouncer listening")


async def command(environment: dict[str, str], folder: Path, *arguments: str) -> tuple[int, str]:
    ended = await asyncio.to_thread(run_command, environment, folder, *arguments)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
async def behind(environment: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """The worker's variables, with PgBouncer in between."""
    async with pgbouncer(environment["REFERRAL_SYNC_DATABASE__URL"]) as url:
        yield environment | {"REFERRAL_SYNC_DATABASE__URL": url}


async def test_migrations(empty_database_url: str) -> None:
    async with pgbouncer(empty_database_url) as url:
        assert await migrate.upgrade(url) == migrate.newest()
        assert await migrate.upgrade(url) == migrate.newest()


async def test_every_command(
    behind: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(400)
    key = min((await simulator.state())["referrals"])
    for arguments in (
        ("backfill", "--concurrency", "4"),
        ("sync",),
        ("reconcile",),
        ("refresh", key),
        ("explain", key),
        ("rejects", "--replay"),
        ("check",),
        ("status", "--json"),
    ):
        code, output = await command(behind, tmp_path, *arguments)
        assert code == 0, output
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    for arguments in (("forget", key), ("account", "remove", "contoso")):
        code, output = await command(behind, tmp_path, *arguments)
        assert code == 0, output
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0


async def test_everything_at_once(
    behind: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    """A backfill, reconciles and two daemons share two server connections, while the source changes."""
    await simulator.reset(300)
    assert (await command(behind, tmp_path, "sync"))[0] == 0
    known = list((await simulator.state())["referrals"])
    async with daemon(behind, tmp_path) as first, daemon(behind, tmp_path) as second:

        async def edits() -> None:
            for number in range(40):
                await simulator.update(known[number], {"salesStage": str(number)})

        codes = await asyncio.gather(
            command(behind, tmp_path, "backfill", "--restart"), command(behind, tmp_path, "reconcile"), edits()
        )
        assert [output for code, output in codes[:2] if code != 0] == []
        await simulator.create([{}])
        await until(rows(db, 301), "followed")
        assert await first.stop() == 0
        assert await second.stop() == 0
    assert (await command(behind, tmp_path, "sync"))[0] == 0
    await assert_same_as_source(db, simulator)
    await assert_chain(db)


async def test_paused_beyond_its_lease_it_is_refused(
    behind: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(600)
    await simulator.behaviour(page_size=20, latency=0.1)
    paused = await start_command(behind, tmp_path, "backfill", stderr=PIPE)
    await until(at_least(db, 1), "loading")
    paused.send_signal(signal.SIGSTOP)
    await db.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
    )
    await db.execute("UPDATE sync.leases SET expires_at = now()")
    await simulator.behaviour(latency=0)
    code, output = await command(behind, tmp_path, "backfill")
    assert code == 0, output
    stored = await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id")
    paused.send_signal(signal.SIGCONT)
    await asyncio.wait_for(paused.communicate(), 30)
    assert paused.returncode == 1
    assert await db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id") == stored
    await assert_same_as_source(db, simulator)
