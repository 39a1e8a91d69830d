"""`[privacy]` end to end: nothing personal arrives, a change rewrites what is stored, and what the source hides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.support.referrals import personal
from tests.support.runs import leased
from tests.support.steps import ACCOUNT, assert_chain, backfill_all, sync_once
from worker import wiring
from worker.config.models import Settings
from worker.config.sources import load as load_settings
from worker.demo.control import Control
from worker.errors import StoreError
from worker.model.counts import Counts
from worker.model.mapping import map_pages
from worker.model.privacy import AfterExpiry, Privacy
from worker.model.record import Page, decode_record
from worker.store import privacy, sql
from worker.store.database import Database
from worker.store.leases import Lease
from worker.store.save import save
from worker.sync import account
from worker.sync.pipeline import Pipeline
from worker.sync.preview import preview_incremental

EVERYWHERE = """
SELECT string_agg(t::text, ' ') FROM (
    SELECT to_jsonb(r)::text AS t FROM partner_center.referrals r
    UNION ALL SELECT to_jsonb(v)::text FROM partner_center.referral_history v
    UNION ALL SELECT to_jsonb(c)::text FROM partner_center.referral_customer_contacts c
    UNION ALL SELECT to_jsonb(m)::text FROM partner_center.referral_team_members m
    UNION ALL SELECT j.reason || encode(j.payload, 'escape') FROM sync.rejected_records j
) everything
"""


def settings(url: str, origin: str, folder: Path, contacts: str, after_expiry: str = "history") -> Settings:
    return load_settings(
        {
            "REFERRAL_SYNC_DATABASE__URL": url,
            "REFERRAL_SYNC_API__BASE_URL": origin,
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
            "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "simulator",
            "REFERRAL_SYNC_PRIVACY__CONTACTS": contacts,
            "REFERRAL_SYNC_PRIVACY__AFTER_EXPIRY": after_expiry,
        },
        folder,
    )


async def leaks(db: asyncpg.Connection, secrets: set[str]) -> list[str]:
    everything = await db.fetchval(EVERYWHERE)
    return [secret for secret in secrets if secret in everything]


@pytest.mark.parametrize("contacts", ["hash", "drop"])
async def test_nothing_personal_arrives_and_nothing_changes_afterwards(
    contacts: str, database_url: str, database: Database, db: asyncpg.Connection, simulator: Control,
    simulator_origin: str, tmp_path: Path,
) -> None:  # fmt: skip
    await simulator.reset(150)
    secrets = personal((await simulator.state(full=True))["records"])
    assert len(secrets) > 100
    async with wiring.open_pipeline(
        settings(database_url, simulator_origin, tmp_path, contacts), database, ACCOUNT
    ) as pipeline:
        counts = await account.backfill_account(pipeline)
        assert (counts.inserted, counts.rejected) == (150, 0)
        assert await leaks(db, secrets) == []
        found = await account.reconcile_account(pipeline)
        reconciled, deleted = found.counts, found.deleted
        assert (reconciled.inserted, reconciled.updated, deleted) == (0, 0, 0)
    hashed = await db.fetchval(
        "SELECT count(*) FROM partner_center.referral_customer_contacts WHERE email LIKE 'hash:%'"
    )
    assert (hashed > 0) == (contacts == "hash")


async def test_a_change_of_the_rule_rewrites_what_is_stored(
    database_url: str, database: Database, db: asyncpg.Connection, pipeline: Pipeline, simulator: Control,
    simulator_origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Rows, child rows, versions and rejected records, in small batches, also after a rewrite that was cut off."""
    monkeypatch.setattr(privacy, "BATCH", 7)
    await simulator.reset(60)
    await backfill_all(pipeline)
    records = (await simulator.state(full=True))["records"]
    keys = sorted(records)
    await simulator.update(keys[0], {"name": "renamed"})
    await sync_once(pipeline)
    bad = {"id": "bad", "anything": Decimal("1e200000"), "details": {"notes": "secret words"}}
    async with leased(database, ACCOUNT, "incremental") as run:
        encode = msgspec.json.Encoder(decimal_format="number").encode
        broken = [
            decode_record(encode(bad)),
            decode_record(b'{"phoneNumber": "555-0188'),
        ]
        await save(database, run, map_pages([Page(broken, None, datetime.now(UTC))]), pages=1)
    secrets = personal(records) | {"secret words", "555-0188"}
    assert len(await leaks(db, secrets)) == len(secrets)
    changed_at = await db.fetch("SELECT id, changed_at FROM partner_center.referrals ORDER BY id")
    versions = await db.fetchval("SELECT count(*) FROM partner_center.referral_history")

    original = sql.REWRITE
    monkeypatch.setattr(sql, "REWRITE", "SELECT broken FROM nowhere")
    with pytest.raises(StoreError):
        await privacy.enforce(database, await privacy.rules(database, "hash", "history"))
    monkeypatch.setattr(sql, "REWRITE", original)
    for contacts in ("hash", "drop"):
        rules = settings(database_url, simulator_origin, tmp_path, contacts)
        async with wiring.open_pipeline(rules, database, ACCOUNT) as under_rule:
            stored = await db.fetchval(EVERYWHERE)
            assert [change.verdict async for change in preview_incremental(under_rule)]
            assert await db.fetchval(EVERYWHERE) == stored, "who only looks changes nothing"
            await account.sync_account(under_rule)
            assert await leaks(db, secrets) == []
            assert await db.fetch("SELECT id, changed_at FROM partner_center.referrals ORDER BY id") == changed_at
            assert await db.fetchval("SELECT count(*) FROM partner_center.referral_history") == versions
            counts = (await account.reconcile_account(under_rule)).counts
            assert (counts.inserted, counts.updated) == (0, 0), "what is stored is what would be read"
    await assert_chain(db)
    async with wiring.open_pipeline(
        settings(database_url, simulator_origin, tmp_path, "keep"), database, ACCOUNT
    ) as pipeline_again:
        await account.reconcile_account(pipeline_again)
    assert await leaks(db, personal(records)) != [], "a reconcile brings back what the source still shows"


async def test_a_process_with_the_former_rule_writes_nothing_more(database: Database, db: asyncpg.Connection) -> None:
    record = decode_record(b'{"id":"a","details":{"notes":"secret"}}')
    async with leased(database, ACCOUNT, "incremental") as run:
        await privacy.enforce(database, await privacy.rules(database, "drop", "history"))
        with pytest.raises(StoreError, match=r"privacy\.contacts"):
            await save(database, run, map_pages([Page([record], None, datetime.now(UTC))]), pages=1)
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 0


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TEAM = [{"firstName": "Given", "email": "given@example.com"}]


async def put(database: Database, run: Lease, minute: int, *, by_id: bool = False, **members: Any) -> Counts:
    tree = {"id": "a", "updatedDateTime": f"2024-05-01T10:{minute:02}:00Z"} | members
    page = Page([decode_record(msgspec.json.encode(tree))], None, NOON + timedelta(seconds=put_number()), by_id=by_id)
    return (await save(database, run, map_pages([page]), pages=1)).counts


def put_number(numbers: Any = iter(range(1_000_000))) -> int:  # noqa: B008 - one counter for the module is meant
    number: int = next(numbers)
    return number


@pytest.mark.parametrize(
    ("rule", "in_row", "in_history"),
    [(AfterExpiry.HISTORY, 0, True), (AfterExpiry.KEEP, 1, True), (AfterExpiry.ERASE, 0, False)],
)
async def test_contacts_that_the_source_hides_after_expiry(
    rule: AfterExpiry, in_row: int, in_history: bool, database: Database, db: asyncpg.Connection
) -> None:
    async with leased(database, ACCOUNT, "incremental", privacy=replace(Privacy(), after_expiry=rule)) as run:
        await put(database, run, 1, status="New", customerProfile={"name": "C", "team": TEAM})
        await put(database, run, 2, status="Closed", customerProfile={"name": "C", "team": TEAM})
        hidden: dict[str, Any] = {"status": "Closed", "customerProfile": {"name": "C", "team": []}}
        assert (await put(database, run, 3, **hidden)).updated == 1
        for by_id in (False, True):
            assert (await put(database, run, 3, by_id=by_id, **hidden)).unchanged == 1, "and then it costs nothing"
        assert await db.fetchval("SELECT count(*) FROM partner_center.referral_customer_contacts") == in_row
        assert (await put(database, run, 4, **hidden)).updated == 1
        assert await db.fetchval("SELECT count(*) FROM partner_center.referral_customer_contacts") == in_row
    history = await db.fetchval("SELECT string_agg(payload::text, ' ') FROM partner_center.referral_history")
    assert ("given@example.com" in history) == in_history
    payload = await db.fetchval("SELECT payload::text FROM partner_center.referrals")
    assert ("given@example.com" in payload) == bool(in_row)
    await assert_chain(db)


async def test_contacts_taken_off_an_open_deal_are_simply_a_change(database: Database, db: asyncpg.Connection) -> None:
    async with leased(database, ACCOUNT, "incremental", privacy=Privacy(after_expiry=AfterExpiry.KEEP)) as run:
        await put(database, run, 1, status="Active", customerProfile={"team": TEAM})
        await put(database, run, 2, status="Active", customerProfile={"team": []})
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_customer_contacts") == 0


UNDOCUMENTED: dict[str, bytes] = {
    "profile": b'{"id":"profile",%s,"customerProfile":[{"team":[{"email":"zoe@quux.example"}]}]}',
    "phone": b'{"id":"phone",%s,"customerProfile":{"phoneNumber":"+1 555 0100"},"team":[{"mobile":"+1 555 0100"}]}',
    "case": b'{"id":"case",%s,"CustomerProfile":{"Team":[{"Email":"zoe@quux.example"}]},"Details":{"Notes":"zoe"}}',
    "twice": b'{"id":"twice",%s,"details":{"notes":"zoe"},"details":{"x":1e200000},"anything":1e200000}',
    "broken": b'{"id":"broken",%s,"details":{"notes":"zoe"},"details":{"notes":NaN}}',
    "keyed": b'{"id":"keyed",%s,"zoe@quux.example":1,"customerProfile":{"team":{"zoe@quux.example":"+1 555 0100"}}}',
    "nameless": b'{"id":7,%s,"customerProfile":[{"team":[{"email":"zoe@quux.example"}]}]}',
}


@pytest.mark.parametrize("contacts", ["hash", "drop"])
async def test_no_record_lets_people_through_whatever_its_shape(
    contacts: str, database_url: str, database: Database, db: asyncpg.Connection, pipeline: Pipeline,
    simulator: Control, simulator_origin: str, tmp_path: Path,
) -> None:  # fmt: skip
    """As it is read, as it is rejected, and as it is rewritten when the rule comes later."""
    await simulator.reset(3)
    times = b'"createdDateTime":"2024-05-01T10:00:00Z","updatedDateTime":"2024-05-01T10:00:00Z"'
    for name, raw in UNDOCUMENTED.items():
        await simulator.raw(name, raw.replace(b"%s", times))
    names = set(UNDOCUMENTED) - {"nameless", "broken", "twice"}
    people = {"zoe", "quux", "555 0100"}
    rules = settings(database_url, simulator_origin, tmp_path, contacts)
    for begun in ("under the rule", "before the rule"):
        if begun == "before the rule":
            await db.execute(
                "TRUNCATE partner_center.referrals, sync.rejected_records, sync.watermarks, sync.backfills CASCADE"
            )
            await db.execute("TRUNCATE partner_center.referral_versions")
            await db.execute(
                "UPDATE sync.settings SET value = 'keep' WHERE name LIKE 'privacy.%ed' OR name = 'privacy.contacts'"
            )
            await backfill_all(pipeline)
            assert set(await leaks(db, people)) == people
        async with wiring.open_pipeline(rules, database, ACCOUNT) as under_rule:
            await account.sync_account(under_rule)
        assert {row["id"] for row in await db.fetch("SELECT id FROM partner_center.referrals")} >= names
        assert await db.fetchval("SELECT count(*) FROM sync.rejected_records") == 3
        assert await leaks(db, people) == [], begun
        text = await db.fetchval("SELECT string_agg(r::text, ' ') FROM sync.runs r")
        assert not [word for word in people if word in text]
