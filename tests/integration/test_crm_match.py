"""The CRM match of docs/crm-match.md: its script run by psql, on opportunities that agree, disagree and are missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from tests.support.crm_match import PAGE, TABLE, documented, script
from tests.support.documents import sql_blocks
from tests.support.steps import backfill_all
from worker.demo.control import Control
from worker.sync.pipeline import Pipeline

CONFLICTS = ("value", "currency", "stage", "date")


def opportunity(key: str, record: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Make an opportunity that agrees with a referral, but for what is given."""
    stages = {"Won": "Closed Won"} if record["substatus"] == "Won" else {"Closed": "Closed Lost"}
    return {
        "opportunity_id": key,
        "msx_number": None,
        "amount": record["details"]["dealValue"],
        "currency_code": record["details"]["currency"],
        "close_date": None,
        "stage_name": stages.get(record["substatus"]) or stages.get(record["status"]) or "Proposal",
    } | others


async def put(db: asyncpg.Connection, *rows: dict[str, Any]) -> None:
    for row in rows:
        names = ", ".join(row)
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await db.execute(f"INSERT INTO sales.opportunity ({names}) VALUES ({places})", *row.values())  # noqa: S608 - names of this module


async def row_of(db: asyncpg.Connection, key: str) -> asyncpg.Record:
    (row,) = await db.fetch("SELECT * FROM crm.crm_match WHERE referral_id = $1", key)
    return row


async def test_linked_unlinked_and_conflicting(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection, database_url: str
) -> None:
    await simulator.reset(200)
    await backfill_all(pipeline)
    records = (await simulator.state(full=True))["records"]
    shown = {key: record for key, record in records.items() if not record.get("isSpam")}
    msx = {key: (record.get("trackingInfo") or {}).get("microsoftMsxId") for key, record in shown.items()}
    referring = sorted(key for key, record in shown.items() if record.get("externalReferenceId"))
    silent = sorted(key for key, record in shown.items() if not record.get("externalReferenceId"))
    valued = [key for key in referring if shown[key]["details"]["dealValue"] is not None]
    opened = [key for key in valued if shown[key]["status"] != "Closed"]
    agree, value, currency, stage, date = opened[:5]
    by_msx = next(key for key in silent if msx[key])
    several = next(key for key in referring if msx[key] and key not in (agree, value, currency, stage, date))
    closing = {row["id"]: row["closing_on"] for row in await db.fetch("SELECT id, closing_on FROM bi.referrals")}

    def same(key: str, **others: Any) -> dict[str, Any]:
        record = shown[key]
        return opportunity(record["externalReferenceId"], record, close_date=closing[key], **others)

    await db.execute(TABLE)
    await put(
        db,
        same(agree, msx_number=msx[agree]),
        same(value) | {"amount": shown[value]["details"]["dealValue"] + 1},
        same(currency) | {"currency_code": "XTS", "amount": Decimal(1)},
        same(stage) | {"stage_name": "Closed Won"},
        same(date) | {"close_date": closing[date].replace(year=2031)},
        same(several),
        opportunity("O-other", shown[several], msx_number=msx[several]),
        opportunity(" O-msx ", shown[by_msx], msx_number=f" {msx[by_msx]} "),
        opportunity("O-alone", shown[agree]),
        opportunity("O-empty", shown[agree], msx_number=""),
    )
    done = await asyncio.to_thread(script, database_url, *documented())
    assert (done.returncode, done.stderr) == (0, "")

    row = await row_of(db, agree)
    both = "reference and MSX id" if msx[agree] else "reference"
    assert (row["link"], row["matched_by"], row["has_conflict"]) == ("linked", both, False)
    for key, conflict in ((value, "value"), (currency, "currency"), (stage, "stage"), (date, "date")):
        row = await row_of(db, key)
        assert row["link"] == "linked"
        assert [each for each in CONFLICTS if row[f"has_{each}_conflict"]] == [conflict]
        assert row["has_conflict"]
    row = await row_of(db, by_msx)
    assert (row["link"], row["matched_by"], row["opportunity_id"]) == ("linked", "MSX id", " O-msx ")
    rows = await db.fetch("SELECT link, opportunity_id FROM crm.crm_match WHERE referral_id = $1", several)
    assert sorted(tuple(row) for row in rows) == sorted(
        [("ambiguous", "O-other"), ("ambiguous", shown[several]["externalReferenceId"])]
    )
    rows = await db.fetch("SELECT opportunity_id FROM crm.crm_match WHERE link = 'opportunity only' ORDER BY 1")
    assert [row["opportunity_id"] for row in rows] == ["O-alone", "O-empty"]

    matched = {agree, value, currency, stage, date, by_msx}
    truth = Counter({"linked": len(matched), "ambiguous": 1})
    truth["broken"] = len(set(referring) - matched - {several})
    truth["unlinked"] = len(set(silent) - matched)
    rows = await db.fetch(
        "SELECT link, count(DISTINCT referral_id) FROM crm.crm_match WHERE referral_id IS NOT NULL GROUP BY 1"
    )
    assert {row["link"]: row["count"] for row in rows} == truth

    for query in sql_blocks(PAGE):
        await db.execute(query)
    await db.execute("SET ROLE bi_reader")
    assert await db.fetchval("SELECT count(*) FROM crm.crm_match WHERE link = 'linked' AND has_conflict") == 4


async def test_with_the_least_that_can_be_given(db: asyncpg.Connection, database_url: str) -> None:
    """What is not named is not compared; an expression does in place of a column; run again, it replaces the view."""
    await db.execute(TABLE)
    await db.execute("INSERT INTO sales.opportunity (opportunity_id, amount) VALUES ('a', 5), ('b', 6)")
    plain, scaled = (), ("-v", "value=amount / 100.0", "-v", "where=amount > 5")
    for more, values in ((plain, [None, None]), (scaled, [Decimal("0.06")])):
        done = script(database_url, "-v", "opportunities=sales.opportunity", "-v", "id=opportunity_id", *more)
        assert (done.returncode, done.stderr) == (0, "")
        rows = await db.fetch("SELECT link, has_conflict, opportunity_value FROM crm.crm_match")
        assert [row["opportunity_value"] for row in rows] == values
        assert {(row["link"], row["has_conflict"]) for row in rows} == {("opportunity only", False)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "The table of opportunities is not named."),
        (("-v", "opportunities=sales.opportunity"), "HINT:  Add -v id=opportunity_id."),
        (("-v", "opportunities=sales.opportunity", "-v", "id=nothing"), 'column "nothing" does not exist'),
    ],
)
async def test_what_is_missing_is_named_and_nothing_is_made(
    arguments: tuple[str, ...], message: str, db: asyncpg.Connection, database_url: str
) -> None:
    await db.execute(TABLE)
    done = script(database_url, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert await db.fetchval("SELECT to_regclass('crm.crm_match') IS NULL")


async def test_off_by_default(db: asyncpg.Connection) -> None:
    assert await db.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'crm_match'") == 0
