"""Connections, transactions, and the translation of what PostgreSQL says into our errors.

Everything runs inside explicit transactions and without named prepared statements, so a transaction pooler in between
is welcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.errors import StoreError, StoreUnavailable
from worker.store.address import driver_address, place
from worker.store.owner import owner_name

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 120
IDLE_IN_TRANSACTION = "15s"
TRANSACTION_SECONDS = 25
"""A paused worker holds its rows no longer than these, well below a lease's life.

The first counts between two statements. The second, which PostgreSQL has from version 17 on, also within one: asyncpg
waits there for the types of the parameters, and a pause at that very moment is no idling to PostgreSQL (measured, and
`statement_timeout` does not count there either).
"""

_TRANSACTION_TIMEOUT_SINCE = 17
_READ_ONLY = "25006"
_OF_THE_DATABASE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_MAY_WORK_LATER = ("08", "57P", "57014", "53300", "53400", "55P03", "40", "25P03", "25P04", "58030", _READ_ONLY)
"""A database that turned read-only is an outage: a failover, a disk guard, a standby that is promoted soon."""


class Database:
    """A pool of connections to one database; make it with `open_database`.

    `owner` is the name under which this process holds leases there.
    """

    def __init__(self, pool: asyncpg.Pool, address: str, owner: str) -> None:
        self._pool = pool
        self.address = address
        self.owner = owner
        self._place = place(address)
        self._forgetting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def transaction(
        self, *, seconds: int = TRANSACTION_SECONDS, flushed: bool = True
    ) -> AsyncIterator[PoolConnectionProxy]:
        """Run a READ COMMITTED transaction; PostgreSQL's errors come out as StoreError, data errors as they are.

        It ends by itself after `seconds`, where the server can; more are for what holds nothing that others wait for.
        Not `flushed`, its commit does not wait for the disk: a crash of the server within a second may take it back,
        with all that came after it (docs/decisions/0017).
        """
        with translated(self._place, self._forget_connections):
            async with self._pool.acquire() as connection, connection.transaction():
                ends = connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE
                await connection.execute(
                    f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}';"
                    + (f" SET LOCAL transaction_timeout = '{seconds}s';" if ends else "")
                    + ("" if flushed else " SET LOCAL synchronous_commit = off;")
                    + " SET LOCAL timezone = 'UTC'"
                )
                yield connection

    def _forget_connections(self) -> None:
        """Connect anew from now on: another server may be the one that can be written to."""
        self._forgetting = asyncio.create_task(self._pool.expire_connections())

    def connections(self) -> dict[str, int]:
        """Count this process's connections: busy and idle."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return {"busy": size - idle, "idle": idle}

    async def clock(self) -> Callable[[], datetime]:
        """Return the database's clock as a function that asks the database only now.

        It goes on by the monotonic clock of this machine, so that a change of the machine's time does not show.
        """
        async with self.transaction() as connection:
            base: datetime = await connection.fetchval("SELECT clock_timestamp()")
        started = time.monotonic()
        return lambda: base + timedelta(seconds=time.monotonic() - started)


@asynccontextmanager
async def open_database(url: str, *, connections: int, owner: str | None = None) -> AsyncIterator[Database]:
    """Open a pool of at most `connections`; raises StoreError with a hint when the server cannot be used.

    Its leases name `owner`, which is a new name of this process where none is given.
    """
    address, besides = driver_address(url)
    with translated(place(url)):
        pool = await asyncpg.create_pool(
            address,
            **besides,
            min_size=0,
            max_size=connections,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            statement_cache_size=0,
            max_inactive_connection_lifetime=60,
            server_settings={"application_name": "referral-sync"},
            reset=_keep_state,
        )
    try:
        yield Database(pool, url, owner or owner_name())
    finally:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()


async def _keep_state(_: asyncpg.Connection) -> None:
    """Hand a connection back without the driver's own reset, which was four of the nine statements of a transaction.

    Nothing here outlives its transaction: settings are LOCAL, locks end with it, nobody listens. The driver still rolls
    back what was left open.
    """


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open one connection outside any pool."""
    with translated(place(url)):
        address, besides = driver_address(url)
        connection = await asyncpg.connect(address, timeout=CONNECT_SECONDS, statement_cache_size=0, **besides)
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


@contextmanager
def translated(at: str = "", read_only: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Translate what PostgreSQL and the line to it say into our errors; data errors come out as they are.

    `at` is the server's host and port.
    """
    try:
        yield
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
        raise
    except _OF_THE_DATABASE as error:
        if getattr(error, "sqlstate", None) == _READ_ONLY:
            read_only()
        raise store_error(error, at) from error


def store_error(error: BaseException, at: str = "") -> StoreError:
    """Say in our words what PostgreSQL at a host, or the line to it, said; StoreUnavailable where it may work later."""
    if isinstance(error, asyncpg.PostgresError):
        return _from_sqlstate(error)
    return StoreUnavailable(
        f"The database{f' at {at}' if at else ''} does not answer: {_first_line(error)}",
        "Check `database.url` and that PostgreSQL is running; the daemon tries again by itself.",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _from_sqlstate(error: asyncpg.PostgresError) -> StoreError:
    """Translate by SQLSTATE; the message's first line is PostgreSQL's, its details (which quote data) are left out."""
    state = error.sqlstate or ""
    line = _first_line(error)
    if state.startswith("28"):
        return StoreError(f"The database refused the sign-in: {line}", "Fix user or password in `database.url`.")
    if state == "3D000":
        return StoreError(f"There is no such database: {line}", "Create it, or fix its name in `database.url`.")
    if state in ("42P01", "3F000", "42703", "42883"):
        return StoreError(
            f"The database is not at the revision that this release needs: {line}", "Run `referral-sync migrate`."
        )
    if state == "42501":
        return StoreError(
            f"The database role lacks a right: {line}", "Grant it, or use the role that owns the schemas."
        )
    if state in ("53100", "53200"):
        return StoreUnavailable(
            f"The database server is out of space or memory: {line}", "Make room there; nothing was stored half."
        )
    if state == _READ_ONLY:
        return StoreUnavailable(
            f"The database is read-only: {line}", "It is tried again; if that stays so, name the primary server."
        )
    if state.startswith(_MAY_WORK_LATER):
        return StoreUnavailable(f"The database is not available: {line}", "The next run tries again.")
    return StoreError(f"The database refused ({state}): {line}", "This is unexpected: please report it with this line.")
