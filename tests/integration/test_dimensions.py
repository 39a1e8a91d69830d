"""What analysts group by, compared with the source's records: each column by the member that it comes from."""

from __future__ import annotations

import html
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.steps import backfill_all
from worker.demo.control import Control
from worker.sync.pipeline import Pipeline

Record = dict[str, Any]


def decoded(text: str | None) -> str | None:
    return None if text is None else html.unescape(text)


def attributes(record: Record, kind: str) -> str | None:
    wanted = ((record["details"].get("requirements") or {}).get("additionalRequirements") or {}).get("attributes") or ()
    return ", ".join(each["id"] for each in wanted if each["type"].lower() == kind.lower()) or None


def duns(record: Record) -> str | None:
    ids = record["customerProfile"].get("ids") or ()
    return ", ".join(each["id"] for each in ids if each["profileType"].lower() == "duns") or None


def inviter(record: Record, member: str) -> str | None:
    found: str | None = ((record.get("inviteContext") or {}).get("invitedBy") or {}).get(member)
    return found


RULES: dict[str, Callable[[Record], str | None]] = {
    "name": lambda r: decoded(r.get("name")),
    "customer_name": lambda r: decoded(r["customerProfile"].get("name")),
    "customer_state": lambda r: r["customerProfile"]["address"].get("state"),
    "customer_region": lambda r: r["customerProfile"]["address"].get("region"),
    "customer_duns": duns,
    "marketplace_intent": lambda r: r.get("customerMarketplaceIntent") or attributes(r, "CustomerMarketplaceIntent"),
    "solution_area": lambda r: attributes(r, "SolutionArea"),
    "solution_play": lambda r: attributes(r, "SolutionPlay"),
    "inviter_id": lambda r: inviter(r, "organizationId"),
    "inviter": lambda r: decoded(inviter(r, "organizationName")),
    "offer_id": lambda r: r.get("offerId"),
    "referral_source": lambda r: r.get("referralSource"),
    "call_to_action": lambda r: r.get("callToAction"),
}


async def records_of(simulator: Control) -> dict[str, Record]:
    records: dict[str, Record] = (await simulator.state(full=True))["records"]
    return records


async def test_each_dimension_is_its_member(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(400)
    by_attribute = {"requirements": {"additionalRequirements": {"attributes": [
        {"type": "CustomerMarketplaceIntent", "id": "Yes"}, {"type": "SolutionPlay", "id": "Migrate"},
    ]}}}  # fmt: skip
    await simulator.create(
        [
            {"details": by_attribute, "customerMarketplaceIntent": None},
            {"details": by_attribute, "customerMarketplaceIntent": "No"},
            {"customerProfile": {"name": "A &amp;amp; B", "address": {"country": "DE", "state": "SN", "region": "EMEA"},
                                 "ids": [{"profileType": "Duns", "id": "150483782"}]}},
        ]
    )  # fmt: skip
    await backfill_all(pipeline)
    records = await records_of(simulator)
    rows = {row["id"]: row for row in await db.fetch("SELECT * FROM bi.referrals")}
    assert rows.keys() == records.keys()
    for column, rule in RULES.items():
        wrong = {
            key: (rows[key][column], rule(records[key])) for key in rows if rows[key][column] != rule(records[key])
        }
        assert wrong == {}, column
        assert any(rule(record) for record in records.values()), f"{column}: no record has any"
    raw = await db.fetch("SELECT id, name FROM partner_center.referrals")
    assert {row["id"]: row["name"] for row in raw} == {key: record.get("name") for key, record in records.items()}
    assert any("&" in (row["name"] or "") for row in raw), "the copy keeps what was received"


async def test_type_and_solution_type_are_two_columns(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(200)
    both = {"id": "AZ-1", "type": "Name", "solutionType": "3P", "name": "Ours"}
    await simulator.create([{"details": {"requirements": {"solutions": [both]}}}])
    await backfill_all(pipeline)
    truth = {
        (key, place): (solution.get("type"), solution.get("solutionType"))
        for key, record in (await records_of(simulator)).items()
        for place, solution in enumerate((record["details"].get("requirements") or {}).get("solutions") or ())
    }
    rows = await db.fetch("SELECT referral_id, position, type, solution_type FROM bi.solutions")
    assert {(row["referral_id"], row["position"]): (row["type"], row["solution_type"]) for row in rows} == truth
    assert any(kind and solution for kind, solution in truth.values()), "one element has both"


async def test_the_deadlines_of_registrations(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """A deal may be won 72 hours after its creation, and is registered within 60 days of the contract."""
    await simulator.reset(300)
    await backfill_all(pipeline)
    created = {row["id"]: row["created_at"] for row in await db.fetch("SELECT id, created_at FROM bi.referrals")}
    rows = await db.fetch("SELECT * FROM bi.registrations")
    assert rows
    for row in rows:
        assert row["earliest_won_at"] == created[row["referral_id"]] + timedelta(hours=72)
        assert row["register_by"] == row["contract_sign_at"] + timedelta(days=60)


@pytest.mark.parametrize(
    "text",
    [
        "plain", "AT&T", "a & b", "A &amp; B", "&amp;amp;", "&amp;lt;script&amp;gt;", "&lt;b&gt; &quot;x&quot;",
        "&#39;", "&amp;#39;", "&#x27;", "&eacute;", "&amp;eacute;", "&Uuml;ber &amp; co", "&#8364;", "&amp;&amp;lt;",
        "R&D; x",
    ],
)  # fmt: skip
async def test_text_is_decoded_once(text: str, db: asyncpg.Connection) -> None:
    assert await db.fetchval("SELECT bi.decoded($1)", text) == html.unescape(text)
    assert await db.fetchval("SELECT bi.decode_entities($1)", text) == html.unescape(text), "whichever way it goes"


async def test_every_name_is_decoded(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    """Of places, people, products and publishers as well as of deals and companies."""
    await simulator.reset(20)
    key, record = next(iter((await simulator.state(full=True))["records"].items()))
    person = {"firstName": "Ren&eacute;", "lastName": "O&#39;Neil", "email": "rene@example.com"}
    address = {**record["customerProfile"]["address"], "city": "M&uuml;nchen", "state": "A &amp; B"}
    wanted = {name: [{"id": "X", "name": "C &amp; D"}] for name in ("industries", "products", "services")}
    wanted["solutions"] = [{"id": "S", "name": "E &lt; F", "type": "Name", "publisherName": "G &amp; Sons"}]
    await simulator.update(
        key,
        {
            "customerProfile": {**record["customerProfile"], "address": address, "team": [person]},
            "details": {**record["details"], "requirements": wanted},
            "team": [person],
        },
    )
    await backfill_all(pipeline)

    async def row(view: str, columns: str) -> tuple[Any, ...]:
        of = "id" if view == "referrals" else "referral_id"
        found = await db.fetchrow(f"SELECT {columns} FROM bi.{view} WHERE {of} = $1", key)  # noqa: S608 - names of this test
        return tuple(found or ())

    assert await row("referrals", "customer_city, customer_state") == ("München", "A & B")
    for view in ("team", "customer_contacts"):
        assert await row(view, "first_name, last_name") == ("René", "O'Neil")
    for view in ("industries", "products", "services"):
        assert await row(view, "name") == ("C & D",)
    assert await row("solutions", "name, publisher_name") == ("E < F", "G & Sons")


@pytest.mark.parametrize(
    ("sent", "country", "day"),
    [
        ("2026-06-29T22:00:00Z", "DE", date(2026, 6, 30)),
        ("2026-06-30T05:00:00Z", "US", date(2026, 6, 30)),
        ("2026-06-30T00:00:00Z", "GB", date(2026, 6, 30)),
        ("2026-06-29T15:00:00Z", "JP", date(2026, 6, 30)),
        ("2026-01-29T11:00:00Z", "NZ", date(2026, 1, 30)),
        ("2026-06-30T10:00:00Z", "US", date(2026, 6, 30)),
        ("2026-06-29T18:30:00Z", "IN", date(2026, 6, 30)),
        ("2026-06-29T22:07:31Z", "DE", date(2026, 6, 29)),
        (None, "DE", None),
    ],
)
async def test_the_customers_midnight_is_the_customers_day(
    sent: str | None, country: str, day: date | None, db: asyncpg.Connection
) -> None:
    moment = sent and datetime.fromisoformat(sent).astimezone(UTC)
    assert await db.fetchval("SELECT bi.local_day($1, $2)", moment, country) == day
