"""The demo: the whole pipeline on one machine in about a minute, to look around in, and nothing left running."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from worker import wiring
from worker.commands.progress import progress
from worker.config.models import Settings
from worker.config.sources import load
from worker.daemon.assembly import serve
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.errors import SyncError
from worker.logs import configure
from worker.model import escape
from worker.notify.delivery import digest_now
from worker.store import migrate
from worker.store.analysis import analysis
from worker.store.database import Database, connect, open_database
from worker.sync import account
from worker.sync.pipeline import Pipeline
from worker.sync.run import refresh_history
from worker.web.pages import load_templates
from worker.web.report import report as page
from worker.wiring import pool_size

ACCOUNT, CHANNEL = "contoso", "sales"
DIGEST = 1_300
"""Characters of the digest that is shown."""

QUERIES = (
    (
        "The open pipeline, each currency by itself",
        """
        SELECT category, direction, status, currency, count(*) AS deals, round(sum(deal_value), 2) AS deal_value
        FROM bi.referrals WHERE status <> 'Closed' AND deal_value > 0
        GROUP BY 1, 2, 3, 4 ORDER BY deals DESC, deal_value DESC LIMIT 8
        """,
    ),
    (
        "What changed its status",
        """
        SELECT changed_at::time(0) AS at, left(id, 8) AS id, change, from_status, to_status, to_substatus
        FROM bi.status_changes WHERE change <> 'first' ORDER BY recorded_at DESC, changed_at DESC LIMIT 8
        """,
    ),
    (
        "How fresh and how complete",
        """
        SELECT account, health, fresh_as_of::time(0) AS fresh_as_of, watermark::time(0) AS watermark,
            verified_through::time(0) AS verified, live_referrals AS live, open_rejects AS rejects
        FROM bi.freshness
        """,
    ),
)


async def tour(count: int, out: Console, *, keep: bool = False) -> int:
    """Backfill `count` made-up referrals, change some, sync, reconcile, and print what an analyst then sees.

    With `keep` the daemon then follows the source until SIGINT or SIGTERM, for a look at its page and the database.
    """
    configure("warning", "auto")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="referral-sync-demo-") as folder:
        out.print("Starting PostgreSQL and a simulated Partner Center ...")
        async with _simulator(count) as origin, embedded.server(Path(folder)) as url:
            await migrate.upgrade(url)
            settings = load(
                {
                    "REFERRAL_SYNC_DATABASE__URL": url,
                    "REFERRAL_SYNC_API__BASE_URL": origin,
                    f"REFERRAL_SYNC_ACCOUNTS__{ACCOUNT.upper()}__AUTH": "static_token",
                    f"REFERRAL_SYNC_ACCOUNTS__{ACCOUNT.upper()}__ACCESS_TOKEN": "simulator",
                    "REFERRAL_SYNC_HTTP__LISTEN": _free_address(),
                    "REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "10s",
                    f"REFERRAL_SYNC_NOTIFY__CHANNELS__{CHANNEL.upper()}__URL": "json://127.0.0.1/nothing-is-sent",
                },
                Path(folder),
            )
            async with open_database(url, connections=pool_size(settings)) as database, Control(origin) as control:
                async with wiring.open_pipeline(settings, database, ACCOUNT) as pipeline:
                    await _work(pipeline, control, out)
                await refresh_history(database)
                await _look(url, database, out)
                morning = await digest_now(database, settings, CHANNEL)
                out.print(f"\nWhat a channel would be told every morning: {escape.line(morning.title)}")
                out.print(escape.block(morning.text(DIGEST)))
                if keep:
                    await _stay_up(settings, database, url, Path(folder), out)
    done = "Stopped" if keep else f"Done in {time.monotonic() - started:.0f} s"
    out.print(f"\n{done}; nothing is left running.")
    return 0


async def _work(pipeline: Pipeline, control: Control, out: Console) -> None:
    began = time.monotonic()
    with _watched(pipeline) as watched:
        counts = await account.sync_account(watched)
    out.print(f"Backfill: {counts.inserted} referrals in {time.monotonic() - began:.1f} s.")
    changes = await _change(control)
    out.print(f"At the source: {changes}.")
    await control.clear_requests()
    counts = await account.sync_account(pipeline)
    requests = len(await control.requests())
    out.print(f"A sync: {counts.inserted} inserted, {counts.updated} updated, in {requests} request(s).")
    await control.clear_requests()
    counts = await account.sync_account(pipeline)
    requests = len(await control.requests())
    out.print(f"An idle sync: {counts.inserted + counts.updated} rows written, in {requests} request(s).")
    with _watched(pipeline) as watched:
        found = await account.reconcile_account(watched)
    out.print(
        f"A reconcile: {found.counts.unchanged} as they should be, {found.deleted} deleted at the source and marked."
    )


@contextmanager
def _watched(pipeline: Pipeline) -> Iterator[Pipeline]:
    with progress() as shown:
        yield replace(pipeline, progress=shown.report)


async def _change(control: Control) -> str:
    """Create, edit, close, delete, and give five referrals one and the same time."""
    listed = (await control.state(full=True))["records"]
    ids = sorted(key for key, record in listed.items() if record["status"] == "Active")
    await control.create([{} for _ in range(4)])
    for referral_id in ids[:6]:
        await control.update(referral_id, {"details": {"dealValue": 125_000.50}})
    for referral_id in ids[6:10]:
        await control.update(referral_id, {"status": "Closed", "substatus": "Won"})
    tied = datetime.now(UTC) + timedelta(seconds=1)
    moment = f"{tied:%Y-%m-%dT%H:%M:%S}.1234567Z"
    for referral_id in ids[10:15]:
        await control.update(referral_id, {"salesStage": "Propose", "updatedDateTime": moment})
    for referral_id in ids[15:18]:
        await control.delete(referral_id)
    return "4 created, 6 with a new value, 4 won, 5 edited at the same 100 ns, 3 deleted"


async def _look(url: str, database: Database, out: Console) -> None:
    async with database.transaction() as connection:
        for title, query in QUERIES:
            out.print(_table(title, await connection.fetch(query)))
    async with connect(url) as connection:
        version = await connection.fetchval("SHOW server_version")
    out.print(f"\nThese came from the schema bi in PostgreSQL {version}. To try on your own copy:")
    for line in (
        "SELECT * FROM bi.referrals WHERE respond_by < now() + interval '3 days' ORDER BY respond_by;",
        "SELECT id, name, deal_value, currency FROM bi.referrals WHERE category = 'Co-sell' AND status = 'Active';",
        "SELECT valid_from, changed_columns FROM partner_center.referral_history WHERE referral_id = '...';",
    ):
        out.print(f"  {line}")


async def _stay_up(settings: Settings, database: Database, url: str, folder: Path, out: Console) -> None:
    report = folder / "report.html"
    report.write_text(page(await analysis(database), datetime.now(UTC), load_templates()), encoding="utf-8")
    reader = await embedded.reader_address(folder, url)
    origin = f"http://{settings.http.listen}"
    quiet = settings.notify.model_copy(update={"channels": {}})  # the one that was shown leads nowhere
    daemon = asyncio.create_task(serve(settings.model_copy(update={"notify": quiet})))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # the terminal was closed: leave nothing, as after Ctrl-C
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, daemon.cancel)
    try:
        await _until_ready(origin, daemon)
        if not daemon.done():
            out.print("\nThe demo stays up until Ctrl-C; the daemon looks for changes every 10 seconds.")
            for what, where in (
                ("status page", f"{origin}/"),
                ("report", report),
                ("database", url),
                ("the same for dashboards", reader),
            ):
                out.print(f"  {what:24} {where}")
        await daemon
    finally:
        daemon.cancel()
        await asyncio.wait({daemon})


async def _until_ready(origin: str, daemon: asyncio.Task[int]) -> None:
    async with aiohttp.ClientSession() as session:
        while not daemon.done():
            with suppress(aiohttp.ClientError):
                async with session.get(f"{origin}/readyz") as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(0.05)


def _free_address() -> str:
    """Return where the status page goes: where it usually is, if that is free."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _table(title: str, rows: list[asyncpg.Record]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for name in rows[0].keys() if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(
                "-" if value is None else f"{value:,}" if isinstance(value, int) else escape.line(str(value))
                for value in row
            )
        )
    return table


@asynccontextmanager
async def _simulator(count: int) -> AsyncIterator[str]:
    """Run the simulator as a process of its own, which ends with this one; its origin. Ctrl-C is for this one only."""
    command = [sys.executable, "-m", "worker", "simulate", "--until-stdin-ends", "--count", str(count), "--port=0"]
    with subprocess.Popen(  # noqa: ASYNC220, S603 - our own module; waiting for its first line is all there is to do
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            origin = process.stdout.readline().strip() if process.stdout is not None else ""
            if not origin:
                raise SyncError("The simulator did not start.", "Run `referral-sync simulate` to see why.")
            yield origin
        finally:
            process.terminate()
