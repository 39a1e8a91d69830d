"""The twelve questions of docs/questions.md: each query as it stands there, against the truth of the source's records.

The truth is computed here from the simulator's records alone, with rules written down a second time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from tests.support.databases import new_database
from tests.support.documents import QUESTIONS
from tests.support.steps import backfill_all, open_simulated, reconcile_once, sync_once
from worker.demo.behaviour import Behaviour
from worker.demo.control import Control
from worker.store.analysis import refresh_history

COUNT = 700
ZONES = {
    "US": "America/Chicago", "GB": "Europe/London", "DE": "Europe/Berlin", "FR": "Europe/Paris", "IN": "Asia/Kolkata",
    "JP": "Asia/Tokyo", "BR": "America/Sao_Paulo", "SE": "Europe/Stockholm", "PL": "Europe/Warsaw", "AE": "Asia/Dubai",
    "AU": "Australia/Sydney",
}  # fmt: skip
Record = dict[str, Any]


@dataclass(frozen=True)
class Filled:
    """A database, and the source's records at its first backfill and now; `deleted` are those that it lists no more."""

    url: str
    first: dict[str, Record]
    now: dict[str, Record]

    @property
    def records(self) -> list[Record]:
        """The records that the source lists now, without spam, which no question counts."""
        return [record for record in self.now.values() if not record.get("isSpam")]


@pytest.fixture(scope="module")
def filled(postgres_url: str, template_database: str, simulator_origin: str) -> Iterator[Filled]:
    """Load once for all questions, then let a week's worth happen at the source and follow it."""

    async def fill(url: str) -> Filled:
        async with (
            Control(simulator_origin) as control,
            open_simulated(url, simulator_origin) as pipeline,
        ):
            await control.behaviour(**asdict(Behaviour()))
            await control.reset(COUNT, seed=7)
            known = (await control.state(full=True))["records"]
            lost = min(key for key, record in known.items() if record["substatus"] == "Lost" and not record["isSpam"])
            await control.update(lost, {}, remove=["closedDateTime"])
            await backfill_all(pipeline)
            first = (await control.state(full=True))["records"]
            await happen(control, first)
            await sync_once(pipeline)
            await reconcile_once(pipeline)
            await refresh_history(pipeline.database)
            return Filled(url, first, (await control.state(full=True))["records"])

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        database = new_database(postgres_url, template_database)
        url = runner.run(database.__aenter__())
        try:
            yield runner.run(fill(url))
        finally:
            runner.run(database.__aexit__(None, None, None))


async def happen(control: Control, records: dict[str, Record]) -> None:
    """Change values, close, decline, delete and create; one record becomes unreadable, one says something new."""
    keys = sorted(key for key, record in records.items() if not record.get("isSpam"))
    active = [key for key in keys if records[key]["status"] == "Active"]
    waiting = [key for key in keys if records[key]["status"] == "New"]
    for number, key in enumerate(active[:6]):
        await control.update(key, {"details": {**records[key]["details"], "dealValue": Decimal(1000 + number)}})
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.0000000Z"
    for key in active[6:11]:
        await control.update(key, {"status": "Closed", "substatus": "Won", "closedDateTime": stamp})
    for key in waiting[:3]:
        await control.update(key, {"status": "Closed", "substatus": "Declined", "closedDateTime": stamp})
    await control.delete(active[11])
    await control.create([{"name": "Fresh &amp; new", "direction": "Outgoing"}, {"direction": "Incoming"}])
    await control.update(active[12], {"neverDocumented": 1})
    await control.raw("broken", b'{"id": 7}', created=stamp, updated=stamp)


@pytest.fixture
async def analyst(filled: Filled) -> AsyncIterator[asyncpg.Connection]:
    """Sign in with the rights of a dashboard."""
    connection = await asyncpg.connect(filled.url)
    await connection.execute("SET timezone = 'UTC'; SET ROLE bi_reader")
    yield connection
    await connection.close()


def at(record: Record, member: str) -> datetime | None:
    text = record.get(member)
    return datetime.fromisoformat(text[:26].rstrip("Z")).replace(tzinfo=UTC) if text else None


def created(record: Record) -> datetime:
    found = at(record, "createdDateTime")
    assert found is not None
    return found


def is_open(record: Record) -> bool:
    return bool(record["status"] != "Closed")


def is_won(record: Record) -> bool:
    return bool(record["status"] == "Closed" and record["substatus"] == "Won")


def direction(record: Record) -> str:
    return str(record.get("direction") or "Unknown")


def awaits(record: Record) -> bool:
    dates = record.get("acceptedDateTime"), record.get("closedDateTime")
    return record["status"] == "New" and record["substatus"] in ("Pending", "Received") and not any(dates)


def respond_by(record: Record) -> datetime:
    return at(record, "expirationDateTime") or created(record) + timedelta(days=14)


def closing_on(record: Record) -> date | None:
    """Return the customer's own day, by the time zone where the customer is; an hour of summer time changes no day."""
    moment = at(record["details"], "closingDateTime")
    if moment is None:
        return None
    zone = ZoneInfo(ZONES[record["customerProfile"]["address"]["country"]])
    return (moment.astimezone(zone).replace(tzinfo=None) + timedelta(hours=12)).date()


def first_of(day: date, months: int) -> date:
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def value(record: Record) -> Decimal | None:
    found = record["details"].get("dealValue")
    return None if found is None else Decimal(found)


def inviter(record: Record) -> str | None:
    found = ((record.get("inviteContext") or {}).get("invitedBy") or {}).get("organizationId")
    return None if found is None else str(found)


def category(record: Record) -> str:
    by = inviter(record)
    if record["type"] == "Shared":
        return "Co-sell"
    if record["qualification"] == "Direct":
        return "Marketplace lead" if by in (None, "msft") else "Other"
    if by == "msft":
        return "Qualified lead" if record["qualification"] != "None" else "Other"
    return "Co-sell" if record["qualification"] in ("SalesQualified", "None") else "Other"


def deal_type(record: Record) -> str | None:
    if category(record) != "Co-sell":
        return None
    help_asked = (record.get("inviteContext") or {}).get("assistanceRequestCode") not in (None, "", "None", "Unknown")
    shared = record["consent"].get("consentToShareReferralWithMicrosoftSellers")
    by = inviter(record)
    if by is not None and by not in ("msft", "", record["organizationId"]):
        return "Partner-to-partner"
    if shared is False and not help_asked:
        return "Private"
    if help_asked or (record["type"] == "Shared" and by == "msft"):
        return "Co-sell"
    return "Partner-led" if shared else "Unknown"


def sourced_by(record: Record) -> str:
    known = {"Outgoing": "Us", "Incoming": "Microsoft" if inviter(record) in (None, "msft") else "Partner"}
    return known.get(direction(record), "Unknown")


def stages(record: Record) -> Iterator[tuple[str, datetime, datetime]]:
    """Give the stages that a record left, by its own dates; closed without one, it was so at its last update."""
    begun = created(record)
    accepted, closed = at(record, "acceptedDateTime"), at(record, "closedDateTime") or at(record, "updatedDateTime")
    if accepted is not None and record["status"] != "New":
        accepted = max(accepted, begun)
        yield "New", begun, accepted
        if closed is not None and record["status"] == "Closed":
            yield "Active", accepted, closed
    elif closed is not None and record["status"] == "Closed":
        yield "New", begun, closed


def test_there_are_twelve() -> None:
    assert sorted(QUESTIONS) == list(range(1, 13))


@pytest.mark.parametrize("days", [1, 60, 200, 500])
async def test_1_open_at_the_end_of_a_day(days: int, filled: Filled, analyst: asyncpg.Connection) -> None:
    """All these days are before the first backfill; a deal closed since was open then."""
    rows = await analyst.fetch(QUESTIONS[1].replace("current_date - 60", f"current_date - {days}"))
    day = await analyst.fetchval("SELECT current_date - $1::int", days)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    truth = Counter[str]()
    for record in filled.first.values():
        closed = at(record, "closedDateTime") if record["status"] == "Closed" else None
        if not record.get("isSpam") and created(record) < end and (closed is None or closed >= end):
            truth[direction(record)] += 1
    assert {row["direction"]: row["deals"] for row in rows} == truth
    assert sum(truth.values()) > 5
    assert all(row["day"] == day and row["estimated_deals"] <= row["deals"] for row in rows)


async def test_1_open_today(filled: Filled, analyst: asyncpg.Connection) -> None:
    rows = await analyst.fetch(QUESTIONS[1].replace("current_date - 60", "current_date"))
    truth = Counter(direction(record) for record in filled.records if is_open(record))
    assert {row["direction"]: (row["deals"], row["estimated_deals"]) for row in rows} == {
        name: (deals, 0) for name, deals in truth.items()
    }


async def test_2_pipeline_by_currency_and_month(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[date | None, str], list[Decimal | None]](list)
    for record in filled.records:
        if is_open(record):
            day = closing_on(record)
            truth[day and first_of(day, 1), record["details"]["currency"]].append(value(record))
    rows = await analyst.fetch(QUESTIONS[2])
    assert {(row["closing_month"], row["currency"]): (row["deals"], row["deal_value"]) for row in rows} == {
        key: (len(values), added(values)) for key, values in truth.items()
    }


def added(values: list[Decimal | None]) -> Decimal | None:
    known = [each for each in values if each is not None]
    return sum(known, Decimal(0)) if known else None


async def test_3_awaiting_answer_by_deadline(filled: Filled, analyst: asyncpg.Connection) -> None:
    rows = await analyst.fetch(QUESTIONS[3])
    truth = [(respond_by(r), r["id"]) for r in filled.records if awaits(r) and direction(r) == "Incoming"]
    assert [(row["respond_by"], row["id"]) for row in rows] == sorted(truth)
    assert len(truth) > 5
    now = datetime.now(UTC)
    for row in rows:
        assert row["is_overdue"] == (row["respond_by"] < now)
        assert "&amp;" not in (row["name"] or "")


async def test_4_win_rate_by_quarter(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[str, date], Counter[str]](Counter)
    for record in filled.records:
        what = record["substatus"] if record["status"] == "Closed" else "open"
        closed = at(record, "closedDateTime")
        truth["created", first_of(created(record).date(), 3)][what] += 1
        if closed is not None:
            truth["closed", first_of(closed.date(), 3)][what] += 1
    rows = await analyst.fetch(QUESTIONS[4])
    assert {(row["counted_by"], row["quarter"]): row["win_rate"] for row in rows} == {
        key: round(Decimal(each["Won"]) / (each["Won"] + each["Lost"]), 4) if each["Won"] + each["Lost"] else None
        for key, each in truth.items()
    }
    for row in rows:
        each = truth[row["counted_by"], row["quarter"]]
        assert (row["won"], row["lost"], row["still_open"]) == (each["Won"], each["Lost"], each["open"])


async def test_5_median_days_in_each_stage(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[str, str], list[float]](list)
    for record in filled.records:
        for status, begun, ended in stages(record):
            if begun < ended:
                truth[direction(record), status].append((ended - begun) / timedelta(days=1))
    rows = await analyst.fetch(QUESTIONS[5])
    assert {(row["direction"], row["status"]): row["stages"] for row in rows} == {
        key: len(days) for key, days in truth.items()
    }
    for row in rows:
        days = median(truth[row["direction"], row["status"]])
        assert float(row["median_days"]) == pytest.approx(days, abs=0.06), "rounded to a tenth"
    assert ("Incoming", "Active") in truth


async def test_6_what_changed_this_week(filled: Filled, analyst: asyncpg.Connection) -> None:
    week = datetime.now(UTC) - timedelta(days=7)
    truth = list[tuple[str, str, str | None, str]]()
    for key, record in filled.now.items():
        if record.get("isSpam"):
            continue
        state = f"{record['status']} {record['substatus']}"
        if created(record) > week:
            truth.append((key, "new", None, state))
        before = filled.first.get(key)
        if before is None:
            continue
        was = f"{before['status']} {before['substatus']}"
        if was != state:
            truth.append((key, "status", was, state))
        if (value(before), before["details"]["currency"]) != (value(record), record["details"]["currency"]):
            truth.append((key, "value", money(before), money(record)))
    for key in filled.first.keys() - filled.now.keys():
        was = f"{filled.first[key]['status']} {filled.first[key]['substatus']}"
        truth.append((key, "deleted", was, was))
    rows = await analyst.fetch(QUESTIONS[6])
    assert sorted((row["id"], row["what"], row["old"] or "", row["new"]) for row in rows) == sorted(
        (key, what, old or "", new) for key, what, old, new in truth
    )
    assert {what for _, what, _, _ in truth} == {"new", "status", "value", "deleted"}
    times = [row["changed_at"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert "Fresh & new" in {row["name"] for row in rows}


def money(record: Record) -> str:
    return " ".join(str(each) for each in (value(record), record["details"]["currency"]) if each is not None)


async def test_7_what_each_seller_works_on(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[str, str], list[Decimal | None]](list)
    for record in filled.records:
        if (record["status"], direction(record), record["type"]) == ("Active", "Outgoing", "Shared"):
            for member in record.get("team") or ():
                truth[member["email"].lower(), record["details"]["currency"]].append(value(record))
    rows = await analyst.fetch(QUESTIONS[7])
    assert {(row["seller_email"], row["currency"]): (row["deals"], row["deal_value"]) for row in rows} == {
        key: (len(values), added(values)) for key, values in truth.items()
    }
    assert len(truth) > 20


async def test_8_types_of_deal(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[str, str | None], list[Record]](list)
    for record in filled.records:
        truth[category(record), deal_type(record)].append(record)
    rows = await analyst.fetch(QUESTIONS[8])
    assert {(row["category"], row["deal_type"]): (row["deals"], row["open"], row["won"]) for row in rows} == {
        key: counted(records) for key, records in truth.items()
    }
    assert {"Co-sell", "Private", "Partner-to-partner", None} <= {kind for _, kind in truth}


def counted(records: list[Record]) -> tuple[int, int, int]:
    return len(records), sum(map(is_open, records)), sum(map(is_won, records))


async def test_9_solution_areas_products_services(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[tuple[str, str], dict[str, Record]](dict)
    for record in filled.records:
        wanted = record["details"].get("requirements") or {}
        attributes = (wanted.get("additionalRequirements") or {}).get("attributes") or ()
        for each in attributes:
            if each["type"] == "SolutionArea":
                truth["solution area", each["id"]][record["id"]] = record
        for dimension in ("product", "service"):
            for each in wanted.get(f"{dimension}s") or ():
                truth[dimension, each["id"]][record["id"]] = record
    rows = await analyst.fetch(QUESTIONS[9])
    assert {(row["dimension"], row["value"]): (row["deals"], row["open"], row["won"]) for row in rows} == {
        key: counted(list(records.values())) for key, records in truth.items()
    }
    assert {dimension for dimension, _ in truth} == {"solution area", "product", "service"}


async def test_10_sourced_and_influenced(filled: Filled, analyst: asyncpg.Connection) -> None:
    truth = defaultdict[str, list[Record]](list)
    for record in filled.records:
        truth[sourced_by(record)].append(record)
    rows = await analyst.fetch(QUESTIONS[10])
    shown = {
        row["sourced_by"]: (row["deals"], row["won"], row["shared_with_microsoft"], row["with_microsofts_help"])
        for row in rows
    }
    assert shown == {
        who: (
            len(records),
            sum(map(is_won, records)),
            sum(r["consent"].get("consentToShareReferralWithMicrosoftSellers") is True for r in records),
            sum(deal_type(r) == "Co-sell" for r in records),
        )
        for who, records in truth.items()
    }
    assert shown.keys() == {"Us", "Microsoft", "Partner", "Unknown"}


async def test_11_overdue_and_expired(filled: Filled, analyst: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    truth = Counter[tuple[str, date | None]]({("answer overdue", None): 0, ("open past expected close", None): 0})
    for record in filled.records:
        overdue = awaits(record) and direction(record) == "Incoming" and respond_by(record) < now
        day = closing_on(record)
        closed = at(record, "closedDateTime")
        truth["answer overdue", None] += overdue
        truth["open past expected close", None] += is_open(record) and day is not None and day < now.date()
        if record["substatus"] == "Expired" and closed is not None:
            truth["expired unanswered", first_of(closed.date(), 1)] += 1
    rows = await analyst.fetch(QUESTIONS[11])
    assert {(row["what"], row["month"]): row["deals"] for row in rows} == truth
    assert len(truth) > 5


async def test_12_how_far_to_trust(filled: Filled, analyst: asyncpg.Connection) -> None:
    """Spam counts here: a record that is odd is odd."""
    records = list(filled.now.values())
    unknown = [record for record in records if direction(record) == "Unknown"]
    open_now = [record for record in records if is_open(record)]
    today = datetime.now(UTC).date()
    (row,) = await analyst.fetch(QUESTIONS[12])
    assert row["health"] == "ok"
    assert row["fresh_as_of"] > datetime.now(UTC) - timedelta(hours=1)
    assert row["verified_through"] is not None
    checked = {"account", "health", "fresh_as_of", "verified_through"}
    shown = {name: figure for name, figure in row.items() if name not in checked}
    assert shown == {
        "referrals": len(records),
        "unknown_direction": len(unknown),
        "awaiting_with_unknown_direction": sum(map(awaits, unknown)),
        "missing_value": sum(value(record) is None for record in open_now),
        "missing_currency": sum(value(r) is not None and r["details"].get("currency") is None for r in records),
        "past_expected_close": sum((closing_on(r) or today) < today for r in open_now),
        "missing_contacts": sum(not r["customerProfile"].get("team") for r in open_now),
        "rejected_records": 1,
        "unknown_members": 1,
        "unreadable_members": 0,
    }  # fmt: skip
