"""Between reading and saving: what waits goes together, in its order, no more than fits, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support.pages import page, referral
from tests.support.runs import leased
from worker.errors import SourceUnavailable, StoreError
from worker.model import instant
from worker.model.counts import Counts, WatermarkCheckpoint, WindowCheckpoint
from worker.model.mapping import Mapped, MappedPage, map_pages
from worker.store.database import open_database
from worker.sync.drain import GROUP_ROWS, Writer, drain, writing
from worker.sync.run import Run, mapped


class Seen:
    """What a writer told of each save."""

    def __init__(self) -> None:
        self.saves: list[Counts] = []
        self.ids: list[set[str]] = []

    def __call__(self, mapped: Mapped, saved: Counts) -> None:
        self.saves.append(saved)
        self.ids.append(mapped.ids)


@asynccontextmanager
async def writer_of(url: str, seen: Seen) -> AsyncIterator[Writer]:
    async with (
        open_database(url, connections=3) as database,
        leased(database, "contoso", "incremental") as lease,
        writing(database, Run(lease), seen) as writer,
    ):
        yield writer


async def one_is_being_saved(db: asyncpg.Connection) -> None:
    """Wait until a save waits for the lease, which the test holds."""
    while not await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)


async def test_what_waits_while_one_is_written_goes_together(database_url: str, db: asyncpg.Connection) -> None:
    await db.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', 0)")
    seen = Seen()
    async with writer_of(database_url, seen) as writer, db.transaction():
        await db.execute("SELECT FROM sync.leases FOR UPDATE")
        for number in range(8):
            await writer.put(map_pages([page(referral(number))]), WatermarkCheckpoint(instant.Instant(number)))
            if number == 0:
                await one_is_being_saved(db)
    assert [saved.pages for saved in seen.saves] == [1, 7]
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == 7
    assert await db.fetchval("SELECT sum(pages) FROM sync.runs") == 8
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 8


async def test_no_more_waits_than_one_transaction_takes(database_url: str, db: asyncpg.Connection) -> None:
    half = [[referral(100_000 * turn + n) for n in range(GROUP_ROWS // 2)] for turn in range(5)]
    seen = Seen()
    async with writer_of(database_url, seen) as writer:
        async with db.transaction():
            await db.execute("SELECT FROM sync.leases FOR UPDATE")
            await writer.put(map_pages([page(*half[0])]), None)
            await one_is_being_saved(db)
            await writer.put(map_pages([page(*half[1])]), None)
            await writer.put(map_pages([page(*half[2])]), None)
            more = asyncio.create_task(writer.put(map_pages([page(*half[3])]), None))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not more.done()
        await more
    assert [saved.inserted for saved in seen.saves][:2] == [GROUP_ROWS // 2, GROUP_ROWS]


async def test_checkpoints_of_one_save_go_as_far_as_its_last_page(database_url: str, db: asyncpg.Connection) -> None:
    await db.execute(
        "INSERT INTO sync.backfills (id, account, field) OVERRIDING SYSTEM VALUE VALUES (1, 'contoso', 'x')"
    )
    await db.execute(
        "INSERT INTO sync.backfill_windows (id, backfill_id) OVERRIDING SYSTEM VALUE VALUES (1, 1), (2, 1)"
    )
    async with writer_of(database_url, Seen()) as writer, db.transaction():
        await db.execute("UPDATE sync.backfill_windows SET run_id = (SELECT max(id) FROM sync.runs)")
        await db.execute("SELECT FROM sync.leases FOR UPDATE")
        for number, advance in enumerate(
            (
                WindowCheckpoint(1, instant.Instant(5), 10),
                WindowCheckpoint(2, None, 3),
                WindowCheckpoint(1, instant.Instant(9), 10),
                WindowCheckpoint(1, None, 1),
            )
        ):
            await writer.put(map_pages([page(referral(number))]), advance)
            if number == 0:
                await one_is_being_saved(db)
        await writer.move(WindowCheckpoint(1, None, 0, done=True))
    found = await db.fetch(
        "SELECT id, through, records, done_at IS NOT NULL AS done FROM sync.backfill_windows ORDER BY 1"
    )
    assert [tuple(row) for row in found] == [(1, 9, 21, True), (2, None, 3, False)]


async def test_what_was_read_is_stored_when_reading_fails(database_url: str, db: asyncpg.Connection) -> None:
    async def pages() -> AsyncGenerator[MappedPage]:
        for number in range(5):
            yield mapped(None, page(referral(number)))
        raise SourceUnavailable("It broke off.")

    with pytest.raises(SourceUnavailable, match="broke off"):
        async with writer_of(database_url, Seen()) as writer:
            await drain(pages(), writer, lambda _: None)
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 5


async def test_reading_stops_when_writing_fails(database_url: str, db: asyncpg.Connection) -> None:
    """At once, even where the source does not answer any more."""
    closed = asyncio.Event()

    async def pages() -> AsyncGenerator[MappedPage]:
        try:
            yield mapped(None, page(referral()))
            await asyncio.Event().wait()
        finally:
            closed.set()

    await db.execute("ALTER TABLE sync.runs ADD CHECK (pages < 1)")
    with pytest.raises(StoreError, match="check constraint"):
        async with writer_of(database_url, Seen()) as writer:
            await drain(pages(), writer, lambda _: None)
    assert closed.is_set()
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0
