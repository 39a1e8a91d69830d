"""The simulated Partner Center lists, pages and refuses as documented, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import operator
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from worker.demo import ticks
from worker.demo.control import Control
from worker.demo.data import make_referrals
from worker.demo.simulator import Simulator, start
from worker.errors import SyncError

LIST = "/v1.0/engagements/referrals"
NEWEST = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 230


@dataclass
class Answer:
    """An answer as received."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The ids of its rows."""
        return [record["id"] for record in self.json["value"]]

    @property
    def token(self) -> str | None:
        """The raw query of the next link."""
        link = self.json.get("@odata.nextLink")
        return None if link is None else link.partition("?")[2]


class Client:
    """A careful client of one simulator."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def get(self, path: str = LIST, raw: str = "", **headers: str) -> Answer:
        """Send a good request, or one with other headers; `raw` is the query string as it stands."""
        sent = {"Authorization": "Bearer simulator", "client-request-id": str(uuid.uuid4()), **headers}
        url = URL(f"{self.simulator.origin}{path}{'?' if raw else ''}{raw}", encoded=True)
        async with self.session.get(url, headers=sent, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def page(self, **options: str) -> Answer:
        """Ask for the first page of a listing."""
        return await self.get(raw="&".join(f"${name}={quote(value)}" for name, value in options.items()))

    async def all(self, **options: str) -> list[dict[str, Any]]:
        """Follow the links to the end."""
        answer = await self.page(**options)
        rows = []
        while True:
            assert answer.status == 200, answer.body
            rows += answer.json["value"]
            if answer.token is None:
                return rows
            answer = await self.get(raw=answer.token)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    simulator = await start(make_referrals(COUNT, 5, NEWEST, tie_share=0.3))
    async with aiohttp.ClientSession() as session:
        yield Client(simulator, session)
    await simulator.stop()


@pytest.fixture
async def control(client: Client) -> AsyncIterator[Control]:
    async with Control(client.simulator.origin) as control:
        yield control


def updated(record: dict[str, Any]) -> int:
    instant = ticks.parse(record["updatedDateTime"])
    assert instant is not None
    return instant


def ids(records: list[dict[str, Any]]) -> list[str]:
    return [record["id"] for record in records]


# --- listing and paging


async def test_the_envelope_and_the_link_look_as_documented(client: Client) -> None:
    answer = await client.page()
    body = answer.json
    assert body["@odata.context"] == "http://api.partner.microsoft.com/v1.0/$metadata#Referrals"
    assert body["@odata.count"] == len(body["value"]) == 100
    assert body["@odata.nextLink"].startswith("http://api.partner.microsoft.com/v1.0/referrals?$skiptoken=")
    assert "%2f" in body["@odata.nextLink"]
    assert "%2b" in body["@odata.nextLink"]
    assert "eTag" not in body["value"][0]
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["request-id"]


async def test_following_links_reads_every_row_once(client: Client) -> None:
    rows = await client.all(orderby="updatedDateTime desc")
    assert len(rows) == COUNT
    assert len(set(ids(rows))) == COUNT
    times = [updated(row) for row in rows]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("change", [("%2f", "%2F"), ("%2b", "%2B"), ("%2f", "/"), ("%2b", "+"), ("k181", "k182")])
async def test_a_token_whose_bytes_were_changed_is_refused(client: Client, change: tuple[str, str]) -> None:
    token = (await client.page()).token
    assert token is not None
    assert (await client.get(raw=token)).status == 200
    answer = await client.get(raw=token.replace(*change))
    assert answer.status == 400
    assert answer.json["error"]["target"] == "$skiptoken"


async def test_the_path_in_the_documented_link_does_not_exist(client: Client) -> None:
    assert (await client.get("/v1.0/referrals", (await client.page()).token or "")).status == 404


@pytest.mark.parametrize(
    ("shape", "beginning"), [("relative", "v1.0/engagements/referrals?$skipToken="), ("full", "{origin}{path}?$skip")]
)
async def test_links_come_in_other_shapes(client: Client, shape: str, beginning: str) -> None:
    client.simulator.behave(link=shape)
    link = (await client.page()).json["@odata.nextLink"]
    assert link.startswith(beginning.format(origin=client.simulator.origin, path=LIST))
    assert len(await client.all()) == COUNT


async def test_a_token_may_not_carry_the_query(client: Client) -> None:
    client.simulator.behave(token_carries_query=False, page_size=10)
    first = await client.page(filter="status eq 'Closed'")
    bare = await client.get(raw=first.token or "")
    assert {row["status"] for row in bare.json["value"]} != {"Closed"}
    again = await client.get(raw=f"$filter=status%20eq%20%27Closed%27&{first.token}")
    assert {row["status"] for row in again.json["value"]} == {"Closed"}


async def test_rows_shift_between_pages_of_offsets_but_not_of_keys(client: Client) -> None:
    before = ids(await client.all(orderby="updatedDateTime asc"))
    for paging, missing in (("offset", {before[100]}), ("keyset", set[str]())):
        client.simulator.behave(paging=paging)
        order = ids(await client.all(orderby="updatedDateTime asc"))
        first = await client.page(orderby="updatedDateTime asc")
        client.simulator.delete(order[0])  # the rows behind move up by one
        read = first.ids
        answer = first
        while answer.token is not None:
            answer = await client.get(raw=answer.token)
            read += answer.ids
        assert set(order) - set(read) == missing


async def test_top_and_skip_bound_the_whole_answer(client: Client) -> None:
    client.simulator.behave(page_size=20)
    everything = ids(await client.all(orderby="createdDateTime"))
    assert ids(await client.all(orderby="createdDateTime", top="50", skip="7")) == everything[7:57]
    assert ids(await client.all(orderby="createdDateTime", top="20")) == everything[:20]


async def test_select_and_count(client: Client) -> None:
    answer = await client.page(select="id,status,customerProfile", count="true")
    assert answer.json["@odata.count"] == COUNT
    assert set(answer.json["value"][0]) == {"id", "status", "customerProfile"}
    assert (await client.page(select="nonsense")).status == 400


# --- filter and order


async def test_time_filters_are_exact_to_a_tick(client: Client) -> None:
    rows = await client.all(orderby="updatedDateTime asc")
    middle = updated(rows[117])
    for sign in ("ge", "gt", "le", "lt", "eq", "ne"):
        holds = getattr(operator, sign)
        found = await client.all(filter=f"updatedDateTime {sign} {ticks.render(middle)}", orderby="updatedDateTime asc")
        assert ids(found) == [row["id"] for row in rows if holds(updated(row), middle)], sign


async def test_filters_combine(client: Client) -> None:
    rows = await client.all()
    bound = rows[3]["createdDateTime"]
    lower = ticks.parse(bound)
    assert lower is not None
    found = await client.all(
        filter=f"(status eq 'New' or (status eq 'Closed' and not substatus eq 'Won')) and createdDateTime ge {bound}",
        orderby="updatedDateTime desc",
    )
    wanted = {
        row["id"]
        for row in rows
        if (row["status"] == "New" or (row["status"] == "Closed" and row["substatus"] != "Won"))
        and (ticks.parse(row["createdDateTime"]) or 0) >= lower
    }
    assert set(ids(found)) == wanted
    assert found == sorted(found, key=lambda row: (updated(row), row["id"]), reverse=True)


async def test_paths_guids_and_lambdas_are_understood(client: Client) -> None:
    rows = await client.all()
    one = rows[0]
    email = one["team"][0]["email"]
    assert one["id"] in ids(await client.all(filter=f"team/any(t:t/email eq '{email}')"))
    assert ids(await client.all(filter=f"engagementId eq {one['engagementId']}")) == [one["id"]]
    assert ids(await client.all(filter=f"engagementId eq '{one['engagementId']}'")) == [one["id"]]
    country = one["customerProfile"]["address"]["country"]
    found = await client.all(filter=f"customerProfile/address/country eq '{country}' and direction eq 'Incoming'")
    assert set(ids(found)) == {
        row["id"]
        for row in rows
        if row["customerProfile"]["address"]["country"] == country and row.get("direction") == "Incoming"
    }


async def test_several_keys_order_in_their_own_directions(client: Client) -> None:
    rows = await client.all(orderby="updatedDateTime desc,id asc")
    assert ids(rows) == ids(sorted(sorted(rows, key=lambda row: str(row["id"])), key=updated, reverse=True))
    assert ids(rows) != ids(await client.all(orderby="updatedDateTime desc,id desc"))
    client.simulator.behave(paging="keyset", page_size=7)
    assert ids(await client.all(orderby="updatedDateTime desc,id asc")) == ids(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"filter": "updatedDateTime ge yesterday"},
        {"filter": "updatedDateTime ge '2024-01-01T00:00:00Z'"},
        {"filter": "nonsense eq 'x'"},
        {"filter": "status eq 'New' and"},
        {"filter": "status eq 'New') or (id eq 'x'"},
        {"filter": "status like 'New'"},
        {"orderby": "name"},
        {"orderby": "updatedDateTime down"},
        {"top": "-1"},
        {"apply": "groupby((status))"},
    ],
)
async def test_a_bad_query_is_refused_with_an_odata_error(client: Client, options: dict[str, str]) -> None:
    answer = await client.page(**options)
    assert answer.status == 400
    assert answer.json["error"]["code"] == "invalidRequest"


async def test_a_server_may_reject_or_ignore_each_option(client: Client) -> None:
    bound = ticks.render(ticks.of(NEWEST))
    by_id = sorted(client.simulator.listing.rows)
    client.simulator.behave(filter_updated="reject", filter_created="ignore")
    assert (await client.page(filter=f"updatedDateTime ge {bound}")).status == 400
    assert len(await client.all(filter=f"createdDateTime gt {bound}")) == COUNT
    client.simulator.behave(order="ignore")
    assert ids(await client.all(orderby="updatedDateTime desc")) == by_id
    client.simulator.behave(order="reject")
    assert (await client.page(orderby="updatedDateTime desc")).status == 400


async def test_literals_may_be_wanted_quoted_rounded_or_compared_as_texts(client: Client) -> None:
    text = "2026-01-05T10:00:00"
    client.simulator.create([{"id": "b", "updatedDateTime": f"{text}.5000000Z"}])
    ask = "id eq 'b' and updatedDateTime ge "
    assert ids(await client.all(filter=f"{ask}{text}.6Z")) == []
    client.simulator.behave(literal_rounding="string")
    assert ids(await client.all(filter=f"{ask}{text}Z")) == []  # '.' sorts before 'Z'
    client.simulator.behave(literal_rounding="second", date_literal="quoted")
    assert ids(await client.all(filter=f"{ask}'{text}.4Z'")) == ["b"]
    assert ids(await client.all(filter=f"{ask}'{text}.5Z'")) == []  # up to the next second
    assert (await client.page(filter=f"{ask}{text}Z")).status == 400


async def test_ties_may_lie_differently_for_each_request(client: Client) -> None:
    moment = "2026-03-02T00:00:00.0000000Z"
    client.simulator.create({"id": f"tie-{number:03}", "updatedDateTime": moment} for number in range(150))
    client.simulator.rng = random.Random(4)
    client.simulator.behave(ties="random")
    first, second = [await client.page(orderby="updatedDateTime desc") for _ in range(2)]
    assert first.ids != second.ids
    assert all(row_id.startswith("tie-") for row_id in first.ids + second.ids)
    rows = await client.all(orderby="updatedDateTime desc")
    assert [updated(row) for row in rows] == sorted((updated(row) for row in rows), reverse=True)
    assert len(rows) == COUNT + 150
    settled = [await client.page(orderby="updatedDateTime desc,id desc") for _ in range(2)]
    assert settled[0].ids == settled[1].ids


# --- what is shown


async def test_a_record_by_id_has_its_entity_tag_and_the_malformed_links(client: Client) -> None:
    listed = (await client.page()).json["value"][0]
    answer = await client.get(f"{LIST}/{listed['id']}")
    record = answer.json
    assert record["eTag"] == answer.headers["ETag"]
    assert record["eTag"].startswith('"')
    assert record["links"]["self"]["uri"].endswith(f"/referrals{listed['id']}")
    for member in ("@odata.context", "eTag", "links"):
        record.pop(member)
    listed.pop("links")
    assert record == listed


async def test_an_unknown_id_is_not_found(client: Client) -> None:
    answer = await client.get(f"{LIST}/{uuid.uuid4()}")
    assert answer.status == 404
    assert answer.json["error"]["code"] == "itemNotFound"


async def test_a_list_may_be_partial_or_carry_entity_tags(client: Client) -> None:
    row_id = next(row_id for row_id, row in client.simulator.listing.rows.items() if row.record.get("registrations"))
    client.simulator.behave(thin_list=True, list_etag=True)
    [listed] = await client.all(filter=f"id eq '{row_id}'")
    record = (await client.get(f"{LIST}/{row_id}")).json
    assert listed["eTag"] == record["eTag"]
    assert "registrations" not in listed
    assert "team" not in listed["customerProfile"]
    assert record["registrations"]
    assert "team" in record["customerProfile"]


async def test_a_lost_role_hides_rows_from_list_and_id(client: Client) -> None:
    client.simulator.behave(visible_fraction=0.5)
    seen = set(ids(await client.all()))
    assert 0.3 * COUNT < len(seen) < 0.7 * COUNT
    hidden = next(row_id for row_id in client.simulator.state()["referrals"] if row_id not in seen)
    assert (await client.get(f"{LIST}/{hidden}")).status == 404
    client.simulator.behave(visible_fraction=1.0, visible_ids=[hidden])
    assert ids(await client.all()) == [hidden]
    client.simulator.behave(visible_ids=None)
    assert len(await client.all()) == COUNT


async def test_late_rows_show_when_revealed(client: Client, control: Control) -> None:
    await control.behaviour(reveal_delay=None)
    [created] = await control.create([{"name": "late"}])
    known = (await client.page()).ids[0]
    await control.update(known, {"name": "edited"})
    assert (await client.get(f"{LIST}/{created['id']}")).status == 404
    assert (await client.get(f"{LIST}/{known}")).json["name"] != "edited"
    assert set((await control.state())["pending"]) == {created["id"], known}
    assert await control.reveal() == 2
    assert (await client.get(f"{LIST}/{created['id']}")).json["name"] == "late"
    assert (await client.get(f"{LIST}/{known}")).json["name"] == "edited"


async def test_late_rows_show_after_their_delay(client: Client) -> None:
    client.simulator.behave(reveal_delay=0.05)
    [created] = client.simulator.create([{}])
    async with asyncio.timeout(10):
        while created["id"] not in ids(await client.all()):
            pass


# --- writes through the controls


async def test_created_referrals_get_their_given_members_and_the_time_of_now(client: Client, control: Control) -> None:
    before = ticks.now()
    first, second = await control.create([{"details": {"dealValue": 1.5}}, {"id": "mine", "status": "Active"}])
    assert before <= updated(first) < updated(second) <= ticks.now()
    assert second["id"] == "mine"
    body = (await client.get(f"{LIST}/{first['id']}")).body
    assert b'"dealValue":1.5,' in body
    assert b'"currency"' in body


async def test_updates_merge_and_move_the_time_unless_silent(client: Client, control: Control) -> None:
    [row] = await control.create([{}])
    loud = await control.update(row["id"], {"details": {"notes": "changed"}, "team": []})
    assert updated(loud) > updated(row)
    assert loud["details"]["dealValue"] == row["details"]["dealValue"]
    assert loud["details"]["notes"] == "changed"
    assert loud["team"] == []
    assert loud["eTag"] != row["eTag"]
    silent = await control.update(row["id"], {"name": "quiet"}, silent=True, remove=["details/notes"])
    assert silent["updatedDateTime"] == loud["updatedDateTime"]
    assert silent["eTag"] != loud["eTag"]
    assert "notes" not in silent["details"]
    past = await control.update(row["id"], {"updatedDateTime": "2026-01-01T00:00:00.0000001Z"})
    assert past["updatedDateTime"] == "2026-01-01T00:00:00.0000001Z"
    assert row["id"] not in ids(await client.all(filter="updatedDateTime gt 2026-01-01T00:00:00.0000001Z"))
    assert row["id"] in ids(await client.all(filter="updatedDateTime ge 2026-01-01T00:00:00.0000001Z"))


async def test_state_tells_the_truth(client: Client, control: Control) -> None:
    [row] = await control.create([{}])
    await control.delete((await client.page()).ids[0])
    state = await control.state(full=True)
    rows = {record["id"]: record for record in await client.all()}
    assert state["count"] == COUNT == len(rows)
    assert state["referrals"] == {row_id: record["updatedDateTime"] for row_id, record in rows.items()}
    assert state["records"][row["id"]] == row


async def test_money_passes_with_every_digit(client: Client, control: Control) -> None:
    state = await control.state(full=True)
    row_id, value = max(
        (
            (row_id, record["details"]["dealValue"])
            for row_id, record in state["records"].items()
            if record["details"]["dealValue"] is not None
        ),
        key=lambda pair: len(str(pair[1])),
    )
    assert len(str(value)) > 17
    assert f'"dealValue":{value},'.encode() in (await client.get(f"{LIST}/{row_id}")).body


@pytest.mark.parametrize("body", [b'{"id":"bad","name":"\\u0000"}', b'{"id":"bad","n":"\\ud800"}', b"\xff\xfe", b"NaN"])
async def test_raw_bytes_are_sent_as_they_are(client: Client, control: Control, body: bytes) -> None:
    await control.raw("bad", body, updated="2099-01-01T00:00:00Z")
    client.simulator.behave(page_size=1)
    answer = await client.page(orderby="updatedDateTime desc")
    assert b'"value":[' + body + b"]" in answer.body
    assert (await client.get(f"{LIST}/bad")).body == body
    assert (await control.state())["raw"] == ["bad"]
    with pytest.raises(SyncError, match="raw bytes"):
        await control.update("bad", {"name": "good"})


async def test_reset_makes_everything_anew(client: Client, control: Control) -> None:
    await control.faults({"status": 500, "times": -1})
    await control.reset(17, seed=9)
    assert len(await client.all()) == 17


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda control: control.behaviour(nonsense=1), "nonsense"),
        (lambda control: control.behaviour(page_size="many"), "page_size"),
        (lambda control: control.behaviour(page_size=0), "page_size"),
        (lambda control: control.faults({"kind": "nonsense"}), "kind"),
        (lambda control: control.faults({"path": "("}), "regular expression"),
        (lambda control: control.update("none", {}), "no referral"),
        (lambda control: control.delete("none"), "no referral"),
        (lambda control: control.raw("x", b"", updated="soon"), "timestamp"),
        (lambda control: control.tokens(nonsense=[]), "nonsense"),
    ],
)
async def test_a_bad_order_is_refused_with_its_reason(control: Control, order: Any, message: str) -> None:
    with pytest.raises(SyncError, match=message):
        await order(control)


# --- headers and access


async def test_calls_without_a_good_token_are_refused(client: Client, control: Control) -> None:
    answer = await client.get(Authorization="Bearer other")
    assert answer.status == 401
    assert answer.json["error"]["code"] == "unauthenticated"
    assert "invalid_token" in answer.headers["WWW-Authenticate"]
    await control.tokens(add=["other"], revoke=["simulator"])
    assert (await client.get(Authorization="Bearer other")).status == 200
    assert (await client.get()).status == 401


async def test_each_call_needs_a_request_id_of_its_own(client: Client) -> None:
    mine = {"client-request-id": str(uuid.uuid4())}
    answer = await client.get(**mine)
    assert answer.status == 200
    assert answer.headers["client-request-id"] == mine["client-request-id"]
    assert (await client.get(**mine)).status == 400
    assert (await client.get(**{"client-request-id": "nonsense"})).status == 400
    client.simulator.behave(require_request_id=False)
    assert (await client.get(**mine)).status == 200


async def test_only_json_can_be_had(client: Client) -> None:
    assert (await client.get(Accept="text/xml")).status == 406


async def test_the_date_header_follows_the_clock_that_was_set(client: Client, control: Control) -> None:
    await control.clock(-86400)
    date = parsedate_to_datetime((await client.get()).headers["Date"])
    assert 86000 < (datetime.now(UTC) - date).total_seconds() < 87000


async def test_requests_are_logged_raw(client: Client, control: Control) -> None:
    token = (await client.page()).token
    await client.get(raw=token or "")
    await client.get(Authorization="Bearer other")
    log = await control.requests()
    assert [(entry["method"], entry["status"], entry["rows"]) for entry in log] == [
        ("GET", 200, 100),
        ("GET", 200, 100),
        ("GET", 401, 0),
    ]
    assert log[1]["path"] == f"{LIST}?{token}"
    assert log[0]["time"] <= log[1]["time"]
    await control.clear_requests()
    assert await control.requests() == []


async def test_too_many_requests_at_once_are_throttled(client: Client, control: Control) -> None:
    await control.behaviour(max_concurrent=1)
    await control.faults({"kind": "hang"})
    held = asyncio.create_task(client.get())
    async with asyncio.timeout(10):
        while not await control.requests():
            pass
    answer = await client.get()
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "1"
    held.cancel()
