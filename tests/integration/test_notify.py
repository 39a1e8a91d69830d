"""People are told what is true, once: from the change to the message that a real service takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.receiver import Receiver, receiver
from tests.support.referrals import incoming
from tests.support.runs import leased
from tests.support.steps import backfill_all, reconcile_once, sync_once
from worker.config.models import Settings
from worker.config.sources import load
from worker.demo.control import Control
from worker.errors import LeaseError, SignInError
from worker.notify import outbox, records
from worker.notify.delivery import deliver_due, preview
from worker.store import erase
from worker.store.save import save
from worker.sync.pipeline import Pipeline

STRANGER = (
    "<!channel> <b>Sale</b> *now* [click](http://evil.example/x) @everyone www.evil.example "
    "\u202egnp.exe\u202c \u200fabc\u0000\u0007 <script>alert(1)</script> " + "very long " * 400
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


@pytest.fixture
async def taking(service: Receiver) -> Receiver:
    """The receiver, as if it had just begun."""
    service.file.unlink(missing_ok=True)
    await service.behave()
    return service


def settings(*channels: str, **keys: Any) -> Settings:
    """Settings with channels named a, b, ...; `keys` are of all of them, or of one (`a__digest`)."""
    variables = {
        "REFERRAL_SYNC_DATABASE__URL": "postgresql://unused@127.0.0.1/x",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "simulator",
    }
    for name, url in zip("abcdef", channels, strict=False):
        prefix = f"REFERRAL_SYNC_NOTIFY__CHANNELS__{name.upper()}__"
        variables[prefix + "URL"] = url
        for key, value in keys.items():
            of, dash, own = key.partition("__")
            if not dash or of == name:
                variables[prefix + (own or key).upper()] = value if isinstance(value, str) else json.dumps(value)
    return load(variables)


async def introduced(pipeline: Pipeline, chosen: Settings, taking: Receiver) -> None:
    """Load what there is, and take the first summary away."""
    await backfill_all(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == len(chosen.notify.channels)
    taking.file.unlink()


async def test_a_change_becomes_one_message(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(20)
    await introduced(pipeline, chosen, taking)
    (made,) = await simulator.create([incoming(12, name="Contoso migration")])
    await sync_once(pipeline)
    assert await db.fetchval("SELECT count(*) FROM sync.events WHERE kind = 'new'") == 1
    assert await deliver_due(pipeline.database, chosen) == 1
    assert await deliver_due(pipeline.database, chosen) == 0
    (message,) = taking.messages()
    assert message["title"] == "New referral: Contoso migration"
    assert "Answer by" in message["text"]
    assert "11 days 23 hours left" in message["text"]
    assert message["key"] == str(await db.fetchval("SELECT id FROM sync.messages ORDER BY created_at DESC LIMIT 1"))

    taking.file.unlink()
    await simulator.update(made["id"], {"details": {"dealValue": 5_000_000.5, "currency": "EUR"}})
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    await simulator.update(made["id"], {"status": "Closed", "substatus": "Won"})
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert [one["title"] for one in taking.messages()] == ["Value changed: Contoso migration", "Won: Contoso migration"]
    assert "to EUR 5,000,000.50" in taking.messages()[0]["text"]


async def test_what_is_rolled_back_was_never_sent(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(5)
    await backfill_all(pipeline)
    await simulator.create([incoming(12)])
    pages = await pipeline.client.list("")
    async with leased(pipeline.database, pipeline.account, "refresh") as run:
        await db.execute("UPDATE sync.leases SET fence = fence + 1 WHERE kind = 'refresh'")
        from worker.model.mapping import map_pages  # noqa: PLC0415
        from worker.model.record import Page  # noqa: PLC0415

        with pytest.raises(LeaseError):
            await save(pipeline.database, run, map_pages([Page(pages.records, None, pages.observed_at)]))
    assert await db.fetchval("SELECT count(*) FROM sync.events") == 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 5


async def test_a_first_backfill_is_one_summary(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    chosen = settings(taking.url)
    await simulator.reset(500)
    await deliver_due(pipeline.database, chosen)
    assert taking.messages() == []
    await backfill_all(pipeline)
    for _ in range(3):
        await deliver_due(pipeline.database, chosen)
    (summary,) = taking.messages()
    assert summary["title"].startswith("Referrals: ")
    assert summary["text"].startswith("contoso: data as of ")
    assert "not verified yet" in summary["text"].splitlines()[0]
    await reconcile_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == 1, "a reconcile without changes says nothing"


async def test_each_threshold_is_sent_once_and_the_answered_not_at_all(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url, events=["due", "overdue"])
    await simulator.reset(0)
    await simulator.create([incoming(7.5, name="Near"), incoming(7.5, name="Answered")])
    await introduced(pipeline, chosen, taking)

    async def pass_days(days: float) -> None:
        await db.execute(
            "UPDATE partner_center.referrals SET expires_at = expires_at - $1::interval", timedelta(days=days)
        )
        for _ in range(2):
            await deliver_due(pipeline.database, chosen)

    await db.execute(
        "UPDATE partner_center.referrals SET status = 'Active', accepted_at = now() WHERE name = 'Answered'"
    )
    await pass_days(0)
    assert taking.messages() == []
    await pass_days(1)
    assert [one["title"] for one in taking.messages()] == ["6 days 11 hours left: Near"]
    await pass_days(0)
    assert len(taking.messages()) == 1
    await pass_days(6)
    assert [one["title"] for one in taking.messages()][1:] == ["11 hours 59 minutes left: Near"]
    await pass_days(1)
    assert [one["title"] for one in taking.messages()][2:] == ["Deadline passed: Near"]
    await pass_days(0)
    assert len(taking.messages()) == 3


async def test_a_referral_that_is_news_is_not_due_as_well(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(2.5, name="Late")])
    await sync_once(pipeline)
    for _ in range(2):
        await deliver_due(pipeline.database, chosen)
    assert [one["title"] for one in taking.messages()] == ["New referral: Late"]
    await db.execute("UPDATE sync.events SET recorded_at = recorded_at - interval '2 days'")
    await db.execute("UPDATE partner_center.referrals SET expires_at = expires_at - interval '2 days'")
    await deliver_due(pipeline.database, chosen)
    assert [one["title"] for one in taking.messages()][1:] == ["11 hours 59 minutes left: Late"]


async def test_a_deal_found_after_the_fact_is_sent_with_its_true_time(
    pipeline: Pipeline, simulator: Control, taking: Receiver
) -> None:
    """An edit that moves no time is found by a reconcile only."""
    chosen = settings(taking.url)
    await simulator.reset(0)
    past = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M:%S}.0000000Z"
    details = {"dealValue": 5, "currency": "EUR"}
    quiet = incoming(10, name="Quiet", details=details, createdDateTime=past, updatedDateTime=past)
    made, _ = await simulator.create([quiet, {}])
    await introduced(pipeline, chosen, taking)
    await simulator.update(made["id"], {"details": {"dealValue": 7, "currency": "EUR"}}, silent=True)
    await sync_once(pipeline)
    assert await deliver_due(pipeline.database, chosen) == 0
    await reconcile_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    (message,) = taking.messages()
    assert message["title"] == "Value changed: Quiet"
    assert "From EUR 5.00 to EUR 7.00" in message["text"]
    assert " by reconcile" in message["text"]


async def test_what_was_answered_while_the_channel_failed_is_not_due_any_more(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url, events=["due"])
    await simulator.reset(0)
    await simulator.create([incoming(2.5, name="Near")])
    await introduced(pipeline, chosen, taking)
    await db.execute("DELETE FROM sync.events")
    await taking.behave(status=503)
    await deliver_due(pipeline.database, chosen)
    assert [one["status"] for one in taking.messages()] == [503]
    await taking.behave()
    await db.execute("UPDATE partner_center.referrals SET status = 'Active', accepted_at = now()")
    await db.execute("UPDATE sync.messages SET next_at = now()")
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == 1
    assert await db.fetchval("SELECT state FROM sync.messages WHERE kind = 'event'") == "dropped"


@pytest.mark.parametrize("how", [{"status": 429}, {"status": 500}, {"status": 404}, {"status": 503, "size": 1 << 20}])
async def test_a_failing_channel_is_tried_again_and_given_up_in_sight(
    how: dict[str, int], pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(12)])
    await sync_once(pipeline)
    await taking.behave(**how)
    await deliver_due(pipeline.database, chosen)
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == 1, "the pause has begun"
    (row,) = await records.state(pipeline.database, ["a"])
    assert (row["waiting_messages"], row["waiting_events"], row["failed"]) == (1, 1, 1)
    assert row["last_error"] == f"Channel a: the service answered HTTP {how['status']}."
    await db.execute(
        "UPDATE sync.messages SET next_at = now(), created_at = now() - interval '25 hours' WHERE state = 'waiting'"
    )
    await deliver_due(pipeline.database, chosen)
    (row,) = await records.state(pipeline.database, ["a"])
    assert (row["waiting_messages"], row["given_up"], row["given_up_lately"]) == (0, 1, 1)
    await taking.behave()
    await simulator.create([incoming(12)])
    await sync_once(pipeline)
    assert await deliver_due(pipeline.database, chosen) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://very-secret", "apprise knows no service nosuch://"),
        ("slack://very-secret", "its URL is not as slack:// needs it"),
        ("json://127.0.0.1:9/very-secret", "the service cannot be reached, or refused the sign-in"),
        ("json://very-secret.invalid/x", "the service cannot be reached, or refused the sign-in"),
    ],
)
async def test_a_channel_that_cannot_work_says_so_and_holds_up_no_other(
    url: str, message: str, pipeline: Pipeline, simulator: Control, taking: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(url, taking.url)
    await simulator.reset(3)
    await backfill_all(pipeline)
    assert await deliver_due(pipeline.database, chosen) == 1
    bad, good = await records.state(pipeline.database, ["a", "b"])
    assert bad["last_error"] == f"Channel a: {message}."
    assert (bad["waiting_messages"], good["sent"]) == (1, 1)
    assert "very-secret" not in "".join(capfd.readouterr()) + str(bad)


async def test_a_burst_is_one_digest(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    chosen = settings(taking.url, taking.mail)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(10 + number / 1000, name=f"Deal {number}") for number in range(300)])
    await sync_once(pipeline)
    for _ in range(3):
        await deliver_due(pipeline.database, chosen)
    assert Counter(one["how"] for one in taking.messages()) == {"http": 1, "smtp": 1}
    message = taking.messages("http")[0]
    assert message["title"] == "Referrals: 300 changes"
    assert "New (300)" in message["text"]
    assert "... and 275 more" in message["text"]
    assert len(message["text"]) < 32_768


async def test_a_digest_by_a_cron_line_gathers(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url, digest="0 8 * * *")
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(12, name="One"), incoming(3, name="Two")])
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert taking.messages() == []
    for expected in (1, 1):
        await db.execute("UPDATE sync.channels SET digested_at = now() - interval '1 day' WHERE sent < 2")
        await deliver_due(pipeline.database, chosen)
        assert len(taking.messages()) == expected
    text = taking.messages()[0]["text"]
    assert text.index("Awaiting an answer (2)") < text.index("Two") < text.index("One") < text.index("New (2)")


async def test_nothing_is_said_to_wait_only_from_a_fresh_copy(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url, digest="0 8 * * *")
    await simulator.reset(0)
    await backfill_all(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert "Nothing awaits an answer." in taking.messages()[0]["text"]
    await db.execute("UPDATE sync.runs SET started_at = now() - interval '5 hours'")
    await db.execute("UPDATE sync.channels SET digested_at = now() - interval '1 day'")
    await deliver_due(pipeline.database, chosen)
    old = taking.messages()[1]
    assert old["text"].startswith("Warning: the data of contoso is old: as of ")
    assert "5 hours ago" in old["text"].splitlines()[0]
    assert "Nothing awaits" not in old["text"]
    assert old["title"] == "Data 5 hours old. Referrals"


async def test_stale_and_well_again_are_sent_once(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(3)
    await introduced(pipeline, chosen, taking)
    await db.execute("UPDATE sync.runs SET started_at = now() - interval '5 hours'")
    await deliver_due(pipeline.database, chosen, up_since=datetime.now(UTC))
    assert taking.messages() == [], "a daemon that has just begun has yet to look"
    for _ in range(3):
        await deliver_due(pipeline.database, chosen)
    await sync_once(pipeline)
    for _ in range(3):
        await deliver_due(pipeline.database, chosen)
    assert [one["title"] for one in taking.messages()] == ["No fresh data: contoso", "Recovered: contoso"]


async def test_a_refused_sign_in_is_sent_once(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(3)
    await introduced(pipeline, chosen, taking)
    await simulator.tokens(revoke="all")
    for _ in range(2):
        with pytest.raises(Exception, match="refused"):
            await sync_once(pipeline)
        await deliver_due(pipeline.database, chosen)
    assert [one["title"] for one in taking.messages()] == ["Action required: contoso"]
    assert "The API refused" in taking.messages()[0]["text"]


async def test_an_mfa_refusal_says_so(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    chosen = settings(taking.url)
    await simulator.reset(3)
    await introduced(pipeline, chosen, taking)
    await simulator.faults({"kind": "status", "status": 401, "code": 900421, "body": "family", "times": -1})
    with pytest.raises(SignInError, match="asks for a sign-in with MFA"):
        await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    (message,) = taking.messages()
    assert "Partner Center asks for a sign-in with MFA (HTTP 401 900421" in message["text"]


async def test_what_was_decided_is_remembered_as_long_as_it_waits(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    waiting, closed = await simulator.create([incoming(10), incoming(10)])
    await simulator.update(waiting["id"], {"name": "Waiting"})
    await sync_once(pipeline)
    await simulator.update(closed["id"], {"status": "Closed", "substatus": "Lost"})
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    while await records.delete_old(pipeline.database, "-1 seconds"):
        pass
    assert await db.fetchval("SELECT count(*) FROM sync.messages") == 0
    assert [row["referral_id"] for row in await db.fetch("SELECT referral_id FROM sync.events")] == [waiting["id"]]


async def test_a_stranger_writes_no_markup(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    chosen = settings(taking.url, taking.mail)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(10, name=STRANGER, customerProfile={"name": STRANGER}, team=[])])
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    http, mail = taking.messages("http"), taking.messages("smtp")
    assert (len(http), len(mail)) == (1, 1)
    for text in (
        http[0]["title"],
        http[0]["text"],
        mail[0]["title"],
        mail[0]["text"],
        mail[0]["html"].partition("<body")[2],
    ):
        for sign in (
            "<!",
            "<b>",
            "<script",
            "@",
            "http://evil",
            "evil.example",
            "[click]",
            "*now*",
            "\u202e",
            "\u200f",
            "\x07",
        ):
            assert sign not in text.replace("sync@example.com", ""), sign
    assert len(http[0]["text"]) < 800


async def test_another_channel_later_gets_one_summary(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    await simulator.reset(0)
    await introduced(pipeline, settings(taking.url), taking)
    await simulator.create([incoming(0.5 + number) for number in range(40)])
    await sync_once(pipeline)
    chosen = settings(taking.url, taking.mail)
    for _ in range(2):
        await deliver_due(pipeline.database, chosen)
    assert len(taking.messages("smtp")) == 1
    assert "Awaiting an answer" in taking.messages("smtp")[0]["html"]


async def test_filters(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    chosen = settings(
        taking.url,
        taking.url,
        a__where__country=["DE"],
        a__where__direction="incoming",
        b__where__seller=["Ann@Example.com"],
    )
    await simulator.reset(0)
    await backfill_all(pipeline)
    await deliver_due(pipeline.database, chosen)
    taking.file.unlink()
    await simulator.create(
        [
            incoming(10, name="German", customerProfile={"address": {"country": "DE"}}, team=[]),
            incoming(
                10, name="Ann's", customerProfile={"address": {"country": "FR"}}, team=[{"email": "ann@example.com"}]
            ),
            incoming(10, name="Neither", customerProfile={"address": {"country": "FR"}}, team=[]),
        ]
    )
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert sorted(one["title"] for one in taking.messages()) == ["New referral: Ann's", "New referral: German"]


async def test_what_is_forgotten_is_not_sent(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    (made,) = await simulator.create([incoming(10, name="Forgotten")])
    await sync_once(pipeline)
    await taking.behave(status=503)
    await deliver_due(pipeline.database, chosen)
    await erase.forget(pipeline.database, pipeline.account, made["id"])
    for table in ("events", "messages", "deliveries", "alarms"):
        assert "Forgotten" not in str(await db.fetch(f"SELECT t::text FROM sync.{table} t"))  # noqa: S608 - constants
        assert made["id"] not in str(await db.fetch(f"SELECT t::text FROM sync.{table} t"))  # noqa: S608 - constants
    await taking.behave()
    await db.execute("UPDATE sync.messages SET next_at = now()")
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == 1


async def test_a_preview_sends_and_writes_nothing(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(10, name="Soon")])
    await sync_once(pipeline)
    before = await db.fetch("SELECT * FROM sync.messages")
    for _ in range(2):
        pages = await preview(pipeline.database, chosen, "a")
        assert [page.title for page in pages] == ["New referral: Soon"]
    assert await db.fetch("SELECT * FROM sync.messages") == before
    assert not taking.file.exists()
    assert await deliver_due(pipeline.database, chosen) == 1


async def test_two_workers_tell_once(pipeline: Pipeline, simulator: Control, taking: Receiver) -> None:
    import asyncio  # noqa: PLC0415

    chosen = settings(taking.url)
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(10) for _ in range(5)])
    await sync_once(pipeline)
    await asyncio.gather(*(deliver_due(pipeline.database, chosen) for _ in range(4)))
    await deliver_due(pipeline.database, chosen)
    assert len(taking.messages()) == 5


async def test_five_thousand_due_at_once(
    pipeline: Pipeline, simulator: Control, taking: Receiver, db: asyncpg.Connection
) -> None:
    chosen = settings(taking.url, taking.mail, events=["due", "overdue"])
    await simulator.reset(0)
    await introduced(pipeline, chosen, taking)
    await simulator.create([incoming(9, name=f"Deal {number}") for number in range(5_000)])
    await sync_once(pipeline)
    await deliver_due(pipeline.database, chosen)
    assert not taking.file.exists()
    await db.execute("UPDATE partner_center.referrals SET expires_at = expires_at - interval '3 days'")
    for _ in range(2):
        await deliver_due(pipeline.database, chosen)
    assert Counter(one["how"] for one in taking.messages()) == {"http": 1, "smtp": 1}
    assert taking.messages("http")[0]["title"] == "Referrals: 5,000 changes"
    assert await outbox_is_empty(db)


async def outbox_is_empty(db: asyncpg.Connection) -> bool:
    return bool(
        await db.fetchval(
            "SELECT NOT EXISTS (SELECT FROM sync.deliveries WHERE message_id IS NULL)"
            " AND NOT EXISTS (SELECT FROM sync.messages WHERE state = 'waiting')"
        )
    )


def test_a_lease_of_a_channel_is_no_account() -> None:
    assert ":" in outbox.lease_of("sales")
