"""`bi.changes` against the truth of the source's records, as the simulator holds them before and after each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from tests.support.pages import page, referral
from tests.support.runs import leased
from tests.support.steps import backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.model.mapping import map_pages
from worker.store.database import Database
from worker.store.save import save
from worker.sync.pipeline import Pipeline

Record = dict[str, Any]
Change = tuple[str, str, str, str | None, str | None]
"""Of which referral, what happened, in which column, from what, to what."""

COLUMNS = {
    "name": "name",
    "status": "status",
    "substatus": "substatus",
    "salesStage": "sales_stage",
    "isSpam": "is_spam",
    "externalReferenceId": "external_reference_id",
    "updatedDateTime": "updated_at",
    "closedDateTime": "closed_at",
    "customerProfile.name": "customer_name",
    "details.dealValue": "deal_value",
    "details.currency": "currency",
    "details.closingDateTime": "closing_at",
    "details.notes": "notes",
    "team": "team_members",
    "customerProfile.team": "customer_contacts",
}
"""The column of each member that is changed here; a difference anywhere else fails the test."""
NAMES_ALONE = {"notes", "team_members", "customer_contacts", "payload", "deleted_at"}
"""What holds personal data, or more than a value."""


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give each member of a record that is no object, by its dotted path; nothing that says how it was sent."""
    if not isinstance(value, dict):
        yield path, value
        return
    for name, member in value.items():
        if name not in ("eTag", "links") and not name.startswith("@"):
            yield from leaves(member, f"{path}.{name}".lstrip("."))


def told(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def difference(key: str, before: Record, after: Record) -> Iterator[Change]:
    """Give what a reader must find of one change, from the two records alone."""
    was, became = dict(leaves(before)), dict(leaves(after))
    for path in was.keys() | became.keys():
        one, other = was.get(path), became.get(path)
        if one == other:
            continue
        column = COLUMNS[path]
        shown = column not in NAMES_ALONE
        yield key, "changed", column, told(one) if shown else None, told(other) if shown else None


async def happen(pipeline: Pipeline, simulator: Control) -> list[Change]:
    """Change what each column is for, one deal twice, what is personal, what no column holds; delete one. The truth."""
    known: dict[str, Record] = (await simulator.state(full=True))["records"]
    keys = sorted(key for key, record in known.items() if record["status"] == "Active")
    truth: list[Change] = []

    async def change(key: str, changes: Record, *, remove: tuple[str, ...] = ()) -> None:
        before = (await simulator.state(full=True))["records"][key]
        truth.extend(difference(key, before, await simulator.update(key, changes, remove=remove)))

    def details(key: str, **changes: Any) -> Record:
        return {"details": {**known[key]["details"], **changes}}

    profile = known[keys[3]]["customerProfile"]
    await change(keys[0], details(keys[0], dealValue=1234.5))
    await change(keys[1], {"status": "Closed", "substatus": "Won", "closedDateTime": "2026-06-01T08:00:00.1234567Z"})
    await change(keys[2], details(keys[2], currency="SEK", closingDateTime="2031-02-28T23:00:00Z"))
    await change(keys[3], {"name": "A &amp; B", "customerProfile": {**profile, "name": "C &lt; D", "team": []}})
    await change(keys[4], details(keys[4], notes="Call her at home.") | {"team": [], "isSpam": True})
    await change(keys[5], {"externalReferenceId": "O-5", "salesStage": "50"})
    await sync_once(pipeline)
    await change(keys[0], details(keys[0], dealValue=7) | {"status": "Closed", "substatus": "Lost"})
    await change(keys[5], {}, remove=("externalReferenceId",))
    await sync_once(pipeline)
    await simulator.update(keys[6], {"neverDocumented": "x"}, silent=True)
    await simulator.delete(keys[7])
    await reconcile_once(pipeline)
    return [*truth, (keys[6], "changed", "payload", None, None), (keys[7], "deleted", "deleted_at", None, None)]


async def test_changes_are_what_the_records_say(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(150)
    await backfill_all(pipeline)
    began = datetime.now(UTC)
    truth = await happen(pipeline, simulator)
    await db.execute("SET ROLE bi_reader")
    rows = await db.fetch("SELECT * FROM bi.changes")
    assert Counter(
        (row["referral_id"], row["change"], row["column_name"], row["old_value"], row["new_value"]) for row in rows
    ) == Counter(truth)
    assert {column for _, _, column, _, _ in truth} >= set(COLUMNS.values())
    runs = {row["run"] for row in await db.fetch("SELECT run FROM bi.runs")}
    for row in rows:
        assert row["account"] == "contoso"
        assert row["recorded_at"] >= began
        assert row["run"] in runs
    value = sorted((row["changed_at"], row["old_value"]) for row in rows if row["column_name"] == "deal_value")
    assert [old for _, old in value][-1] == "1234.5", "the second change of one deal begins with what the first left"


async def test_what_changed_is_told_of_a_record_that_this_release_cannot_read(
    database: Database, db: asyncpg.Connection
) -> None:
    """Then it is not known by column, and the members that may be shown are compared."""
    async with leased(database, "contoso", "incremental") as run:
        for minute, value in enumerate((5, 7)):
            read = page(referral(1, minute, details={"dealValue": value, "currency": "EUR"}), seconds=minute)
            await save(database, run, map_pages([read]))
            await db.execute("UPDATE partner_center.referrals SET payload = payload - 'id'")
    shown = "SELECT old_value, new_value, old_currency, currency FROM bi.value_changes"
    assert [tuple(row) for row in await db.fetch(shown)] == [(5, 7, "EUR", "EUR")]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("12.50", "12.50"), ("-3", "-3"), (" 1e3 ", "1000"), (".5", "0.5"), ("12,5", None), ("much", None), (None, None)],
)
async def test_an_amount_is_read_as_the_column_was(
    written: str | None, expected: str | None, db: asyncpg.Connection
) -> None:
    assert await db.fetchval("SELECT bi.amount($1)::text", written) == expected
