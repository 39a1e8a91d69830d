"""Two daemons beside a changing source, with random faults of the API, of the database and of themselves, for long.

`--minutes` says for how long; `make soak` takes an hour. Whatever came to pass, one sync and one reconcile without
faults leave the copy equal to the source.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import WORKER, run_command
from tests.support.conditions import until
from tests.support.daemon import free_port
from tests.support.proxy import Proxy, place
from tests.support.steps import TALLY, assert_chain, assert_same_as_source, crash
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.store import migrate

BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
API_FAULTS: tuple[dict[str, object], ...] = (
    {"kind": "status", "status": 429, "retry_after": "1"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503, "retry_after": "2"},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 404},
    {"kind": "reset"},
    {"kind": "hang", "seconds": 4},
    {"kind": "stall", "seconds": 4},
    {"kind": "truncate"},
    {"kind": "not_json"},
    {"kind": "empty"},
    {"kind": "duplicate_rows"},
    {"kind": "no_link"},
    {"kind": "repeat_link"},
    {"kind": "garbage_link"},
    {"kind": "error_inside"},
    {"kind": "second_document"},
    {"kind": "html_behind"},
    {"kind": "no_value"},
)
SCHEDULE = {
    "REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1s",
    "REFERRAL_SYNC_SCHEDULE__RECONCILE": "60s",
    "REFERRAL_SYNC_LOG__FORMAT": "json",
}


@pytest.fixture(scope="session")
def minutes(request: pytest.FixtureRequest) -> float:
    """How long the faults last."""
    number: float = request.config.getoption("--minutes")
    return number


@dataclass(frozen=True)
class Sample:
    """What one process held at one moment."""

    age: float
    resident_mb: float
    descriptors: int


@dataclass
class Daemon:
    """One of the two, begun again whenever it was killed or stopped."""

    name: str
    variables: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    logged: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / f"soak-{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.logged = output.tell()
            listen = {"REFERRAL_SYNC_HTTP__LISTEN": f"127.0.0.1:{free_port()}"}
            self.process = subprocess.Popen(
                [*WORKER, "run"],
                cwd=self.folder,
                env=self.variables | listen,
                stdout=output,
                stderr=output,
            )
        self.began = time.monotonic()

    def running(self) -> subprocess.Popen[bytes]:
        """Return its process; fails when it ended by itself."""
        assert self.process is not None
        assert self.process.poll() is None, f"daemon {self.name} ended by itself: {self.log.read_text()[-3000:]}"
        return self.process

    def sample(self) -> None:
        pid = self.running().pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        self.samples.append(Sample(time.monotonic() - self.began, resident, descriptors))

    async def has_started(self) -> bool:
        """Return whether it takes signals by now."""
        return b'"worker_started"' in self.log.read_bytes()[self.logged :]

    async def end(self, number: int) -> None:
        """Send it a signal that ends it, and see it end as it should."""
        process = self.running()
        if number == signal.SIGTERM:
            await until(self.has_started, f"started: daemon {self.name}")
        process.send_signal(number)
        code = await asyncio.to_thread(process.wait, 20)
        assert code == (0 if number == signal.SIGTERM else -number), self.log.read_text()[-3000:]


class Server:
    """A PostgreSQL of the test's own behind a proxy that keeps its port while the server comes and goes."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.folder = folder
        self.proxy = proxy
        self.url = ""
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        self.url = await self._stack.enter_async_context(embedded.server(self.folder, settings={"fsync": "on"}))
        self.proxy.target = place(self.url)

    async def crash(self) -> None:
        await crash(self.folder)
        await self.stop()

    async def stop(self) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()


async def test_an_hour_of_faults_ends_equal_to_the_source(
    environment: dict[str, str], simulator: Control, data_dir: Path, tmp_path: Path, minutes: float
) -> None:
    await simulator.reset(1000)
    await simulator.behaviour(latency=0.01)
    async with Proxy("") as to_database, Proxy(simulator.origin) as to_api:
        server = Server(data_dir, to_database)
        await server.start()
        await migrate.upgrade(server.url)
        through = to_database.url_of(server.url)
        variables = environment | SCHEDULE | {"REFERRAL_SYNC_DATABASE__URL": through}
        variables["REFERRAL_SYNC_API__BASE_URL"] = to_api.url_of(simulator.origin)
        daemons = [Daemon(name, variables, tmp_path) for name in "ab"]
        try:
            for each in daemons:
                each.start()
            await soak(simulator, server, to_api, daemons, minutes * 60)
            await settle(simulator, server, variables, tmp_path, daemons)
            async with server.connection() as db:
                await assert_same_as_source(db, simulator)
                await assert_chain(db)
                await assert_counts(db)
        finally:
            for each in daemons:
                if each.process is not None:
                    each.process.kill()
                    each.process.wait()
            await server.stop()
        for each in daemons:
            assert "Traceback" not in each.log.read_text()
            tell(each)


async def soak(simulator: Control, server: Server, to_api: Proxy, daemons: list[Daemon], seconds: float) -> None:
    """Let everything go wrong at random for so long."""
    dice = random.Random()
    ends = time.monotonic() + seconds
    async with asyncio.TaskGroup() as together:
        together.create_task(every(ends, dice, 0.1, 0.8, lambda: change(simulator, dice)))
        together.create_task(every(ends, dice, 0.5, 4, lambda: break_api(simulator, to_api, dice)))
        together.create_task(every(ends, dice, 5, 40, lambda: break_database(server, dice)))
        together.create_task(every(ends, dice, 5, 60, lambda: break_daemon(dice.choice(daemons), dice)))
        together.create_task(every(ends, dice, 5, 5, lambda: sample(daemons)))


async def every(
    ends: float, dice: random.Random, least: float, most: float, act: Callable[[], Awaitable[None]]
) -> None:
    """Do something again and again, with a random pause between."""
    while (left := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(left, dice.uniform(least, most)))
        await act()


async def change(simulator: Control, dice: random.Random) -> None:
    """Create, edit or delete at the source."""
    known = sorted((await simulator.state())["referrals"])
    match dice.choices(["create", "edit", "silent", "delete"], [3, 6, 1, 1])[0]:
        case "create":
            await simulator.create([{}] * dice.randint(1, 5))
        case "delete" if len(known) > 500:
            await simulator.delete(dice.choice(known))
        case action:
            await simulator.update(dice.choice(known), {"name": f"Deal {dice.random()}"}, silent=action == "silent")
    TALLY["changes at the source"] += 1


async def break_api(simulator: Control, to_api: Proxy, dice: random.Random) -> None:
    """Order a fault for the next requests, or break the line to the API."""
    if dice.random() < 0.1:
        to_api.reset_all()
        TALLY["faults of the API"] += 1
        return
    await simulator.faults({**dice.choice(API_FAULTS), "times": dice.randint(1, 3)})
    TALLY["faults of the API"] += 1
    if dice.random() < 0.2:
        await simulator.clear_faults()
        TALLY["requests to the API"] += len(await simulator.requests())
        await simulator.clear_requests()


async def break_database(server: Server, dice: random.Random) -> None:
    """Cut, hold up, terminate, refuse writes, or crash PostgreSQL, and let it work again."""
    what = dice.choices(["cut", "cut in answer", "hold", "terminate", "read-only", "crash"], [4, 2, 2, 2, 1, 1])[0]
    TALLY[f"faults of the database: {what},"] += 1
    proxy = server.proxy
    match what:
        case "cut":
            proxy.reset_all()
        case "cut in answer":
            proxy.cut_after = dice.randint(1000, 100_000)
            await asyncio.sleep(dice.uniform(0.5, 5))
            proxy.cut_after = None
        case "hold":
            proxy.flowing.clear()
            await asyncio.sleep(dice.uniform(1, 20))
            if dice.random() < 0.5:
                proxy.reset_all()
            proxy.flowing.set()
        case "terminate":
            async with server.connection() as db:
                await db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'referral-sync'"
                )
        case "read-only":
            await set_read_only(server, "on")
            await asyncio.sleep(dice.uniform(1, 10))
            await set_read_only(server, "off")
        case _:
            await server.crash()
            await asyncio.sleep(dice.uniform(0, 15))
            await server.start()


async def set_read_only(server: Server, value: str) -> None:
    async with server.connection() as db:
        await db.execute("SET default_transaction_read_only = off")
        await db.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        await db.execute("SELECT pg_reload_conf()")


async def break_daemon(daemon: Daemon, dice: random.Random) -> None:
    """Kill, stop, or pause a daemon, and let it work again."""
    what = dice.choices(["kill", "stop", "pause"], [5, 2, 1])[0]
    TALLY[f"daemons: {what},"] += 1
    if what == "pause":
        process = daemon.running()
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(1, 45))
        process.send_signal(signal.SIGCONT)
        return
    await daemon.end(signal.SIGKILL if what == "kill" else signal.SIGTERM)
    daemon.process = None
    await asyncio.sleep(dice.uniform(0, 10))
    daemon.start()


async def sample(daemons: list[Daemon]) -> None:
    for daemon in daemons:
        if daemon.process is not None and daemon.process.poll() is None:
            with suppress(FileNotFoundError, ProcessLookupError):
                daemon.sample()


async def settle(
    simulator: Control, server: Server, variables: dict[str, str], folder: Path, daemons: list[Daemon]
) -> None:
    """Let nothing go wrong any more: the daemons follow by themselves, and a reconcile verifies the copy."""
    await simulator.clear_faults()
    TALLY["requests to the API"] += len(await simulator.requests())
    marker = (await simulator.create([{}]))[0]["id"]
    began = time.monotonic()

    async def followed() -> bool:
        with suppress(*BROKEN):
            async with server.connection() as db:
                return bool(await db.fetchval("SELECT 1 FROM partner_center.referrals WHERE id = $1", marker))
        return False

    await until(followed, "followed by a daemon after the last fault", patience=180)
    TALLY[f"seconds until the daemons followed again: {time.monotonic() - began:.0f};"] += 1
    for daemon in daemons:
        await daemon.end(signal.SIGTERM)
        daemon.process = None
    for command in (["sync"], ["reconcile", "--accept-vanished"]):
        ended = await asyncio.to_thread(run_command, variables, folder, *command)
        assert ended.returncode == 0, ended.stderr
    document = json.loads((await asyncio.to_thread(run_command, variables, folder, "status", "--json")).stdout)
    account = document["accounts"][0]
    assert account["verified_through"] is not None, account


async def assert_counts(db: asyncpg.Connection) -> None:
    """The counts of the runs are what is stored, every run has an end, and no lease is left."""
    first_sights = await db.fetchval("SELECT count(*) FROM partner_center.referral_history WHERE change = 'first'")
    assert await db.fetchval("SELECT sum(inserted) FROM sync.runs") == first_sights
    assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE outcome IS NULL OR outcome = 'running'") == 0
    assert await db.fetchval("SELECT count(*) FROM sync.leases WHERE expires_at > now()") == 0
    for row in await db.fetch("SELECT kind, outcome, count(*) FROM sync.runs GROUP BY kind, outcome"):
        TALLY[f"runs: {row['kind']} {row['outcome']},"] += row["count"]


def tell(daemon: Daemon) -> None:
    """Add what a daemon held to what the session came to."""
    peak = max(sample.resident_mb for sample in daemon.samples)
    descriptors = max(sample.descriptors for sample in daemon.samples)
    oldest = max(daemon.samples, key=lambda sample: sample.age)
    TALLY[
        f"daemon {daemon.name}: at most {peak:.0f} MB and {descriptors} descriptors; its oldest process"
        f" {oldest.age:.0f} s with {oldest.resident_mb:.0f} MB and {oldest.descriptors};"
    ] += 1
    events = Counter[str]()
    with daemon.log.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                with suppress(json.JSONDecodeError):  # cut off by a kill
                    events[json.loads(line)["event"]] += 1
    for name, number in events.most_common(12):
        TALLY[f"{name} in the log,"] += number
