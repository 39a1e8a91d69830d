"""What integration tests share: an account's pipeline from the simulator to the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.steps import open_simulated
from worker.demo.control import Control
from worker.store.database import Database, open_database
from worker.sync.pipeline import Pipeline


@pytest.fixture
async def pipeline(database_url: str, simulator: Control, simulator_origin: str) -> AsyncIterator[Pipeline]:
    """Give the pipeline of one account, with readers for a backfill."""
    async with open_simulated(database_url, simulator_origin) as opened:
        yield opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a pool of connections to the test's database."""
    async with open_database(database_url, connections=8) as opened:
        yield opened
