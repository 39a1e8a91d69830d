"""What integration tests share: an account's pipeline from the simulator to the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.steps import open_simulated
from worker.demo.control import Control
from worker.sync.pipeline import Pipeline

ACCOUNT = "contoso"


@pytest.fixture
async def pipeline(database_url: str, simulator: Control, simulator_origin: str) -> AsyncIterator[Pipeline]:
    """Give the pipeline of one account, with readers for a backfill."""
    async with open_simulated(database_url, simulator_origin) as opened:
        yield opened
