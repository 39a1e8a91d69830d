"""What integration tests share: an account's pipeline from the simulator to the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from worker.auth.tokens import static_token
from worker.demo.control import Control
from worker.source.client import open_client
from worker.store.database import open_database
from worker.sync.pipeline import Pipeline

ACCOUNT = "contoso"


@pytest.fixture
async def pipeline(database_url: str, simulator: Control, simulator_origin: str) -> AsyncIterator[Pipeline]:
    """Give the pipeline of one account, with readers for a backfill."""
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
