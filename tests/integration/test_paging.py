"""Reading windows from a server that moves, repeats, hides and lies."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.steps import assert_same_as_source, reconcile_once
from worker.demo.control import Control
from worker.errors import SourceContradicted, SourceError, SyncError
from worker.model import instant
from worker.model.instant import Instant
from worker.model.record import Ended, Page
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.capabilities import probe
from worker.source.checks import Anchor
from worker.source.client import Client
from worker.source.paging import pages
from worker.source.scan import ends_after
from worker.store import checkpoints
from worker.sync.backfill import backfill
from worker.sync.incremental import incremental
from worker.sync.pipeline import Pipeline
from worker.sync.run import recorded
from worker.sync.untimed import elsewhere

ALL = Window(TimeField.UPDATED)
KEYSET, SCAN, SWEEP = (Strategy(method) for method in Paging)
LATER = "2024-06-01T00:00:00.0000000Z"


@pytest.fixture
def client(pipeline: Pipeline) -> Client:
    return pipeline.client


async def read(client: Client, window: Window, strategy: Strategy, anchor: Anchor | None = None) -> list[Page]:
    async with aclosing(pages(client, window, strategy, anchor)) as found:
        return [page async for page in found]


def ids(found: list[Page]) -> set[str | None]:
    return {record.id for page in found for record in page.records}


def assert_checkpoints_pass_nothing(found: list[Page], source: dict[str, str], window: Window) -> None:
    """At no time may a position have passed a record that was not given out before."""
    given = set[str | None]()
    for page in found:
        given |= {record.id for record in page.records}
        if page.through is not None:
            below = {key for key, at in source.items() if (window.lower or 0) <= instant.parse(at) < page.through}
            assert below <= given


async def fill(simulator: Control, count: int, start: datetime, step: timedelta, **members: Any) -> list[str]:
    """Create records `step` apart in both times."""
    records = []
    for number in range(count):
        stamp = instant.render(instant.from_datetime(start + number * step))
        records.append({"createdDateTime": stamp, "updatedDateTime": stamp} | members)
    return [record["id"] for record in await simulator.create(records)]


START = datetime(2024, 5, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("strategy", [KEYSET, SCAN, SWEEP], ids=lambda strategy: strategy.paging.value)
@pytest.mark.parametrize("link", ["documented", "relative", "full"])
@pytest.mark.parametrize("semantics", ["offset", "keyset"])
async def test_every_paging_strategy_gives_everything(
    strategy: Strategy, link: str, semantics: str, client: Client, simulator: Control
) -> None:
    await simulator.reset(130)
    await simulator.behaviour(page_size=20, link=link, paging=semantics)
    found = await read(client, ALL, strategy)
    source = (await simulator.state())["referrals"]
    assert ids(found) == set(source)
    assert_checkpoints_pass_nothing(found, source, ALL)
    newest = max(instant.parse(at) for at in source.values())
    if strategy is SWEEP:
        assert found[-1].through is not None
        assert found[-1].through <= newest, "the newest that the first answer showed"
    else:
        assert found[-1].through == newest


@pytest.mark.parametrize("ties", ["by_id", "random"])
@pytest.mark.parametrize("place", ["start", "middle", "end", "whole"])
async def test_a_group_of_equal_times_longer_than_a_page(
    place: str, ties: str, client: Client, simulator: Control
) -> None:
    before = 30 if place in ("middle", "end") else 0
    after = 30 if place in ("middle", "start") else 0
    await fill(simulator, before, START, MINUTE)
    await fill(simulator, 75, START + 60 * MINUTE, timedelta(0))
    await fill(simulator, after, START + 61 * MINUTE, MINUTE)
    await simulator.behaviour(page_size=50 if ties == "random" else 10, ties=ties)
    source = (await simulator.state())["referrals"]
    for lower in (None, Instant(0), instant.from_datetime(START + 60 * MINUTE)):
        window = Window(TimeField.UPDATED, lower)
        try:
            found = await read(client, window, KEYSET)
        except SourceContradicted:
            assert ties == "random", "a list that is shuffled each time may be rejected, never believed"
            continue
        expected = {key for key, at in source.items() if instant.parse(at) >= (lower or 0)}
        assert ids(found) >= expected
        assert_checkpoints_pass_nothing(found, source, window)


@pytest.mark.parametrize("strategy", [KEYSET, SCAN], ids=lambda strategy: strategy.paging.value)
async def test_equal_times_laid_out_anew_for_each_page_are_never_believed_too_early(
    strategy: Strategy, client: Client, simulator: Control
) -> None:
    """Two passes that lack the same record do agree: with a group of four over two pages, one time in thirty or so."""
    await fill(simulator, 2, START, MINUTE)
    await fill(simulator, 6, START + 60 * MINUTE, timedelta(0))
    await simulator.behaviour(page_size=5, ties="random")
    source = (await simulator.state())["referrals"]
    whole = 0
    for _ in range(60):
        with suppress(SourceContradicted):
            found = await read(client, ALL, strategy)
            assert_checkpoints_pass_nothing(found, source, ALL)
            if found[-1].through is not None:
                assert ids(found) == set(source)
                whole += 1
    assert whole > 20, "mostly it comes to an end"


async def test_each_request_overlaps_the_last_and_uses_seven_digits(client: Client, simulator: Control) -> None:
    await fill(simulator, 25, START, MINUTE)
    await simulator.behaviour(page_size=10)
    await simulator.clear_requests()
    found = await read(client, Window(TimeField.UPDATED, Instant(0)), KEYSET)
    assert [len(page.records) for page in found] == [10, 9, 6], "each is shown once"
    queries = [request["path"] for request in await simulator.requests()]
    assert "ge%202024-05-01T10:09:00.0000000Z" in queries[1]


@pytest.mark.parametrize("apart", [290, 700])
async def test_a_literal_that_is_rounded_up_hides_nothing(apart: int, client: Client, simulator: Control) -> None:
    """Pages begin in the middle of a second: what the rounding hides is read again a second lower."""
    created = await fill(simulator, 60, START, timedelta(milliseconds=apart))
    await simulator.behaviour(page_size=10, literal_rounding="second")
    found = await read(client, Window(TimeField.UPDATED, Instant(0)), KEYSET)
    assert ids(found) == set(created)


async def test_a_server_that_hides_more_than_can_be_read_again_is_contradicted(
    client: Client, simulator: Control
) -> None:
    """So many records in a second that no page reaches the bound again, where by id they still are."""
    await fill(simulator, 90, START, timedelta(milliseconds=37))
    await simulator.behaviour(page_size=10, literal_rounding="second")
    with pytest.raises(SourceContradicted, match="left out"):
        await read(client, Window(TimeField.UPDATED, Instant(0)), KEYSET)


@pytest.mark.parametrize("edit", ["bound", "all_of_page", "deleted", "inserted"])
@pytest.mark.parametrize("strategy", [KEYSET, SCAN], ids=lambda strategy: strategy.paging.value)
async def test_rows_that_move_between_two_pages(
    edit: str, strategy: Strategy, client: Client, simulator: Control
) -> None:
    created = await fill(simulator, 40, START, MINUTE)
    await simulator.behaviour(page_size=10)
    newest_first = strategy.paging is Paging.SCAN
    shown = created[::-1] if newest_first else created
    found = list[Page]()
    async with aclosing(pages(client, ALL, strategy)) as stream:
        async for page in stream:
            found.append(page)
            if len(found) == 1:
                match edit:
                    case "bound":
                        await simulator.update(shown[9], {"status": "Closed"})
                    case "all_of_page":
                        for key in shown[:10]:
                            await simulator.update(key, {"status": "Closed"})
                    case "deleted":
                        await simulator.delete(shown[9])
                    case _:
                        await simulator.create([{} for _ in range(3)])
    if strategy.paging is Paging.KEYSET:
        expected = set((await simulator.state())["referrals"]) | ({shown[9]} if edit == "deleted" else set())
        assert ids(found) == expected
    else:
        lost = {shown[10]} if edit == "deleted" else set()
        assert ids(found) >= set(created) - lost, "a row that is deleted during a scan can hide its neighbour; no other"


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, "keyset"),
        ({"date_literal": "quoted"}, "keyset"),
        ({"filter_updated": "ignore"}, "scan"),
        ({"filter_updated": "reject"}, "scan"),
        ({"order": "ignore"}, "sweep"),
        ({"order": "reject"}, "sweep"),
        ({"literal_rounding": "second"}, "keyset"),
    ],
    ids=str,
)
async def test_a_probe_sees_what_the_server_does(
    options: dict[str, Any], method: str, client: Client, simulator: Control
) -> None:
    await simulator.reset(300)
    await simulator.behaviour(**options)
    found, _ = await probe(client, TimeField.UPDATED)
    assert (found.paging.value, found.conclusive) == (method, True), found.evidence
    assert found.quoted == (options.get("date_literal") == "quoted")


async def test_a_first_page_without_any_time_shows_no_order(client: Client, simulator: Control) -> None:
    await simulator.reset(10)
    await simulator.behaviour(page_size=2)
    for key in sorted((await simulator.state())["referrals"])[:2]:
        await simulator.update(key, {"createdDateTime": None})
    found, _ = await probe(client, TimeField.CREATED)
    assert (found.paging, found.conclusive) == (Paging.SWEEP, False)


@pytest.mark.parametrize("count", [0, 1])
async def test_too_little_to_see_is_no_proof(count: int, client: Client, simulator: Control) -> None:
    await fill(simulator, count, START, MINUTE)
    found, _ = await probe(client, TimeField.UPDATED)
    assert (found.paging, found.conclusive) == (Paging.SWEEP, False)
    assert len(ids(await read(client, ALL, found))) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [({"filter_updated": "ignore"}, "honour its filter"), ({"order": "ignore"}, "keep the order")],
    ids=str,
)
async def test_a_server_that_stops_honouring_is_contradicted(
    options: dict[str, Any], said: str, client: Client, simulator: Control
) -> None:
    await simulator.reset(300)
    await simulator.behaviour(**options)
    middle = sorted(instant.parse(at) for at in (await simulator.state())["referrals"].values())[150]
    with pytest.raises(SourceContradicted, match=said):
        await read(client, Window(TimeField.UPDATED, middle), KEYSET)
    assert client.traffic.requests == 1, "seen on the first page"


async def test_a_filter_that_hides_the_newest_known_record_is_contradicted(client: Client, simulator: Control) -> None:
    created = await fill(simulator, 20, START, MINUTE)
    anchor = Anchor(created[-1], instant.from_datetime(START + 19 * MINUTE))
    window = Window(TimeField.UPDATED, instant.from_datetime(START + 10 * MINUTE))
    assert len(ids(await read(client, window, KEYSET, anchor))) == 10
    await simulator.delete(created[-1])
    assert len(ids(await read(client, window, KEYSET, anchor))) == 9, "deleted at the source is no lie"
    for key in created[10:19]:
        await simulator.delete(key)
    await simulator.clear_requests()
    assert ids(await read(client, window, KEYSET)) == set()
    assert len(await simulator.requests()) == 2, "an empty answer is believed after an unfiltered look"


@pytest.mark.parametrize("kind", ["repeat_link", "endless"])
@pytest.mark.parametrize("strategy", [SCAN, SWEEP], ids=lambda strategy: strategy.paging.value)
async def test_a_circle_of_links_ends_the_run(
    kind: str, strategy: Strategy, client: Client, simulator: Control
) -> None:
    await simulator.reset(300)
    await simulator.faults({"kind": kind, "times": -1})
    with pytest.raises(SourceError, match="circle"):
        await read(client, ALL, strategy)
    await simulator.clear_faults()
    assert client.traffic.requests < 20


async def test_a_link_to_another_host_is_never_followed_there(client: Client, simulator: Control) -> None:
    await simulator.reset(150)
    await simulator.faults({"kind": "garbage_link", "times": 1})
    with pytest.raises(SourceError):
        await read(client, ALL, SCAN)
    assert all(request["path"].startswith("/v1.0/engagements/referrals") for request in await simulator.requests())


async def test_the_same_id_twice_on_a_page_is_no_error(client: Client, simulator: Control) -> None:
    await simulator.reset(50)
    await simulator.faults({"kind": "duplicate_rows", "times": 1})
    assert ids(await read(client, ALL, KEYSET)) == set((await simulator.state())["referrals"])


@pytest.mark.parametrize("strategy", [KEYSET, SCAN, SWEEP], ids=lambda strategy: strategy.paging.value)
async def test_what_is_dated_in_the_future_moves_nothing(
    strategy: Strategy, client: Client, simulator: Control
) -> None:
    await fill(simulator, 30, START, MINUTE)
    await fill(simulator, 15, datetime(2999, 1, 1, tzinfo=UTC), timedelta(0))
    await simulator.behaviour(page_size=10 if strategy is KEYSET else 100)
    found = await read(client, ALL, strategy)
    assert len(ids(found)) == 45
    newest = max(page.through for page in found if page.through is not None)
    assert newest == instant.from_datetime(START + 29 * MINUTE)


async def test_records_without_a_time_take_no_part(client: Client, simulator: Control) -> None:
    await fill(simulator, 30, START, MINUTE)
    for number in range(15):
        key = f"00000000-0000-0000-0000-0000000000{number:02}"
        await simulator.raw(key, b'{"id":"%s","updatedDateTime":null}' % key.encode())
    await simulator.behaviour(page_size=10)
    for strategy in (KEYSET, SCAN, SWEEP):
        assert len(ids(await read(client, ALL, strategy))) == 45


async def backfill_all(pipeline: Pipeline) -> None:
    async with recorded(pipeline, "backfill") as run:
        await backfill(pipeline, run, None, None)


async def sync_once(pipeline: Pipeline) -> None:
    watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
    assert watermark is not None
    async with recorded(pipeline, "incremental") as run:
        await incremental(pipeline, run, watermark)


async def copy(db: asyncpg.Connection) -> dict[str, str]:
    rows = await db.fetch(
        "SELECT id, payload ->> 'updatedDateTime' AS at FROM partner_center.referrals ORDER BY created_at, id"
    )
    return {row["id"]: row["at"] for row in rows}


@pytest.mark.parametrize("options", [{"filter_updated": "ignore"}, {"filter_updated": "reject"}], ids=str)
async def test_a_sync_falls_back_and_is_complete(
    options: dict[str, Any], pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(250)
    await backfill_all(pipeline)
    await sync_once(pipeline)
    await simulator.behaviour(**options)
    for key in list(await copy(db))[:20]:
        await simulator.update(key, {"status": "Closed"})
    await sync_once(pipeline)
    assert await copy(db) == (await simulator.state())["referrals"]
    assert await db.fetchval("SELECT paging FROM sync.capabilities WHERE field = 'updatedDateTime'") == "scan"


@pytest.mark.parametrize("method", [Paging.SCAN, Paging.SWEEP])
async def test_a_listing_that_ends_without_what_it_must_hold_moves_nothing(
    method: Paging, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """The link to the next page is left out, so the listing looks whole; the row at the watermark tells otherwise."""
    await simulator.reset(60)
    await simulator.behaviour(page_size=10)
    await backfill_all(pipeline)
    before = await db.fetchval("SELECT checkpoint FROM sync.watermarks")
    for key in list(await copy(db))[:25]:
        await simulator.update(key, {"status": "Closed"})
    await simulator.faults({"kind": "no_link", "times": -1})
    with pytest.raises(SourceError, match="was not whole"):
        await sync_once(replace(pipeline, paging=method))
    await simulator.clear_faults()
    assert await db.fetchval("SELECT checkpoint FROM sync.watermarks") == before
    await sync_once(replace(pipeline, paging=method))
    assert await copy(db) == (await simulator.state())["referrals"]


@pytest.mark.parametrize("strategy", [KEYSET, SCAN], ids=lambda strategy: strategy.paging.value)
async def test_links_that_were_not_seen_to_hold_are_not_followed(
    strategy: Strategy, client: Client, simulator: Control
) -> None:
    await fill(simulator, 20, START, timedelta(0))
    await simulator.behaviour(page_size=7)
    with pytest.raises(SourceContradicted, match="links were not seen to hold"):
        await read(client, ALL, replace(strategy, links=False))
    assert all("skiptoken" not in request["path"] for request in await simulator.requests())


@pytest.mark.parametrize("options", [{}, {"filter_updated": "ignore", "filter_created": "ignore"}], ids=str)
async def test_links_that_do_not_carry_the_query_are_not_relied_on(
    options: dict[str, Any], pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Such a link leads into a listing without filter or order: groups of equal times would lose their rest."""
    await fill(simulator, 5, START - timedelta(hours=1), MINUTE)
    for second in range(12):  # all within the minute that a literal may be rounded by
        await fill(simulator, 3, START + second * timedelta(seconds=4), timedelta(0))
    await simulator.behaviour(page_size=2, token_carries_query=False, **options)
    await backfill_all(pipeline)
    assert await copy(db) == (await simulator.state())["referrals"]
    assert not await db.fetchval("SELECT bool_or(links) FROM sync.capabilities")
    tied = await simulator.create([{} for _ in range(20)])
    for record in tied:
        await simulator.update(record["id"], {"updatedDateTime": tied[-1]["updatedDateTime"]})
    await sync_once(pipeline)
    assert await copy(db) == (await simulator.state())["referrals"]


class Restless:
    """A client that lets the source change between any two requests."""

    def __init__(self, client: Client, simulator: Control, seed: int) -> None:
        self._client = client
        self._simulator = simulator
        self._dice = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def list(self, query: str) -> Any:
        listing = await self._client.list(query)
        known = list((await self._simulator.state())["referrals"])
        for _ in range(self._dice.randrange(4)):
            if self._dice.random() < 0.6:
                await self._simulator.update(self._dice.choice(known), {"salesStage": str(self._dice.random())})
            else:
                await self._simulator.create([{}])
        return listing


@pytest.fixture
def restless(pipeline: Pipeline, simulator: Control) -> Callable[[int], Pipeline]:
    def moving(seed: int) -> Pipeline:
        client: Any = Restless(pipeline.client, simulator, seed)
        return Pipeline(pipeline.account, pipeline.database, client, overlap=timedelta(0))

    return moving


@pytest.mark.parametrize("semantics", ["offset", "keyset"])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_moves_while_it_is_read_the_next_quiet_sync_makes_it_equal(
    seed: int,
    semantics: str,
    restless: Callable[[int], Pipeline],
    pipeline: Pipeline,
    simulator: Control,
    db: asyncpg.Connection,
) -> None:
    await simulator.reset(120)
    await simulator.behaviour(page_size=7, paging=semantics)
    moving = restless(seed)
    await backfill_all(moving)
    for _ in range(3):
        await sync_once(moving)
    await sync_once(pipeline)
    assert await copy(db) == (await simulator.state())["referrals"]


async def test_a_sweep_that_broke_off_is_not_whole_because_newer_records_lie_behind(
    pipeline: Pipeline, simulator: Control
) -> None:
    """The record without a time lies behind others that are newer than where the sweep began."""
    await simulator.reset(12)
    keys = sorted((await simulator.state())["referrals"])
    for number, key in enumerate(keys):
        created = None if number == len(keys) - 1 else f"2024-01-{number + 1:02}T00:00:00Z"
        await simulator.update(key, {"createdDateTime": created})
    await simulator.behaviour(page_size=1, link_omitted="every_fifth", untimed="hidden")
    try:
        found = [page async for page in elsewhere(pipeline, None, TimeField.CREATED)]
    except SourceContradicted:
        return  # refused is right as well: what must not be is an end without that record
    assert keys[-1] in {record.id for page in found for record in page.records} or found[-1].ended is Ended.UNVERIFIED


@pytest.mark.parametrize("timed", [0, 1, 2, 3, 6])
async def test_what_is_verified_is_whole_however_small_the_pages_are(
    timed: int, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Pages of one record, links missing, and most records without a creation time, which an order hides."""
    await simulator.reset(12)
    for key in sorted((await simulator.state())["referrals"])[timed:]:
        await simulator.update(key, {"createdDateTime": None})
    await simulator.behaviour(
        page_size=1, untimed="hidden", link_omitted="every_fifth", short_pages=True, ties="random", paging="offset"
    )
    try:
        await backfill_all(pipeline)
        verified = not (await reconcile_once(pipeline)).unverified
    except SyncError:
        return  # refused is right as well: equal times come in another order with each request
    if verified:
        await assert_same_as_source(db, simulator)


async def test_a_server_that_does_not_skip_shows_no_end(client: Client, simulator: Control) -> None:
    await simulator.reset(5)
    await client.list("")
    await simulator.behaviour(page_size=1, link_omitted="always", skip=False)
    assert not await ends_after(client, 3)
    await simulator.behaviour(skip=True)
    assert await ends_after(client, 5)
    assert not await ends_after(client, 6)
    assert not await ends_after(client, 0)


async def test_the_first_watermark_passes_nothing_where_no_end_can_be_verified(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """The order was honest when it was looked at, the links behind it were not, and nothing else tells."""
    await simulator.reset(29, seed=29)
    for second, key in enumerate(sorted((await simulator.state())["referrals"])[1:]):
        await simulator.update(key, {"createdDateTime": f"2026-06-01T00:00:{second:02}Z"}, silent=True)
    await simulator.behaviour(
        ties="random", end_link="empty", skip=False, page_size=1, link_omitted="every_fifth", filter_updated="reject",
        date_literal="quoted", literal_rounding="second",
    )  # fmt: skip
    await backfill_all(pipeline)
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") < 29, "some were not shown"
    watermark = await checkpoints.watermark(pipeline.database, "contoso")
    assert watermark is not None
    stored = {row["id"] for row in await db.fetch("SELECT id FROM partner_center.referrals")}
    missing = [at for key, at in (await simulator.state())["referrals"].items() if key not in stored]
    assert not [at for at in missing if instant.parse(at) < watermark]
