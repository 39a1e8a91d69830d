"""The embedded database as people use it: several commands at once, psql beside them, and nothing left running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from tests.support.command import PIPE, Command, open_command
from tests.support.conditions import PATIENCE, until, wait_for
from tests.support.daemon import Daemon, daemon, free_port
from tests.support.databases import ask
from tests.support.shared_server import has_stopped, postmaster, until_stopped
from worker.demo.control import Control

pytestmark = pytest.mark.long


@pytest.fixture
def data_dir(data_dir: Path) -> Iterator[Path]:
    """Give a directory for the embedded database, whose server has stopped when the test is over."""
    yield data_dir
    until_stopped(data_dir)


@pytest.fixture
def environment(environment: dict[str, str], data_dir: Path) -> dict[str, str]:
    """Give the variables of a worker whose database is the embedded one."""
    own = {"REFERRAL_SYNC_DATABASE__URL": "embedded", "REFERRAL_SYNC_DATABASE__DATA_DIR": str(data_dir)}
    return environment | own | {"REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1h"}


@contextmanager
def process(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background, and kill it if it still runs at the end."""
    with open_command(environment, folder, *arguments, stdout=PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def first_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


async def ready(running: Daemon) -> None:
    async def is_ready() -> bool:
        return await running.status("/readyz") == 200

    await until(is_ready, "ready")


async def loaded(url: str, expected: int) -> None:
    async def reached() -> bool:
        return await ask(url, "SELECT count(*) FROM bi.referrals") == expected

    await until(reached, f"loaded {expected}")


async def test_every_command_works_beside_a_running_daemon(
    command: Command, environment: dict[str, str], simulator: Control, data_dir: Path, tmp_path: Path
) -> None:
    await simulator.reset(60)
    hourly = {"REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1h"}
    async with daemon(environment, tmp_path, **hourly) as running:
        await ready(running)
        server = postmaster(data_dir)
        url = (await asyncio.to_thread(command, "db", "url")).stdout.strip()
        await loaded(url, 60)
        created = (await simulator.create([{}]))[0]["id"]
        synced = await asyncio.to_thread(command, "sync")
        assert "contoso: 1 inserted" in synced.stdout, synced.stderr
        for arguments, text in (
            (("status",), "contoso: ok"),
            (("check",), "ok    database: PostgreSQL"),
            (("explain", created), created),
            (("reconcile",), "contoso: "),
            (("report", "--out", str(tmp_path / "report.html")), "The report is in"),
            (("migrate", "--check"), "newest revision"),
            (("rejects",), "0 open"),
        ):
            done = await asyncio.to_thread(command, *arguments)
            assert (done.returncode, text in done.stdout) == (0, True), (arguments, done.stdout, done.stderr)
        assert await ask(url, "SELECT count(*) FROM bi.referrals") == 61
        assert postmaster(data_dir) == server, "one server all the time"
        assert await running.status("/readyz") == 200
        long_ago = time.time() - 3_600
        os.utime(data_dir / "linger", (long_ago, long_ago))
        assert await running.stop() == 0
    assert has_stopped(data_dir), "the last one waits for the server"


async def test_whoever_is_killed_the_others_go_on_and_the_last_one_ends_it(
    environment: dict[str, str], simulator: Control, data_dir: Path, tmp_path: Path
) -> None:
    await simulator.reset(30)
    with process(environment, tmp_path, "db", "url", "--hold") as starter:
        url = first_line(starter)
        server = postmaster(data_dir)
        async with daemon(environment, tmp_path) as running:
            await ready(running)
            starter.kill()
            starter.wait()
            await loaded(url, 30)
            with process(environment, tmp_path, "db", "url", "--hold") as other:
                assert first_line(other) == url
                running.process.kill()
                running.process.wait()
                assert await ask(url, "SELECT count(*) FROM bi.referrals") == 30
                assert postmaster(data_dir) == server
                other.kill()
    until_stopped(data_dir)
    assert not (data_dir / "pgdata" / "postmaster.pid").exists(), "the server did not shut down in order"


async def test_two_that_begin_at_the_same_moment_have_one_server(
    environment: dict[str, str], simulator: Control, data_dir: Path, tmp_path: Path
) -> None:
    await simulator.reset(30)
    async with daemon(environment, tmp_path) as first, daemon(environment, tmp_path) as second:
        with process(environment, tmp_path, "db", "url", "--hold") as third:
            await loaded(first_line(third), 30)
            await ready(first)
            await ready(second)
            assert len(servers(data_dir)) == 1
            assert await first.stop() == 0
            assert await second.stop() == 0
            third.send_signal(signal.SIGTERM)
            assert third.wait(PATIENCE) == 0
    assert has_stopped(data_dir)


def servers(data_dir: Path) -> list[str]:
    """Name the supervisors of a directory."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: S607 - ps is where PATH says
    return [line for line in listed.splitlines() if "supervise.py" in line and str(data_dir) in line]


async def test_a_server_that_dies_comes_back_for_the_daemon(
    environment: dict[str, str], simulator: Control, data_dir: Path, tmp_path: Path
) -> None:
    await simulator.reset(30)
    async with daemon(environment, tmp_path) as running:
        await ready(running)
        os.kill(postmaster(data_dir), signal.SIGKILL)

        async def died() -> bool:
            return bool(running.events("embedded_database_died"))

        await until(died, "seen")
        await ready(running)
        with process(environment, tmp_path, "db", "url", "--hold") as other:
            await simulator.create([{}])
            await loaded(first_line(other), 31)
        assert await running.stop() == 0


async def test_the_address_works_for_a_client_that_comes_in_a_moment(
    command: Command, data_dir: Path, tmp_path: Path
) -> None:
    addresses = []
    for arguments in ((), ("--role", "reader")):
        result = await asyncio.to_thread(command, "db", "url", *arguments)
        assert result.returncode == 0, result.stderr
        addresses.append(result.stdout.strip())
        assert await ask(addresses[-1], "SELECT count(*) FROM bi.referrals") == 0
    assert len({urlsplit(one).port for one in addresses}) == 1
    reader = await asyncpg.connect(addresses[1])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.fetchval("SELECT count(*) FROM partner_center.referrals")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.fetchval("SELECT count(*) FROM bi.notes")
    long_ago = time.time() - 3_600
    os.utime(data_dir / "linger", (long_ago, long_ago))
    assert (await asyncio.to_thread(command, "status")).returncode == 0
    assert await reader.fetchval("SELECT 1") == 1, "a client that is connected uses it too"
    await reader.close()
    await asyncio.to_thread(until_stopped, data_dir)
    del tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_lingering_database_is_up_until_it_is_released(
    environment: dict[str, str], data_dir: Path, tmp_path: Path, number: int
) -> None:
    with process(environment, tmp_path, "db", "url", "--hold") as holder:
        assert await ask(first_line(holder), "SELECT 1") == 1
        holder.send_signal(number)
        assert holder.wait(PATIENCE) == 0
    assert has_stopped(data_dir)


def test_the_port_is_kept_and_may_be_chosen(command: Command, data_dir: Path) -> None:
    def port(**variables: str) -> int | None:
        result = command("status", **variables)
        assert result.returncode == 0, result.stderr
        return int((data_dir / "port").read_text())

    first = port()
    assert port() == first
    chosen = free_port()
    assert port(REFERRAL_SYNC_DATABASE__PORT=str(chosen)) == chosen
    assert port() == chosen
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = str(taken.getsockname()[1])
        refused = command("status", REFERRAL_SYNC_DATABASE__PORT=other)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Error: The embedded PostgreSQL cannot have port {other}")
        assert "database.port" in refused.stderr
    with socket.create_server(("127.0.0.1", chosen)):
        moved = command("status")
        assert moved.returncode == 0, moved.stderr
        assert "port_changed" in moved.stderr
    assert port() != chosen
    (data_dir / "port").write_text("what is this?")
    assert 0 < (port() or 0) < 65_536
    (data_dir / "port").unlink()
    (data_dir / "port").mkdir()
    refused = command("status")
    assert refused.returncode == 1
    assert "cannot use" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert command("status", REFERRAL_SYNC_DATABASE__PORT="65536").returncode == 2


def test_the_address_of_an_external_database(command: Command) -> None:
    url = "postgresql://sync:p%40ss@db.example.com:5433/referrals?sslmode=verify-full&password=hidden"
    result = command("db", "url", REFERRAL_SYNC_DATABASE__URL=url)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{url}\n", "")
    result = command("db", "url", "--role", "reader", "--hold", REFERRAL_SYNC_DATABASE__URL=url)
    assert (result.returncode, result.stdout) == (0, "postgresql://db.example.com:5433/referrals?sslmode=verify-full\n")
    assert "IN ROLE bi_reader" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_a_demo_that_stays_up_shows_where_to_look_and_leaves_nothing_running(
    environment: dict[str, str], data_dir: Path, tmp_path: Path, number: int
) -> None:
    own = environment | {"TMPDIR": str(data_dir.parent)}
    with process(own, tmp_path, "demo", "--keep", "--count", "100") as demo:
        shown: dict[str, str] = {}
        assert demo.stdout is not None
        for line in demo.stdout:
            for what in ("status page", "report", "database", "the same for dashboards"):
                if line.startswith(f"  {what:24} "):
                    shown[what] = line.removeprefix(f"  {what}").strip()
            if len(shown) == 4:
                break
        data = Path(shown["report"]).parent
        assert Path(shown["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        async with aiohttp.ClientSession() as session, session.get(shown["status page"]) as page:
            assert "contoso" in await page.text()
        for address in (shown["database"], shown["the same for dashboards"]):
            assert await ask(address, "SELECT count(*) > 90 FROM bi.referrals") is True
        client = await asyncpg.connect(shown["database"])
        below = descendants(demo.pid)
        assert len(below) > 3, "a simulator, a supervisor, a server and what belongs to it"
        demo.send_signal(number)
        if number == signal.SIGINT:
            assert "nothing is left running" in demo.stdout.read()
            assert demo.wait(PATIENCE) == 0
            assert not data.exists()
        elif number == signal.SIGHUP:
            demo.wait(PATIENCE)
            assert not data.exists()
        else:
            until_stopped(data)
        client.terminate()
        demo.wait(PATIENCE)
        wait_for(lambda: not below & running_now().keys(), "something of the demo still runs")


def descendants(pid: int) -> set[int]:
    """Name the processes below one."""
    found = {pid}
    parents = running_now()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def running_now() -> dict[int, int]:
    """Name each process that runs, with its parent; zombies do not run."""
    command = ["ps", "-eo", "pid=,ppid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in listed.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in fields if not state.startswith("Z")}
