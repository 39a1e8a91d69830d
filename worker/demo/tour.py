"""The demo: the whole pipeline on one machine in about a minute, and nothing left running."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from worker import wiring
from worker.commands.progress import progress
from worker.config.models import load
from worker.database import pool_size, refresh_history
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.errors import SyncError
from worker.logs import configure
from worker.store import migrate
from worker.store.database import Database, connect, open_database
from worker.sync.pipeline import Pipeline, Step

ACCOUNT = "contoso"
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


async def tour(count: int, out: Console) -> int:
    """Load `count` made-up referrals, change some, tick, reconcile, and print what an analyst then sees."""
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
                },
                Path(folder),
            )
            async with open_database(url, connections=pool_size(settings)) as database, Control(origin) as control:
                async with wiring.open_pipeline(settings, database, ACCOUNT) as pipeline:
                    await _work(pipeline, control, out)
                await refresh_history(database)
                await _look(url, database, out)
    out.print(f"\nDone in {time.monotonic() - started:.0f} s; nothing is left running.")
    return 0


async def _work(pipeline: Pipeline, control: Control, out: Console) -> None:
    began = time.monotonic()
    with _watched(pipeline) as watched:
        counts = await wiring.sync_account(watched)
    out.print(f"First load: {counts.inserted} referrals in {time.monotonic() - began:.1f} s.")
    told = await _change(control)
    out.print(f"At the source: {told}.")
    await control.clear_requests()
    counts = await wiring.sync_account(pipeline)
    requests = len(await control.requests())
    out.print(f"A tick: {counts.inserted} inserted, {counts.updated} updated, in {requests} request(s).")
    await control.clear_requests()
    counts = await wiring.sync_account(pipeline)
    requests = len(await control.requests())
    out.print(f"An idle tick: {counts.inserted + counts.updated} rows written, in {requests} request(s).")
    with _watched(pipeline) as watched:
        found = await wiring.reconcile_account(watched)
    out.print(
        f"A reconcile: {found.counts.unchanged} as they should be, {found.vanished} deleted at the source and marked."
    )


@contextmanager
def _watched(pipeline: Pipeline) -> Iterator[Pipeline]:
    with progress() as report:

        def show(step: Step) -> None:
            report(step.account, step.kind, step.counts.records, step.done, step.total)

        yield replace(pipeline, progress=show)


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
        out.print(f"  {line}", markup=False)


def _table(title: str, rows: list[asyncpg.Record]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for name in rows[0].keys() if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(
            *("-" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row)
        )
    return table


@asynccontextmanager
async def _simulator(count: int) -> AsyncIterator[str]:
    """Run the simulator as a process of its own; its origin."""
    command = [sys.executable, "-m", "worker.demo.simulator", "--count", str(count), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220, S603 - our own module; waiting for its first line is all there is to do
        try:
            origin = process.stdout.readline().strip() if process.stdout is not None else ""
            if not origin:
                raise SyncError("The simulator did not start.", "Run `referral-sync simulate` to see why.")
            yield origin
        finally:
            process.terminate()
