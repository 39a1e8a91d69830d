"""Steps that many tests take: load, tick, prove, and compare the copy with the source."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from worker.auth.tokens import static_token
from worker.demo.control import Control
from worker.model.counts import Counts
from worker.model.instant import Instant
from worker.source.client import open_client
from worker.store import leases, positions
from worker.store.database import open_database
from worker.sync.backfill import backfill
from worker.sync.incremental import incremental
from worker.sync.pipeline import Pipeline
from worker.sync.reconcile import Reconciled, reconcile

ACCOUNT = "contoso"

MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
"""What a process under test needs in its environment to be measured by `make coverage`."""

TALLY = Counter[str]()
"""What a session came to: kills, faults, rows compared. Printed at its end."""


@asynccontextmanager
async def open_simulated(database_url: str, simulator_origin: str) -> AsyncIterator[Pipeline]:
    """Open one account's way from the simulator to a database, with readers for a backfill."""
    async with (
        open_database(database_url, connections=6) as database,
        open_client(
            base_url=simulator_origin,
            token=static_token("simulator", "accounts.contoso.access_token"),
            clock=await database.clock(),
            ca_file=None,
            max_page_bytes=1 << 26,
        ) as client,
    ):
        yield Pipeline(ACCOUNT, database, client, overlap=timedelta(minutes=10))


async def load(pipeline: Pipeline, since: Instant | None = None, until: Instant | None = None) -> Counts:
    async with leases.run(pipeline.database, pipeline.account, "backfill") as run:
        return (await backfill(pipeline, run, since, until)).counts


async def tick(pipeline: Pipeline) -> Counts:
    watermark = await positions.watermark(pipeline.database, pipeline.account)
    assert watermark is not None
    async with leases.run(pipeline.database, pipeline.account, "incremental") as run:
        return await incremental(pipeline, run, watermark)


async def prove(pipeline: Pipeline, *, accept_vanished: bool = False) -> Reconciled:
    async with leases.run(pipeline.database, pipeline.account, "reconcile") as run:
        return await reconcile(pipeline, run, accept_vanished=accept_vanished)


async def listing_requests(simulator: Control) -> int:
    return len([r for r in await simulator.requests() if r["path"].startswith("/v1.0/engagements/referrals")])


async def crash(data_dir: Path) -> None:
    """Shut an embedded server down at once, which is a crash as far as what is stored goes, and see it gone."""
    postmaster = int((data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGQUIT)
    with suppress(ProcessLookupError):
        while True:
            os.kill(postmaster, 0)
            await asyncio.sleep(0.05)


async def assert_level(db: asyncpg.Connection, simulator: Control) -> None:
    """The copy's live rows are the source's, id by id and member by member."""
    rows = await db.fetch("SELECT id, payload FROM partner_center.referrals WHERE deleted_at IS NULL")
    copy = {row["id"]: _content(json.loads(row["payload"])) for row in rows}
    records = (await simulator.state(full=True))["records"]
    source = {key: _content(json.loads(json.dumps(record, default=float))) for key, record in records.items()}
    TALLY["rows compared"] += len(source)
    assert copy.keys() == source.keys(), f"only here: {copy.keys() - source}; missing: {source.keys() - copy.keys()}"
    assert {key for key in copy if copy[key] != source[key]} == set()


async def assert_chain(db: asyncpg.Connection) -> None:
    """The versions of each referral follow one another without a hole or an overlap, and one is open."""
    broken = await db.fetch(
        """
        SELECT referral_id FROM (
            SELECT account, referral_id, valid_from, valid_to,
                lead(valid_from) OVER (PARTITION BY account, referral_id ORDER BY valid_from) AS next_from
            FROM partner_center.referral_history
        ) v WHERE valid_to IS DISTINCT FROM next_from
        """
    )
    TALLY["histories checked"] += 1
    assert broken == []
    without = await db.fetchval(
        """
        SELECT count(*) FROM partner_center.referrals r WHERE (
            SELECT count(*) FROM partner_center.referral_history v
            WHERE v.account = r.account AND v.referral_id = r.id AND v.valid_to IS NULL
        ) <> 1
        """
    )
    assert without == 0


def _content(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says; a member that is null says as much as one that is absent."""
    said = {key: value for key, value in record.items() if key not in ("eTag", "links") and not key.startswith("@")}
    return {
        key: _content(value) if isinstance(value, dict) else value for key, value in said.items() if value is not None
    }
