"""Many accounts on several workers, in peace and in trouble: `python -m benchmarks.scale [SCENE...]`.

200 accounts that are due every minute, three `run` processes and one PostgreSQL, each a process of its own. Every scene
says what it saw and what it must be; the exit code is 1 where one is not. ACCOUNTS, WORKERS and SECONDS set the sizes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from benchmarks.backfill import ROOT, say
from worker.embedded import server as embedded
from worker.store import migrate

ACCOUNTS = int(os.environ.get("ACCOUNTS", "200"))
WORKERS = int(os.environ.get("WORKERS", "3"))
SECONDS = int(os.environ.get("SECONDS", "75"))
INTERVAL = 60
BIG = 40_000
BIG_PAGE_SECONDS = 0.3
RECORDS = 50
MANY = 2_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Worker:
    """A `run` process, and where it answers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def cpu(self) -> float:
        """Return its CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak(self) -> float:
        """Return its peak memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def events(self, name: str) -> int:
        """Count its log lines of one event."""
        return self.log.read_text(encoding="utf-8").count(f'"event": "{name}"')


@dataclass(slots=True)
class Stage:
    """What the scenes play on."""

    folder: Path
    url: str
    origin: str
    db: asyncpg.Connection
    workers: list[Worker] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def must(self, what: str, seen: float | str, holds: bool) -> None:
        """Say what was seen, and remember what is not as it must be."""
        shown = f"{seen:,.1f}" if isinstance(seen, float) else f"{seen}"
        say(f"  {'ok  ' if holds else 'FAIL'} {what}: {shown}")
        if not holds:
            self.missed.append(what)

    def start(self, *, big: bool = False, url: str = "") -> Worker:
        """Start one more worker."""
        number = len(list(self.folder.glob("worker-*.log")))
        config = self.folder / f"config-{number}.toml"
        names = [f"a{one:04}" for one in range(ACCOUNTS)]
        tables = [f'[accounts.{name}]\nauth = "static_token"\naccess_token = "small"\n' for name in names]
        if big:
            tables.append('[accounts.big]\nauth = "static_token"\naccess_token = "big"\n')
        port = random.randint(20_000, 30_000)
        readers = 6 if big else 2
        config.write_text(
            f'[database]\nurl = "{url or self.url}"\n[api]\nbase_url = "{self.origin}"\nconcurrency = {readers}\n'
            f'[schedule]\nincremental = "{INTERVAL}s"\nreconcile = "30 3 * * *"\n'
            f'[http]\nlisten = "127.0.0.1:{port}"\n[log]\nformat = "json"\n' + "".join(tables)
        )
        log = self.folder / f"worker-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REFERRAL_SYNC_CONFIG": config.name},
                stdout=output,
                stderr=output,
            )
        worker = Worker(process, port, log)
        self.workers.append(worker)
        return worker

    async def stop(self) -> float:
        """Ask all workers to stop; returns how long the slowest took."""
        began = time.monotonic()
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            code = await asyncio.to_thread(worker.process.wait, 30)
            if code not in (0, -signal.SIGKILL):
                self.missed.append(f"a worker ended with {code}")
        self.workers.clear()
        return time.monotonic() - began

    async def now(self) -> float:
        """Return the database's clock in epoch seconds."""
        found: float = await self.db.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return found


async def until(condition: Callable[[], Awaitable[object]], patience: float) -> float:
    """Wait until something holds; returns how long that took, or infinity."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(0.5)
    return float("inf")


async def start_delays(stage: Stage, since: float, before: float | None = None) -> list[float]:
    """Return how many seconds after they were due the syncs of a time began, in order."""
    found = await stage.db.fetch(
        """
        SELECT extract(epoch FROM started_at - due_at)::float8 AS delay FROM sync.runs
        WHERE kind = 'incremental' AND due_at IS NOT NULL AND started_at >= to_timestamp($1)
            AND started_at < to_timestamp($2) ORDER BY 1
        """,
        since,
        before or 1e11,
    )
    return [row["delay"] for row in found]


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("inf")


def quantiles(values: list[float]) -> str:
    """Write start delays in the order that it is always written."""
    return " / ".join(f"{percentile(values, share):.2f}" for share in (0.5, 0.95, 0.99))


async def start_storm(stage: Stage) -> None:
    """Three workers begin on an empty database with all accounts to backfill."""
    say(f"\nStart: {ACCOUNTS} first backfills of {RECORDS} records, {WORKERS} workers")
    began = time.monotonic()
    for _ in range(WORKERS):
        stage.start()
    most = 0

    async def loaded() -> bool:
        nonlocal most
        most = max(most, await connections(stage))
        return bool(await stage.db.fetchval("SELECT count(*) >= $1 FROM sync.watermarks", ACCOUNTS))

    await until(loaded, 240)
    seconds = time.monotonic() - began
    stage.must("all backfilled after, s", seconds, seconds < 180)
    stage.must("connections at most", most, most <= 10 * WORKERS)
    runs = await stage.db.fetchval("SELECT count(*) FROM sync.runs WHERE kind = 'backfill' AND slot IS NULL")
    stage.must("backfills", runs, runs <= ACCOUNTS * 1.02)


async def peace(stage: Stage) -> None:
    """Nothing changes."""
    await asyncio.sleep(INTERVAL + 5)  # the first due times of all are at their phases by then
    await _steady(stage, "Peace", changes=False)


async def changes(stage: Stage) -> None:
    """A record changes twice a minute, which is as many changes for each account."""
    await _steady(stage, "Changes in every account twice a minute", changes=True)


async def _steady(stage: Stage, name: str, *, changes: bool) -> None:
    say(f"\n{name}, {SECONDS} s")
    since, began = await stage.now(), time.monotonic()
    cpu = [worker.cpu() for worker in stage.workers]
    before = await _counters(stage)
    held: list[int] = []
    touched = -float("inf")
    async with aiohttp.ClientSession() as session:
        while time.monotonic() - began < SECONDS:
            if changes and time.monotonic() - touched > 30:
                touched = time.monotonic()
                await session.post(f"{stage.origin}/touch/1")
            held.append(await connections(stage))
            await asyncio.sleep(2)
    minutes = (time.monotonic() - began) / 60
    await asyncio.sleep(3)
    delays = await start_delays(stage, since, since + minutes * 60)
    after = await _counters(stage)
    due = ACCOUNTS * 60 / INTERVAL
    stage.must(f"runs a minute ({due:.0f} due)", len(delays) / minutes, abs(len(delays) / minutes - due) <= due * 0.03)
    stage.must(
        "start delay s, 50/95/99 %",
        quantiles(delays),
        percentile(delays, 0.95) < 2,
    )
    stage.must("connections a worker at most", max(held) / WORKERS, max(held) <= 10 * WORKERS)
    peak = max(worker.peak() for worker in stage.workers)
    stage.must("peak MB a worker", peak, peak <= 150)
    used = sum(worker.cpu() for worker in stage.workers) - sum(cpu)
    transactions, refreshes = (new - old for new, old in zip(after, before, strict=True))
    say(
        f"       CPU ms a run: {used / max(1, len(delays)) * 1000:.0f};"
        f" transactions a minute: {transactions / minutes:,.0f}"
    )
    stage.must("history refreshes a minute", refreshes / minutes, refreshes / minutes <= 3)
    async with aiohttp.ClientSession() as session:
        for path in ("metrics", "status", ""):
            asked = time.monotonic()
            async with session.get(f"http://127.0.0.1:{stage.workers[0].port}/{path}") as answer:
                size = len(await answer.read())
            seconds = time.monotonic() - asked
            stage.must(f"/{path} s ({size / 1000:,.0f} kB)", seconds, seconds < 1)


async def _counters(stage: Stage) -> tuple[int, int]:
    await stage.db.execute("SELECT pg_stat_clear_snapshot()")
    transactions = await stage.db.fetchval(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    refreshes = await stage.db.fetchval(
        "SELECT count(*) FROM queue.pgqueuer_log WHERE entrypoint = 'history' AND status = 'successful'"
    )
    return transactions, refreshes


async def connections(stage: Stage) -> int:
    """Count the workers' connections."""
    found: int = await stage.db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'referral-sync'"
    )
    return found


async def killed(stage: Stage) -> None:
    """One worker is killed, and another one comes in its place a minute later."""
    say("\nA worker is killed")
    since = await stage.now()
    stage.workers[0].process.kill()
    stage.workers.pop(0).process.wait()
    stage.must("all accounts again after, s", *await _all_again(stage, since, INTERVAL + 60))
    stage.start()
    await asyncio.sleep(10)


async def _all_again(stage: Stage, since: float, limit: float) -> tuple[float, bool]:
    """Wait until every account has had a good sync that began after a moment; returns how long that took."""

    async def again() -> bool:
        return bool(
            await stage.db.fetchval(
                """
                SELECT count(DISTINCT account) >= $2 FROM sync.runs
                WHERE kind = 'incremental' AND outcome = 'done' AND started_at > to_timestamp($1)
                """,
                since,
                ACCOUNTS,
            )
        )

    seconds = await until(again, limit + 60)
    return seconds, seconds <= limit


async def truncated(stage: Stage) -> None:
    """Somebody empties the queue's table by hand."""
    say("\nThe queue's table is truncated")
    since = await stage.now()
    await stage.db.execute("TRUNCATE queue.pgqueuer")
    stage.must("all accounts again after, s", *await _all_again(stage, since, INTERVAL + 5))


async def paused(stage: Stage) -> None:
    """One worker is stopped for longer than its leases, and goes on."""
    say("\nA worker is paused for 45 s, and goes on")
    since = await stage.now()
    worker = stage.workers[0]
    worker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(45)
    worker.process.send_signal(signal.SIGCONT)
    stage.must("all accounts again after, s", *await _all_again(stage, since, INTERVAL + 60))
    await _whole(stage)


async def _whole(stage: Stage) -> None:
    """Every account has each record once, and its history is one chain."""
    wrong = await stage.db.fetchval(
        """
        SELECT count(*) FROM (
            SELECT account, count(*) AS rows, count(DISTINCT id) AS ids FROM partner_center.referrals
            WHERE account <> 'big' GROUP BY 1
        ) a WHERE rows <> $1 OR ids <> $1
        """,
        RECORDS,
    )
    broken = await stage.db.fetchval(
        """
        SELECT count(*) FROM (
            SELECT valid_to, lead(valid_from) OVER (PARTITION BY account, referral_id ORDER BY valid_from) AS next_from
            FROM partner_center.referral_history
        ) v WHERE valid_to IS DISTINCT FROM next_from
        """
    )
    stage.must("accounts with a record too many or too few", wrong, wrong == 0)
    stage.must("holes and overlaps in the history", broken, broken == 0)


async def large(stage: Stage) -> None:
    """An account of 40,000 records is added to all workers; one of them is killed while it is backfilled."""
    say(f"\nA backfill of {BIG:,} records at {BIG_PAGE_SECONDS} s a page beside everything else, one reader killed")
    seconds = await stage.stop()
    stage.must("SIGTERM, s", seconds, seconds < 5)
    since, began = await stage.now(), time.monotonic()
    for _ in range(WORKERS):
        stage.start(big=True)

    async def begun() -> bool:
        found: bool = await stage.db.fetchval(
            "SELECT count(*) > 15000 FROM partner_center.referrals WHERE account = 'big'"
        )
        return found

    await until(begun, 120)
    readers = await stage.db.fetchval(
        "SELECT count(DISTINCT owner) FROM sync.runs WHERE account = 'big' AND kind = 'backfill'"
    )
    stage.must("workers that read it", readers, readers == WORKERS)
    stage.workers[0].process.kill()
    stage.workers.pop(0).process.wait()

    async def loaded() -> bool:
        return bool(await stage.db.fetchval("SELECT count(*) FROM sync.watermarks WHERE account = 'big'"))

    await until(loaded, 300)
    stage.must("backfilled after, s", time.monotonic() - began, bool(await loaded()))
    rows, ids = await stage.db.fetchrow(
        "SELECT count(*), count(DISTINCT id) FROM partner_center.referrals WHERE account = 'big'"
    ) or (0, 0)
    stage.must("records, and different ones", f"{rows:,}, {ids:,}", rows == ids == BIG)
    # The accounts that the dead worker had in hand start late by the time until its leases end; all others are not.
    delays = await start_delays(stage, since + 20)
    stage.must(
        "start delay s, 50/95/99 %",
        quantiles(delays),
        percentile(delays, 0.95) < 3,
    )
    await _whole(stage)
    stage.start(big=True)


async def bouncer(stage: Stage) -> None:
    """The workers come through PgBouncer in transaction mode with six server connections."""
    program = Path("/usr/sbin/pgbouncer")
    if not program.exists():
        say("\nPgBouncer is not installed: left out")
        return
    say("\nThrough PgBouncer in transaction mode, six server connections")
    parts = urlsplit(stage.url)
    port = random.randint(30_001, 32_000)
    users = stage.folder / "users.txt"
    users.write_text(f'"{parts.username}" "{parts.password}"\n')
    config = stage.folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={parts.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 6\nmax_client_conn = 200\n"
    )
    nobody = 65_534
    if os.geteuid() == 0:
        stage.folder.chmod(0o755)
        for path in (users, config):
            os.chown(path, nobody, nobody)
    process = subprocess.Popen([str(program), "-q", str(config)], user=nobody if os.geteuid() == 0 else None)
    try:
        await stage.stop()
        for _ in range(WORKERS):
            stage.start(url=parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl())
        await asyncio.sleep(15)
        since = await stage.now()
        await asyncio.sleep(SECONDS)
        delays = await start_delays(stage, since)
        stage.must(
            "start delay s, 50/95/99 %",
            quantiles(delays),
            percentile(delays, 0.95) < 2,
        )
        stage.must("runs a minute", len(delays) * 60 / SECONDS, len(delays) * 60 / SECONDS > ACCOUNTS * 0.95)
        await stage.stop()
    finally:
        process.terminate()
        process.wait()
    for _ in range(WORKERS):
        stage.start()
    await asyncio.sleep(15)


async def many(stage: Stage) -> None:
    """What is shown of 2,000 accounts with a week of runs each, which are planned every 15 minutes."""
    say(f"\n{MANY:,} accounts, shown by a worker that has nothing else to do")
    await stage.stop()
    await stage.db.execute("UPDATE sync.schedules SET due_at = now() + interval '1 hour'")
    await stage.db.execute(
        """
        INSERT INTO sync.runs (account, kind, owner, fence, started_at, finished_at, outcome, overlap)
        SELECT 'm' || n, 'incremental', 'x', 1, t, t + interval '1 second', 'done', 600
        FROM generate_series(1, $1) n, generate_series(now() - interval '2 days', now(), interval '15 minutes') t
        """,
        MANY - ACCOUNTS,
    )
    await stage.db.execute(
        """
        INSERT INTO sync.schedules (account, kind, spec, due_at)
        SELECT 'm' || n, k, '15m', now() + n * interval '1 second'
        FROM generate_series(1, $1) n, unnest(ARRAY['incremental', 'reconcile']) k
        """,
        MANY - ACCOUNTS,
    )
    await stage.db.execute(
        """
        INSERT INTO sync.totals (account, kind, name, value)
        SELECT 'm' || n, 'incremental', k, 1 FROM generate_series(1, $1) n,
            unnest(ARRAY['runs.done', 'unchanged', 'pages', 'answers.200']) k
        """,
        MANY - ACCOUNTS,
    )
    await stage.db.execute("ANALYZE")
    stage.start()
    await asyncio.sleep(10)
    async with aiohttp.ClientSession() as session:
        for path in ("metrics", "status", ""):
            asked = time.monotonic()
            async with session.get(f"http://127.0.0.1:{stage.workers[0].port}/{path}") as answer:
                size = len(await answer.read())
            seconds = time.monotonic() - asked
            stage.must(f"/{path} s ({size / 1000:,.0f} kB)", seconds, seconds < 1)
    seconds = await stage.stop()
    stage.must("SIGTERM, s", seconds, seconds < 5)


SCENES = {
    "start": start_storm,
    "peace": peace,
    "changes": changes,
    "killed": killed,
    "truncated": truncated,
    "paused": paused,
    "large": large,
    "bouncer": bouncer,
    "many": many,
}


ORDER = ("start", "peace", "changes", "killed", "truncated", "paused", "unreachable", "large", "bouncer", "many")
"""The last one leaves schedules that no other scene can use."""


@asynccontextmanager
async def source() -> AsyncIterator[str]:
    """Start the source; gives its origin."""
    command = [sys.executable, "-m", "benchmarks.source", str(BIG), str(BIG_PAGE_SECONDS), str(RECORDS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            yield (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            process.terminate()


async def unreachable(stage: Stage, server: AsyncExitStack, start: Callable[[], Awaitable[str]]) -> None:
    """PostgreSQL stops at once, and is there again after 15 s."""
    say("\nPostgreSQL is unreachable for 15 s")
    await stage.db.close()
    await server.aclose()
    await asyncio.sleep(15)
    await start()
    stage.db = await asyncpg.connect(stage.url)
    since = await stage.now()
    seconds, _ = await _all_again(stage, since, INTERVAL + 30)
    delays = await stage.db.fetchval(
        """
        SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY first) FROM (
            SELECT account, extract(epoch FROM min(started_at)) - $1::float8 AS first FROM sync.runs
            WHERE kind = 'incremental' AND outcome = 'done' AND started_at > to_timestamp($1)
                AND due_at < to_timestamp($1) GROUP BY 1
        ) f
        """,
        since,
    )
    stage.must("every account again after, s", seconds, seconds <= INTERVAL + 10)
    stage.must("those that were due meanwhile after, s, 95 %", float(delays or 0), float(delays or 0) < 40)


async def main(names: list[str]) -> int:
    """Play the scenes on one database."""
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
        (folder / "pg").mkdir()
        port = str(random.randint(15_000, 19_999))
        server = AsyncExitStack()

        async def start() -> str:
            settings = {"port": port, "max_connections": "200"}
            return await server.enter_async_context(embedded.server(folder / "pg", settings=settings))

        url = await start()
        await migrate.upgrade(url)
        async with source() as origin:
            stage = Stage(folder, url, origin, await asyncpg.connect(url))
            try:
                for scene in names or ORDER:
                    if scene == "unreachable":
                        if not stage.workers:
                            for _ in range(WORKERS):
                                stage.start()
                            await asyncio.sleep(INTERVAL + 20)
                        await unreachable(stage, server, start)
                    else:
                        await SCENES[scene](stage)
                if os.environ.get("KEEP_LOGS"):
                    for log in folder.glob("worker-*.log"):
                        Path(os.environ["KEEP_LOGS"], log.name).write_bytes(log.read_bytes())
            finally:
                for worker in stage.workers:
                    worker.process.terminate()
                for worker in stage.workers:
                    worker.process.wait(30)
                await stage.db.close()
                await server.aclose()
    say("", *(f"not held: {one}" for one in stage.missed), "All held." if not stage.missed else "")
    return 1 if stage.missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
