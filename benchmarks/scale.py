"""Many accounts on several workers, in peace and in trouble: `python -m benchmarks.scale [SCENE...]`.

200 accounts that are due every minute, three `run` processes and one PostgreSQL, each a process of its own. Every scene
says what it saw beside what must hold, and so does the table at the end; the exit code is 1 where something does not.
ACCOUNTS, WORKERS and SECONDS set the sizes. Everything is written into a temporary folder; KEEP_LOGS names one that
gets the workers' logs.
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
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from benchmarks.backfill import say, source
from benchmarks.stage import (
    ACCOUNTS,
    BIG,
    BIG_PAGE_SECONDS,
    CONNECTIONS,
    INTERVAL,
    MEGABYTES,
    RECORDS,
    SECONDS,
    WORKERS,
    Stage,
    again,
    must_answer,
    must_be_as_many,
    must_be_on_time,
    start_delays,
    until,
)
from worker.store import migrate

MANY = 2_000
PGBOUNCER = Path("/usr/sbin/pgbouncer")
_NOBODY = 65_534


async def start_storm(stage: Stage) -> None:
    """All accounts are loaded for the first time at once."""
    began = time.monotonic()
    for _ in range(WORKERS):
        stage.start()
    most = 0

    async def loaded() -> bool:
        nonlocal most
        most = max(most, await stage.connections())
        return await stage.loaded()

    await until(loaded, 300)
    seconds = time.monotonic() - began
    stage.must(f"start: {ACCOUNTS} first backfills of {RECORDS} records, s", "below 120", seconds, seconds < 120)
    stage.must("start: connections", f"{CONNECTIONS * WORKERS} at most", most, most <= CONNECTIONS * WORKERS)
    runs, requests = await stage.db.fetchrow(
        "SELECT count(*), sum(requests)::float8 / $1 FROM sync.runs WHERE kind = 'backfill' AND outcome = 'done'",
        ACCOUNTS,
    ) or (0, 0.0)
    stage.must("start: backfills", f"{ACCOUNTS}, none twice", runs, runs <= ACCOUNTS * 1.02)
    stage.must("start: requests for each", "24 at most", requests, requests <= 24)
    cpu = sum(worker.cpu() for worker in stage.workers) / ACCOUNTS
    stage.tell("start: CPU of the workers for each, ms, their own start with it", f"{cpu * 1000:.0f}")


async def peace(stage: Stage) -> None:
    """Nothing changes."""
    await stage.at_work()
    await asyncio.sleep(INTERVAL + 5)  # the first due times of all are at their phases by then
    await _steady(stage, "peace", changes=False)


async def changes(stage: Stage) -> None:
    """A record changes twice a minute, which is as many changes for each account."""
    await stage.at_work()
    await _steady(stage, "changes", changes=True)


async def _steady(stage: Stage, name: str, *, changes: bool) -> None:
    since, began = await stage.now(), time.monotonic()
    cpu = sum(worker.cpu() for worker in stage.workers)
    before = await _counters(stage)
    held: list[int] = []
    touched = -float("inf")
    async with aiohttp.ClientSession() as session:
        while time.monotonic() - began < SECONDS:
            if changes and time.monotonic() - touched > 30:
                touched = time.monotonic()
                await session.post(f"{stage.origin}/touch/1")
            held.append(await stage.connections())
            await asyncio.sleep(2)
    minutes = (time.monotonic() - began) / 60
    await asyncio.sleep(3)
    delays = await start_delays(stage, since, since + minutes * 60)
    transactions, refreshes = (new - old for new, old in zip(await _counters(stage), before, strict=True))
    must_be_as_many(stage, name, delays, minutes, ACCOUNTS * 60 / INTERVAL)
    must_be_on_time(stage, name, delays, 2)
    most = max(held) / WORKERS
    stage.must(f"{name}: connections a worker", f"{CONNECTIONS} at most", most, most <= CONNECTIONS)
    peak = max(worker.peak() for worker in stage.workers)
    stage.must(f"{name}: peak MB a worker", f"{MEGABYTES} at most", peak, peak <= MEGABYTES)
    stage.must(f"{name}: history refreshes a minute", "3 at most", refreshes / minutes, refreshes / minutes <= 3)
    used = (sum(worker.cpu() for worker in stage.workers) - cpu) / max(1, len(delays))
    stage.tell(f"{name}: CPU of the workers for a sync, ms", f"{used * 1000:.0f}")
    stage.tell(f"{name}: transactions a minute", f"{transactions / minutes:,.0f}")
    await must_answer(stage, name)


async def _counters(stage: Stage) -> tuple[int, int]:
    await stage.db.execute("SELECT pg_stat_clear_snapshot()")
    transactions = await stage.db.fetchval(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    refreshes = await stage.db.fetchval(
        "SELECT count(*) FROM queue.pgqueuer_log WHERE entrypoint = 'history' AND status = 'successful'"
    )
    return transactions, refreshes


async def killed(stage: Stage) -> None:
    """One worker is killed, and another one comes in its place."""
    await stage.at_work()
    since = await stage.now()
    stage.kill_one()
    seconds, latest = await again(stage, since, 2 * INTERVAL + 60)
    stage.must("killed: the latest sync of all accounts, s", "60 after it was due at most", latest, latest <= 60)
    stage.tell("killed: every account again after, s", f"{seconds:.1f}")
    stage.start()


async def truncated(stage: Stage) -> None:
    """Somebody empties the queue's table by hand."""
    await stage.at_work()
    since = await stage.now()
    await stage.db.execute("TRUNCATE queue.pgqueuer")
    seconds, _ = await again(stage, since, 2 * INTERVAL)
    stage.must("truncated: every account again after, s", f"{INTERVAL}, an interval", seconds, seconds <= INTERVAL + 5)


async def paused(stage: Stage) -> None:
    """One worker is stopped for longer than its leases, and goes on."""
    await stage.at_work()
    since = await stage.now()
    worker = stage.workers[0]
    worker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(45)
    woken = await stage.now()
    worker.process.send_signal(signal.SIGCONT)
    _, latest = await again(stage, since, INTERVAL + 60)
    stage.must("paused: the latest sync of all accounts, s", "60 after it was due at most", latest, latest <= 60)
    ended = await stage.db.fetchval(
        """
        SELECT count(*) FROM sync.runs WHERE owner LIKE $1 AND outcome = 'done'
            AND started_at < to_timestamp($2) - interval '30 seconds' AND finished_at > to_timestamp($2)
        """,
        f"%:{worker.process.pid}:%",
        woken,
    )
    stage.must("paused: runs that it ended when it woke", "0", ended, ended == 0)
    await _whole(stage, "paused")


async def _whole(stage: Stage, name: str) -> None:
    """Every small account has each record once, and its history is one chain."""
    wrong = await stage.db.fetchval(
        """
        SELECT count(*) FROM (
            SELECT account, count(*) AS rows, count(DISTINCT id) AS ids FROM partner_center.referrals
            WHERE account LIKE 'a%' GROUP BY 1
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
    stage.must(f"{name}: accounts with a record too many or too few", "0", wrong, wrong == 0)
    stage.must(f"{name}: holes and overlaps in the history", "0", broken, broken == 0)


async def unreachable(stage: Stage) -> None:
    """PostgreSQL stops at once, and is there again after 15 s."""
    await stage.at_work()
    await stage.close_database()
    await asyncio.sleep(15)
    await stage.open_database()
    since = await stage.now()
    seconds, latest = await again(stage, since, INTERVAL + 60)
    stage.must(
        "unreachable: the latest sync of all accounts, s",
        "40 after it was due and it is back at most",
        latest,
        latest <= 40,
    )
    stage.tell(
        f"unreachable: every account again after, s, one of them due {INTERVAL} s after its last", f"{seconds:.1f}"
    )


async def large(stage: Stage) -> None:
    """An account of 40,000 records is added to all workers; one of them is killed while it is loaded."""
    await stage.at_work()
    seconds = await stage.stop()
    stage.must("SIGTERM with syncs in hand, s", "below 5", seconds, seconds < 5)
    since, began = await stage.now(), time.monotonic()
    for _ in range(WORKERS):
        stage.start(big=True)
    readers = 0

    async def begun() -> bool:
        nonlocal readers
        reading = "SELECT count(DISTINCT owner) FROM sync.runs WHERE account = 'big' AND outcome = 'running'"
        readers = max(readers, await stage.db.fetchval(reading))
        stored = "SELECT count(*) > $1 FROM partner_center.referrals WHERE account = 'big'"
        return bool(await stage.db.fetchval(stored, BIG * 3 // 8))

    await until(begun, 120)
    stage.must("large: workers that read it at once", f"{WORKERS}", readers, readers == WORKERS)
    stage.kill_one()

    async def loaded() -> bool:
        return bool(await stage.db.fetchval("SELECT count(*) FROM sync.watermarks WHERE account = 'big'"))

    await until(loaded, 300)
    name = f"large: {BIG:,} records at {BIG_PAGE_SECONDS} s a page, one of its workers killed, s"
    stage.must(name, "loaded", time.monotonic() - began, await loaded())
    once = await stage.db.fetchrow(
        """
        SELECT count(*), count(DISTINCT id),
            (SELECT count(*) FROM partner_center.referral_history WHERE account = 'big')
        FROM partner_center.referrals WHERE account = 'big'
        """
    )
    stage.must(
        "large: records, different ones, versions", f"{BIG:,} each", f"{tuple(once or ())}", set(once or ()) == {BIG}
    )
    must_be_on_time(stage, "large", await start_delays(stage, since + 20), 3)
    await _whole(stage, "large")
    seconds = await stage.stop()
    stage.must("SIGTERM after it, s", "below 5", seconds, seconds < 5)


@asynccontextmanager
async def _bouncer(stage: Stage) -> AsyncIterator[str]:
    """Run PgBouncer in transaction mode with six server connections; gives the database's address through it."""
    parts = urlsplit(stage.url)
    port = random.randint(30_001, 32_000)
    users, config = stage.folder / "users.txt", stage.folder / "pgbouncer.ini"
    users.write_text(f'"{parts.username}" "{parts.password}"\n')
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={parts.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 6\nmax_client_conn = 200\n"
    )
    root = os.geteuid() == 0
    if root:
        stage.folder.chmod(0o755)
        for path in (users, config):
            os.chown(path, _NOBODY, _NOBODY)
    command = [str(PGBOUNCER), "-q", str(config)]
    process = subprocess.Popen(command, cwd=stage.folder, user=_NOBODY if root else None)
    try:
        yield parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl()
    finally:
        process.terminate()
        process.wait()


async def bouncer(stage: Stage) -> None:
    """The workers come through PgBouncer in transaction mode with six server connections."""
    if not PGBOUNCER.exists():
        stage.must("PgBouncer: played", "apt-get install pgbouncer", "no", holds=False)
        return
    await stage.at_work()
    await stage.stop()
    async with _bouncer(stage) as url:
        for _ in range(WORKERS):
            stage.start(url=url)
        await asyncio.sleep(20)
        since = await stage.now()
        await asyncio.sleep(SECONDS)
        delays = await start_delays(stage, since, since + SECONDS)
        must_be_as_many(stage, "PgBouncer", delays, SECONDS / 60, ACCOUNTS * 60 / INTERVAL)
        must_be_on_time(stage, "PgBouncer", delays, 2)
        behind = await stage.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        stage.must("PgBouncer: connections of the server", "6 at most", behind, behind <= 6)
        await stage.stop()


async def many(stage: Stage) -> None:
    """2,000 accounts with days of runs each, which are due every 15 minutes."""
    await stage.stop()
    names = [f"m{number:04}" for number in range(MANY)]
    runs = """
        INSERT INTO sync.runs (account, kind, owner, fence, started_at, finished_at, outcome, overlap)
        SELECT m, 'incremental', 'x', 1, t, t + interval '1 second', 'done', 600 FROM unnest($1::text[]) m,
            generate_series(now() - $2::text::interval, now() - $3::text::interval, interval '15 minutes') t
        """
    async with stage.db.transaction():
        await stage.db.execute("SET LOCAL session_replication_role = replica")  # without the trigger for each row
        await stage.db.execute(runs, names, "2 days", "16 minutes")
    await stage.db.execute(runs, names, "15 minutes", "15 minutes")
    for statement in (
        """
        INSERT INTO sync.schedules (account, kind, spec, due_at)
        SELECT m, 'incremental', '15m', now() + n * interval '900 seconds' / cardinality($1::text[])
        FROM unnest($1::text[]) WITH ORDINALITY AS u(m, n)
        """,
        """
        INSERT INTO sync.totals (account, kind, name, value)
        SELECT m, 'incremental', k, 1 FROM unnest($1::text[]) m,
            unnest(ARRAY['runs.done', 'unchanged', 'pages', 'answers.200']) k
        """,
        """
        INSERT INTO sync.watermarks (account, checkpoint)
        SELECT m, (SELECT coalesce(max(checkpoint), 0) FROM sync.watermarks) FROM unnest($1::text[]) m
        """,
    ):
        await stage.db.execute(statement, names)
    await stage.db.execute("ANALYZE")
    for _ in range(WORKERS):
        stage.start(names, interval="15m")
    await asyncio.sleep(30)
    since = await stage.now()
    await asyncio.sleep(SECONDS)
    delays = await start_delays(stage, since, since + SECONDS)
    due = await stage.db.fetchval(
        "SELECT count(*) FROM sync.schedules WHERE kind = 'incremental' AND account LIKE 'm%'"
        " AND due_at < now() - interval '5 seconds'"
    )
    stage.must(f"{MANY:,} accounts: syncs due for 5 s and not in the queue", "0", due, due == 0)
    stage.tell(f"{MANY:,} accounts: syncs a minute", f"{len(delays) * 60 / SECONDS:.0f}")
    must_be_on_time(stage, f"{MANY:,} accounts", delays, 2)
    await must_answer(stage, f"{MANY:,} accounts")
    await stage.stop()


SCENES: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "start": start_storm,
    "peace": peace,
    "changes": changes,
    "killed": killed,
    "truncated": truncated,
    "paused": paused,
    "unreachable": unreachable,
    "large": large,
    "bouncer": bouncer,
    "many": many,
}


def table(stage: Stage) -> list[str]:
    """Write what was measured beside what must hold, as `docs/scale.md` has it."""
    rows = [("", "must hold", "now", ""), ("---", "---", "---", "---")]
    marks = {True: "", False: "NOT HELD", None: ""}
    rows += [(one.what, one.wanted, one.seen, marks[one.holds]) for one in stage.measured]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


async def main(names: list[str]) -> int:
    """Play the scenes on one database."""
    if strange := set(names) - set(SCENES):
        say(f"no such scene: {', '.join(sorted(strange))}; there is {', '.join(SCENES)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as name:
        stage = Stage(Path(name))
        stage.folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
        (stage.folder / "pg").mkdir()
        await stage.open_database()
        await migrate.upgrade(stage.url)
        async with source(BIG, BIG_PAGE_SECONDS, RECORDS) as stage.origin:
            try:
                for scene in names or SCENES:
                    began = time.monotonic()
                    say(f"\n{scene}: {(SCENES[scene].__doc__ or '').strip()}")
                    await SCENES[scene](stage)
                    stage.seconds[scene] = time.monotonic() - began
                if os.environ.get("KEEP_LOGS"):
                    Path(os.environ["KEEP_LOGS"]).mkdir(parents=True, exist_ok=True)
                    for log in stage.folder.glob("worker-*.log"):
                        Path(os.environ["KEEP_LOGS"], log.name).write_bytes(log.read_bytes())
            finally:
                for worker in stage.workers:
                    worker.process.terminate()
                for worker in stage.workers:
                    worker.process.wait(30)
                await stage.close_database()
    missed = [one.what for one in stage.measured if one.holds is False]
    say("", *table(stage))
    say("", *(f"{scene}: {seconds:.0f} s" for scene, seconds in stage.seconds.items()))
    say("", *(f"not held: {one}" for one in missed), "" if missed else "All held.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
