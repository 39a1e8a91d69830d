"""PostgreSQL is unreachable for a while: what was in hand ends as it would have, and nothing waits for the slowest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from tests.support.conditions import until
from tests.support.proxy import Proxy
from worker.daemon.workers import Lane, Workers
from worker.errors import StoreUnavailable
from worker.store import queue, runs
from worker.store.database import Database, open_database
from worker.store.queue import Job, Taken

JOBS = "SELECT entrypoint, status::text FROM queue.pgqueuer ORDER BY 1"


@dataclass(slots=True)
class Line:
    """The way to the database of a test, and how it is cut; and one that is not."""

    proxy: Proxy
    target: tuple[str, int]
    database: Database
    direct: Database

    def cut(self) -> None:
        """Reset every connection, and let new ones find nobody."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.proxy.target = ("127.0.0.1", free.getsockname()[1])
        self.proxy.reset_all()

    async def refused(self, attempts: int) -> None:
        """Wait until connections were tried so often more, and in vain."""
        wanted = self.proxy.connections + attempts
        await until(lambda: _true(self.proxy.connections >= wanted), "tried again")

    def mend(self) -> None:
        """Let new connections through again."""
        self.proxy.target = self.target


async def _true(value: bool) -> bool:
    return value


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[Line]:
    async with Proxy(database_url) as proxy:
        through = proxy.url_of(database_url)
        async with (
            open_database(through, connections=6) as database,
            open_database(database_url, connections=1) as direct,
        ):
            yield Line(proxy, proxy.target, database, direct)


@asynccontextmanager
async def at_work(workers: Workers) -> AsyncIterator[None]:
    stopped = asyncio.Event()
    working = asyncio.create_task(workers.work_until(stopped))
    try:
        yield
    finally:
        stopped.set()
        await working


async def put_in(line: Line, *names: str) -> None:
    async with line.direct.transaction() as connection:
        await queue.enqueue(connection, [Job("incremental", name, f"incremental:{name}") for name in names])


async def test_a_lane_goes_on_after_an_outage_though_one_of_its_jobs_still_waits(
    line: Line, db: asyncpg.Connection
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    done = list[str]()

    async def handle(job: Taken, _: int) -> float:
        if job.account == "slow":
            begun.set()
            await release.wait()
        done.append(job.account)
        return 0.0

    async with at_work(Workers(line.database, [Lane("quick", ["incremental"], 4)], handle)):
        await put_in(line, "slow")
        await begun.wait()
        line.cut()
        await line.refused(3)
        line.mend()
        await put_in(line, "other")
        await until(lambda: _true(done == ["other"]), "gone on")
        release.set()
        await until(lambda: _none_left(db), "done")
    assert done == ["other", "slow"], "each once"


async def test_a_job_that_ends_during_an_outage_is_not_in_hand_after_it(line: Line, db: asyncpg.Connection) -> None:
    """Else its account would wait until its heartbeat is stale, for its name is taken."""
    begun, release = set[str](), asyncio.Event()
    asked_again = list[int]()

    async def handle(job: Taken, attempts: int) -> float:
        begun.add(job.account)
        if job.account == "broken" and attempts == 0:
            await release.wait()
            return 0.5
        if job.account == "done":
            await release.wait()
        else:
            asked_again.append(attempts)
        return 0.0

    async with at_work(Workers(line.database, [Lane("quick", ["incremental"], 4)], handle)):
        await put_in(line, "done", "broken")
        await until(lambda: _true(len(begun) == 2), "in hand")
        line.cut()
        await line.refused(1)
        release.set()
        await line.refused(3)
        line.mend()
        stale = "SELECT count(*) FROM queue.pgqueuer WHERE heartbeat < now() - interval '30 seconds'"
        while not await _none_left(db):
            assert await db.fetchval(stale) == 0, "not by a heartbeat that is stale"
            await asyncio.sleep(0.05)
    assert asked_again == [1]


async def test_a_run_that_lost_the_database_is_over_when_it_is_back(line: Line, db: asyncpg.Connection) -> None:
    """Its account would else wait for the end of a lease that nobody has."""

    async def works() -> None:
        async with runs.recorded(line.database, "contoso", "incremental"):
            line.cut()
            async with line.database.transaction():
                raise AssertionError("unreachable")

    working = asyncio.create_task(works())
    await line.refused(6)
    line.mend()
    with pytest.raises(StoreUnavailable):
        await working
    assert await db.fetchval("SELECT outcome FROM sync.runs") == "failed"
    assert await db.fetchval("SELECT expires_at <= now() FROM sync.leases")


async def _none_left(db: asyncpg.Connection) -> bool:
    return await db.fetch(JOBS) == []
