"""PostgreSQL for a benchmark, by its own default settings or by ours, and what it costs: CPU, WAL, rows written.

`BENCH_PG_BIN` names the folder of another version's programs; without it they are those of the embedded server.
`BENCH_URL` names an empty database of a server that runs already, whose settings are then as they are. CPU is read from
/proc, so on Linux only, and of a server on this machine.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from worker.embedded import server as embedded
from worker.embedded.cluster import free_port

_TICKS = os.sysconf("SC_CLK_TCK")
_CONNECTIONS = {"max_connections": "60"}
SETTINGS: dict[str, dict[str, str]] = {
    "default": {"shared_buffers": "128MB", "max_wal_size": "1GB", "checkpoint_timeout": "5min"},
    "tuned": {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"},
}
"""PostgreSQL's own, and the three that README advises to change."""

_WRITTEN = """
SELECT coalesce(sum(n_tup_ins), 0)::bigint AS inserted, coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint AS dead
FROM pg_stat_user_tables WHERE schemaname = 'partner_center'
"""


@asynccontextmanager
async def server(settings: str) -> AsyncIterator[str]:
    """Start PostgreSQL, durability on, with some of `SETTINGS`; gives the address of an empty database."""
    if address := os.environ.get("BENCH_URL"):
        yield address
        return
    chosen = SETTINGS[settings] | _CONNECTIONS
    programs = os.environ.get("BENCH_PG_BIN")
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        if programs:
            with _started(Path(programs), Path(folder), chosen) as url:
                await _answers(url)
                yield url
        else:
            async with embedded.server(Path(folder), settings=chosen) as url:
                yield url


@contextmanager
def _started(programs: Path, folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """Start a server of any version, as another user where we are root, which PostgreSQL refuses to be."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    if user:
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    data, port = folder / "data", free_port()
    made = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]
    subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL, **ids)  # type: ignore[call-overload]
    command = [programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", "unix_socket_directories="]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **ids) as process,  # type: ignore[call-overload]
    ):
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            process.send_signal(2)  # SIGINT, which ends sessions


async def _answers(url: str) -> None:
    for _ in range(300):
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.1)
        else:
            await connection.close()
            return
    raise SystemExit(f"PostgreSQL does not answer at {url}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server has done so far: CPU seconds of all its processes, WAL bytes, rows of the copy new and dead."""

    cpu: float
    wal: int
    inserted: int
    dead: int

    def __sub__(self, before: Cost) -> Cost:
        return Cost(
            self.cpu - before.cpu, self.wal - before.wal, self.inserted - before.inserted, self.dead - before.dead
        )


async def cost(dsn: str, *, checkpoint: bool = False) -> Cost:
    """Look at what the server of a database has done; `checkpoint`: do one before, so that all begin alike."""
    connection = await asyncpg.connect(dsn)
    try:
        if checkpoint:
            await connection.execute("CHECKPOINT")
        wal = await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        (written,) = await connection.fetch(_WRITTEN)
        cpu = cpu_of_server(await connection.fetchval("SELECT pg_backend_pid()"))
    finally:
        await connection.close()
    return Cost(cpu, wal, written["inserted"], written["dead"])


@asynccontextmanager
async def without_autovacuum(dsn: str) -> AsyncIterator[None]:
    """Keep autovacuum from what others have written meanwhile: its WAL would count as ours.

    Not on a server that runs already: its settings stay as they are.
    """
    if "BENCH_URL" in os.environ:
        yield
        return
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(_STOP_AUTOVACUUM)
        yield
        await connection.execute("ALTER SYSTEM RESET autovacuum")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


_STOP_AUTOVACUUM = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


def cpu_of_server(backend: int) -> float:
    """Return CPU seconds of the server that a process belongs to: its own, of those that ended, of those that live."""
    try:
        parent = _stat(backend)[1]
        own = _stat(int(parent))
    except OSError:
        return float("nan")
    ticks = sum(map(int, own[11:15]))
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found = _stat(int(path.parent.name))
        except (OSError, ValueError):
            continue  # it has ended since
        ticks += sum(map(int, found[11:13])) if found[1] == parent else 0
    return ticks / _TICKS


def _stat(process: int) -> list[str]:
    """Return what /proc has of a process: [1] its parent, [11:13] its CPU ticks, [13:15] those of ended children."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
