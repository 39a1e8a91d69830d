"""What tests share: one PostgreSQL server and one simulator for the session; for each test a database of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

import asyncpg
import pytest
from hypothesis import settings

from tests.support.command import SYSTEM, Command, run_command
from tests.support.databases import execute, new_database, url_of
from tests.support.secure import SECRET, Secure, secure_simulator
from tests.support.simulator import running_simulator
from tests.support.steps import TALLY
from worker.demo.behaviour import Behaviour
from worker.demo.control import Control
from worker.demo.simulator import TOKENS
from worker.embedded import server as embedded
from worker.store import migrate

for ignored, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) is signal.SIG_IGN:  # as in the background of a shell; what tests start inherits it
        signal.signal(ignored, handler)

settings.register_profile("suite", deadline=None)  # how long something takes is never asserted
settings.load_profile("suite")

TEMPLATE = "migrated"
MEMORY_NEEDED = 4 << 30
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "autovacuum": "off",  # a worker in the template would hold up each copy of it
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add how often tests with dice throw them."""
    parser.addoption("--rounds", type=int, default=1, help="how often tests that throw dice do it; many for torture")
    parser.addoption("--minutes", type=float, default=2, help="how long the faults of the soak last")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the session came to."""
    if TALLY:
        totals = ", ".join(f"{number:,} {what}" for what, number in sorted(TALLY.items()))
        terminalreporter.write_line(f"in all: {totals}")


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a test that throws dice does it."""
    number: int = request.config.getoption("--rounds")
    return number


@pytest.fixture(scope="session")
def server_folder() -> Path:
    """Tell where to make directories for servers: in memory where there is plenty, which is many times as fast."""
    memory = Path("/dev/shm")  # noqa: S108 - a place for directories with names of their own
    if (
        memory.is_dir()
        and os.access(memory, os.W_OK)
        and not os.statvfs(memory).f_flag & os.ST_NOEXEC
        and shutil.disk_usage(memory).free > MEMORY_NEEDED
    ):
        return memory
    return Path(tempfile.gettempdir())


@pytest.fixture
def data_dir(server_folder: Path) -> Iterator[Path]:
    """Give a directory for an embedded server of the test's own, which the server's user reaches too."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "data"
        path.mkdir()
        yield path


@pytest.fixture(scope="session")
def postgres_url(server_folder: Path) -> Iterator[str]:
    """Run a server for the session; the DSN of its superuser. Not durable."""
    # Not below pytest's own directory: that is closed to other users, and root's PostgreSQL runs as another.
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder, _own_loop() as runner:
        server = embedded.server(Path(folder), settings=FAST)
        url = runner.run(server.__aenter__())
        try:
            yield url
        finally:
            runner.run(server.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """Migrate a database once; the name that copies are made of."""

    async def make() -> None:
        await execute(postgres_url, f'CREATE DATABASE "{TEMPLATE}"')
        await migrate.upgrade(url_of(postgres_url, TEMPLATE))

    with _own_loop() as runner:
        runner.run(make())
    return TEMPLATE


@pytest.fixture
async def database_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """Give a migrated, empty database, dropped afterwards."""
    async with new_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """Give a database that was never migrated, dropped afterwards."""
    async with new_database(postgres_url, "template0") as url:
        yield url


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the test's migrated database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def simulator_origin() -> Iterator[str]:
    """Run a simulator for the session as a process of its own; its origin."""
    with running_simulator("--count", "0") as origin:
        yield origin


@pytest.fixture
async def simulator(simulator_origin: str) -> AsyncIterator[Control]:
    """Give control of a simulator without referrals, faults or peculiarities, as it was started."""
    async with Control(simulator_origin) as control:
        await control.reset(0)
        await control.behaviour(**asdict(Behaviour()))
        await control.clock(0)
        await control.tokens(revoke="all", revoke_refresh="all")
        await control.tokens(add=TOKENS, add_refresh=TOKENS)
        yield control


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Run a simulator that speaks TLS, for the session."""
    with secure_simulator(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
async def service(secure: Secure) -> AsyncIterator[Control]:
    """Give control of it as an identity service that wants the client's secret; nobody has signed in yet."""
    async with secure.control() as control:
        await control.reset(30)
        await control.clear_faults()
        await control.clear_requests()
        await control.behaviour(**asdict(Behaviour(client_secret=SECRET)))
        await control.clock(0)
        await control.tokens(revoke="all", revoke_refresh="all")
        await control.tokens(add_refresh=TOKENS)
        yield control


@pytest.fixture
def environment(database_url: str, simulator: Control, simulator_origin: str, tmp_path: Path) -> dict[str, str]:
    """Give the variables of a worker with one account, from the simulator to the test's database."""
    del simulator  # reset for this test
    return SYSTEM | {
        "HOME": str(tmp_path),
        "REFERRAL_SYNC_DATABASE__URL": database_url,
        "REFERRAL_SYNC_API__BASE_URL": simulator_origin,
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "simulator",
        "REFERRAL_SYNC_HTTP__LISTEN": "127.0.0.1:0",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Command:
    """Give a function that runs a command to its end; keyword arguments are further variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(environment | variables, tmp_path, *arguments)

    return run


def _own_loop() -> asyncio.Runner:
    """Return a loop that leaves pytest-asyncio's alone: theirs end with each test."""
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)
