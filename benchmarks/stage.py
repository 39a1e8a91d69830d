"""What the scenes of `benchmarks.scale` play on: workers as processes, a source, one PostgreSQL, and what must hold."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from benchmarks.backfill import ROOT, say
from worker.embedded import server as embedded

ACCOUNTS = int(os.environ.get("ACCOUNTS", "200"))
WORKERS = int(os.environ.get("WORKERS", "3"))
SECONDS = int(os.environ.get("SECONDS", "60"))
INTERVAL = 60
BIG = 40_000
BIG_PAGE_SECONDS = 0.3
RECORDS = 50
CONNECTIONS = 10
MEGABYTES = 150
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Worker:
    """A `run` process, and where it answers."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """Return its CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak(self) -> float:
        """Return its peak memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(text.partition("VmHWM:")[2].split()[0]) / 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """What a scene saw beside what must hold; None where it is only shown."""

    what: str
    wanted: str
    seen: str
    holds: bool | None


@dataclass(slots=True)
class Stage:
    """What the scenes play on."""

    folder: Path
    url: str = ""
    origin: str = ""
    server: AsyncExitStack = field(default_factory=AsyncExitStack)
    db: asyncpg.Connection = field(init=False)
    workers: list[Worker] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _port: str = field(default_factory=lambda: str(random.randint(15_000, 19_999)))

    def must(self, what: str, wanted: str, seen: float | str, holds: bool) -> None:
        """Say what was seen beside what must hold, and remember it."""
        self._tell(Measured(what, wanted, f"{seen:,.1f}" if isinstance(seen, float) else f"{seen}", holds))

    def tell(self, what: str, seen: str) -> None:
        """Say what was seen, of which nothing is asked."""
        self._tell(Measured(what, "", seen, None))

    def _tell(self, one: Measured) -> None:
        self.measured.append(one)
        mark = {True: "ok  ", False: "FAIL", None: "    "}[one.holds]
        say(f"  {mark} {one.what}: {one.seen}" + (f" (wanted: {one.wanted})" if one.wanted else ""))

    async def open_database(self) -> None:
        """Start PostgreSQL, or start it again, and connect."""
        settings = {"port": self._port, "max_connections": "200"}
        self.url = await self.server.enter_async_context(embedded.server(self.folder / "pg", settings=settings))
        self.db = await asyncpg.connect(self.url)

    async def close_database(self) -> None:
        """Stop PostgreSQL at once for all who are connected."""
        await self.db.close()
        await self.server.aclose()

    def start(self, names: Sequence[str] = (), *, interval: str = "", big: bool = False, url: str = "") -> Worker:
        """Start one more worker of the accounts, all small ones where none are named."""
        number = len(list(self.folder.glob("worker-*.log")))
        config = self.folder / f"config-{number}.toml"
        tables = [
            f'[accounts.{name}]\nauth = "static_token"\naccess_token = "small"\n'
            for name in names or [f"a{one:04}" for one in range(ACCOUNTS)]
        ]
        if big:
            tables.append('[accounts.big]\nauth = "static_token"\naccess_token = "big"\n')
        port = random.randint(20_000, 30_000)
        config.write_text(
            f'[database]\nurl = "{url or self.url}"\n[api]\nbase_url = "{self.origin}"\n'
            f"concurrency = {6 if big else 2}\n"
            f'[schedule]\nincremental = "{interval or f"{INTERVAL}s"}"\nreconcile = "30 3 * * *"\n'
            f'[http]\nlisten = "127.0.0.1:{port}"\n[log]\nformat = "json"\n' + "".join(tables)
        )
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with (self.folder / f"worker-{number}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                cwd=self.folder,
                env=variables | {"REFERRAL_SYNC_CONFIG": config.name},
                stdout=output,
                stderr=output,
            )
        worker = Worker(process, port)
        self.workers.append(worker)
        return worker

    async def at_work(self) -> None:
        """Have the workers at work and all small accounts loaded, each at its own moment of the interval."""
        if self.workers:
            return
        for _ in range(WORKERS):
            self.start()
        began = await self.now()
        await until(self.loaded, 300)
        await again(self, began, INTERVAL + 60)

    async def loaded(self) -> bool:
        """Say whether every small account is loaded."""
        return bool(
            await self.db.fetchval("SELECT count(*) >= $1 FROM sync.watermarks WHERE account LIKE 'a%'", ACCOUNTS)
        )

    def kill_one(self) -> None:
        """Kill a worker."""
        worker = self.workers.pop(0)
        worker.process.kill()
        worker.process.wait()

    async def stop(self) -> float:
        """Ask all workers to stop; returns how long the slowest took."""
        began = time.monotonic()
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(worker.process.wait, 30) for worker in self.workers]
        self.workers.clear()
        if set(codes) - {0}:
            self.must("exit codes of workers", "0", f"{codes}", holds=False)
        return time.monotonic() - began

    async def now(self) -> float:
        """Return the database's clock in epoch seconds."""
        found: float = await self.db.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return found

    async def connections(self) -> int:
        """Count the workers' connections."""
        found: int = await self.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'referral-sync'"
        )
        return found


async def until(condition: Callable[[], Awaitable[object]], patience: float) -> float:
    """Wait until something holds; returns how long that took, or infinity."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(0.5)
    return float("inf")


async def again(stage: Stage, since: float, patience: float) -> tuple[float, float]:
    """Wait until every small account has had a good sync that began after a moment.

    Returns after how long, and the longest delay of these first ones: from its due time, or from the moment where it
    was due before.
    """
    latest = float("inf")

    async def all_of_them() -> bool:
        nonlocal latest
        found = await stage.db.fetchrow(
            """
            SELECT count(*) AS accounts, max(late)::float8 AS latest FROM (
                SELECT DISTINCT ON (account)
                    extract(epoch FROM started_at - greatest(due_at, to_timestamp($1))) AS late
                FROM sync.runs
                WHERE kind = 'incremental' AND outcome = 'done' AND started_at > to_timestamp($1)
                    AND account LIKE 'a%'
                ORDER BY account, started_at
            ) f
            """,
            since,
        )
        if found is None or found["accounts"] < ACCOUNTS:
            return False
        latest = found["latest"]
        return True

    seconds = await until(all_of_them, patience)
    return seconds, latest


async def start_delays(stage: Stage, since: float, before: float | None = None) -> list[float]:
    """Return how many seconds after they were due the syncs of a time began, in order."""
    found = await stage.db.fetch(
        """
        SELECT extract(epoch FROM started_at - due_at)::float8 AS late FROM sync.runs
        WHERE kind = 'incremental' AND due_at IS NOT NULL AND started_at >= to_timestamp($1)
            AND started_at < to_timestamp($2) ORDER BY 1
        """,
        since,
        before or 1e11,
    )
    return [row["late"] for row in found]


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("inf")


def quantiles(values: list[float]) -> str:
    """Write start_delays in the order that it is always written."""
    return " / ".join(f"{percentile(values, share):.2f}" for share in (0.5, 0.95, 0.99))


def must_be_on_time(stage: Stage, name: str, late: list[float], seconds: float) -> None:
    """Say how long after they were due syncs began, which must be below so many seconds at the 95th percentile."""
    wanted = f"95 % below {seconds:.0f}"
    stage.must(f"{name}: start delay s, 50 / 95 / 99 %", wanted, quantiles(late), percentile(late, 0.95) < seconds)


def must_be_as_many(stage: Stage, name: str, late: list[float], minutes: float, due: float) -> None:
    """Say how many syncs ran a minute, which must be those that were due, within three in a hundred."""
    seen = len(late) / minutes
    stage.must(f"{name}: syncs a minute", f"{due:.0f}, those due", seen, abs(seen - due) <= due * 0.03)


async def must_answer(stage: Stage, name: str) -> None:
    """Say how long the ops endpoint takes for each of its pages, which must be less than a second."""
    async with aiohttp.ClientSession() as session:
        for path in ("metrics", "status", ""):
            asked = time.monotonic()
            async with session.get(f"http://127.0.0.1:{stage.workers[0].port}/{path}") as answer:
                size = len(await answer.read())
            seconds = time.monotonic() - asked
            stage.must(f"{name}: /{path} s", "below 1", f"{seconds:.2f} ({size / 1000:,.0f} kB)", seconds < 1)
