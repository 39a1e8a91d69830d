"""What is verified is the source, against servers that are odd in ways which the simulator does not know."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.support.odd_api import PAGE, OddApi, Record, made_up, served
from tests.support.steps import backfill_all, open_simulated, reconcile_once, sync_once
from worker.errors import SyncError

LIVE = "SELECT id, payload FROM partner_center.referrals WHERE deleted_at IS NULL"
NOT_VERIFIED = "SELECT not_verified FROM sync.watermarks"


async def copy(db: asyncpg.Connection) -> dict[str, Record]:
    return {row["id"]: json.loads(row["payload"]) for row in await db.fetch(LIVE)}


async def brought_over(api: OddApi, database_url: str) -> str:
    """Load, sync and reconcile; returns why nothing was verified, or nothing."""
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        await sync_once(pipeline)
        return (await reconcile_once(pipeline)).unverified


class HidesClosed(OddApi):
    def filtered(self, rows: list[Record]) -> list[Record]:
        return [row for row in rows if row["status"] != "Closed"]


class HidesOne(OddApi):
    """Too few to meet when it is probed."""

    def filtered(self, rows: list[Record]) -> list[Record]:
        return [row for row in rows if row["name"] != "Deal 57"]


class OrdersWithinAPage(OddApi):
    def page(self, rows: list[Record], at: int, order: str) -> list[Record]:
        del order
        by_id = sorted(rows, key=lambda row: str(row["id"]))[at : at + PAGE]
        return [row for row in rows if row in by_id]


class GoesInACircle(OddApi):
    """Asked for everything, its links lead from the last page to the first, and none is like another."""

    def next_place(self, at: int, shown: int, rows: int, order: str) -> int | None:
        following = super().next_place(at, shown, rows, order)
        return 0 if following is None and not order else following


class OtherCase(OddApi):
    """The listing writes ids in upper case, and lacks what is there by id, so that each is asked for by id."""

    def shown(self, record: Record) -> Record:
        return record | {"id": record["id"].upper()}

    def by_id(self, referral_id: str) -> Record | int:
        found = super().by_id(referral_id.lower())
        return found if isinstance(found, int) else found | {"registrations": []}


@pytest.mark.parametrize("kind", [OddApi, HidesClosed, HidesOne, OrdersWithinAPage, GoesInACircle])
async def test_what_is_verified_is_the_source(kind: type[OddApi], database_url: str, db: asyncpg.Connection) -> None:
    api = kind(made_up(150))
    assert await brought_over(api, database_url) == ""
    assert await copy(db) == api.records


async def test_one_referral_is_one_row_whatever_the_case_of_its_id(database_url: str, db: asyncpg.Connection) -> None:
    api = OtherCase(made_up(50))
    assert await brought_over(api, database_url) == ""
    assert (await copy(db)).keys() == {key.upper() for key in api.records}


async def test_what_is_listed_without_a_filter_is_not_marked_as_deleted(
    database_url: str, db: asyncpg.Connection
) -> None:
    """The filter leaves records out from now on, and a request by id is refused."""

    class Later(HidesClosed):
        hides = False

        def filtered(self, rows: list[Record]) -> list[Record]:
            return [row for row in rows if row["name"] != "Deal 57"] if self.hides else rows

        def by_id(self, referral_id: str) -> Record | int:
            return 403 if self.hides else super().by_id(referral_id)

    api = Later(made_up(150))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        api.hides = True
        assert (await reconcile_once(pipeline)).deleted == 0
    assert await copy(db) == api.records


@pytest.mark.parametrize("status", [403, 404, 410, "older"])
async def test_a_version_that_goes_back_and_cannot_be_confirmed_is_not_called_verified(
    status: int | str, database_url: str, db: asyncpg.Connection
) -> None:
    class Unsure(OddApi):
        unsure = False

        def by_id(self, referral_id: str) -> Record | int:
            found = super().by_id(referral_id)
            if not self.unsure or isinstance(found, int):
                return found
            return found | {"updatedDateTime": "2024-01-01T00:00:00Z"} if isinstance(status, str) else status

    api = Unsure(made_up(50))
    key, before = next(iter(api.records.items()))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        api.records[key] = before | {"name": "ahead", "updatedDateTime": "2025-06-01T00:00:00Z"}
        await backfill_all(pipeline)
        api.records[key], api.unsure = before, True
        assert "an older state" in (await reconcile_once(pipeline)).unverified
        assert "an older state" in await db.fetchval(NOT_VERIFIED)
        api.unsure = False
        assert (await reconcile_once(pipeline)).unverified == ""
    assert await copy(db) == api.records


async def test_a_version_between_is_taken_where_the_listing_lags(database_url: str, db: asyncpg.Connection) -> None:
    """The listing shows the first state, by id there is a later one, and both are older than the copy."""

    class Lags(OddApi):
        first: Record | None = None

        def shown(self, record: Record) -> Record:
            return self.first if self.first is not None and self.first["id"] == record["id"] else record

    api = Lags(made_up(50))
    key, before = next(iter(api.records.items()))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        api.records[key] = before | {"name": "ahead", "updatedDateTime": "2025-06-01T00:00:00Z"}
        await backfill_all(pipeline)
        api.first, api.records[key] = before, before | {"name": "between", "updatedDateTime": "2025-05-01T00:00:00Z"}
        assert (await reconcile_once(pipeline)).unverified == ""
    assert await copy(db) == api.records


async def test_an_empty_listing_of_what_is_there_by_id_verifies_nothing(
    database_url: str, db: asyncpg.Connection
) -> None:
    class Empty(OddApi):
        empty = False

        def page(self, rows: list[Record], at: int, order: str) -> list[Record]:
            return [] if self.empty else super().page(rows, at, order)

        def next_place(self, at: int, shown: int, rows: int, order: str) -> int | None:
            return None if self.empty else super().next_place(at, shown, rows, order)

    api = Empty(made_up(60))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        api.empty = True
        del api.records[next(iter(api.records))]
        try:
            result = await reconcile_once(pipeline)
        except SyncError:
            return  # refused is right as well
        assert "lacks 59 referrals" in result.unverified
        assert result.deleted == 0
    assert len(await copy(db)) == 60


async def test_a_clock_far_ahead_moves_no_watermark_past_our_own(database_url: str, db: asyncpg.Connection) -> None:
    api = OddApi(made_up(50))
    api.headers["Date"] = "Fri, 01 Jan 2100 00:00:00 GMT"
    far, edited = list(api.records)[:2]
    api.records[far]["updatedDateTime"] = "2099-01-01T00:00:00.0000000Z"
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.0000000Z")
        api.records[edited] |= {"name": "edited", "updatedDateTime": now}
        await sync_once(pipeline)
    assert (await copy(db))[edited]["name"] == "edited"


class StaleFilter(OddApi):
    """What is asked for by time comes from an index that lags; what is asked for without is of now."""

    before: Record | None = None

    def filtered(self, rows: list[Record]) -> list[Record]:
        return [self.before if self.before and row["id"] == self.before["id"] else row for row in rows]


async def test_a_newer_version_that_only_the_whole_listing_shows_is_taken(
    database_url: str, db: asyncpg.Connection
) -> None:
    api = StaleFilter(made_up(150))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        key, api.before = list(api.records.items())[75]
        api.records[key] = api.before | {"name": "edited", "updatedDateTime": "2025-02-20T00:00:00.0000000Z"}
        assert (await reconcile_once(pipeline)).unverified == ""
    assert await copy(db) == api.records


async def test_what_is_older_by_id_does_not_displace_what_is_listed(database_url: str, db: asyncpg.Connection) -> None:
    """Answers by id have members that the list lacks, and lag behind it."""

    class Lags(OtherCase):
        before: Record | None = None

        def shown(self, record: Record) -> Record:
            return record

        def by_id(self, referral_id: str) -> Record | int:
            if self.before is not None and referral_id == self.before["id"]:
                return self.before | {"registrations": []}
            return super().by_id(referral_id)

    api = Lags(made_up(50))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        key, api.before = next(iter(api.records.items()))
        api.records[key] = api.before | {"name": "edited", "updatedDateTime": "2025-01-20T00:00:00.0000000Z"}
        assert (await reconcile_once(pipeline)).unverified == ""
    assert (await copy(db))[key]["name"] == "edited"


async def test_without_links_the_whole_listing_is_read_by_skipping(database_url: str, db: asyncpg.Connection) -> None:
    class NoLinks(HidesOne):
        def next_place(self, at: int, shown: int, rows: int, order: str) -> int | None:
            del at, shown, rows, order
            return None

    api = NoLinks(made_up(150))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        try:
            unverified = (await reconcile_once(pipeline)).unverified
        except SyncError:
            unverified = "refused is right as well"
    assert unverified or await copy(db) == api.records


async def test_members_that_only_some_records_have_by_id_are_fetched(database_url: str, db: asyncpg.Connection) -> None:
    class Registered(OddApi):
        def by_id(self, referral_id: str) -> Record | int:
            found = super().by_id(referral_id)
            closed = not isinstance(found, int) and found["status"] == "Closed"
            return found | {"registrations": [{"id": "r"}]} if closed and not isinstance(found, int) else found

    records = made_up(60)
    for key in sorted(records)[:3]:
        records[key]["status"] = "New"
    assert await brought_over(Registered(records), database_url) == ""
    registered = {key for key, record in (await copy(db)).items() if "registrations" in record}
    assert registered == {key for key, record in records.items() if record["status"] == "Closed"}


async def test_a_referral_that_is_listed_in_another_case_from_now_on_stays_one(
    database_url: str, db: asyncpg.Connection
) -> None:
    class Respelled(OddApi):
        other = ""

        def shown(self, record: Record) -> Record:
            return record | {"id": record["id"].upper()} if record["id"] == self.other else record

        def by_id(self, referral_id: str) -> Record | int:
            return super().by_id(referral_id.lower())

    api = Respelled(made_up(50))
    async with served(api) as origin, open_simulated(database_url, origin) as pipeline:
        await backfill_all(pipeline)
        api.other = next(iter(api.records))
        assert (await reconcile_once(pipeline)).unverified == ""
    assert len(await copy(db)) == len(api.records)
