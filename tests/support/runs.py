"""Runs of the store alone, for tests of what is written under a lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker.store import runs
from worker.store.database import Database
from worker.store.leases import Lease


@asynccontextmanager
async def leased(database: Database, account: str, kind: str, **options: Any) -> AsyncIterator[Lease]:
    """Record a run, and give the lease that it writes under."""
    async with runs.recorded(database, account, kind, **options) as record:
        yield record.lease
