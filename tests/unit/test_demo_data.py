"""The made-up referrals: the same for the same seed, consistent in themselves, and with the quirks of the real ones."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from worker.demo import ticks
from worker.demo.data import make_referral, make_referrals

NEWEST = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEGAL = {
    "New": {"Pending", "Received"},
    "Active": {"Accepted"},
    "Closed": {"Won", "Lost", "Declined", "Expired", "Error"},
}


@pytest.fixture(scope="module")
def referrals() -> list[dict[str, Any]]:
    return make_referrals(3000, 7, NEWEST)


def at(record: dict[str, Any], name: str) -> int:
    """Return the ticks of a time that the record must have."""
    instant = ticks.parse(record[name])
    assert instant is not None, record[name]
    return instant


def test_a_seed_always_gives_the_same_referrals() -> None:
    assert make_referrals(50, 3, NEWEST) == make_referrals(50, 3, NEWEST)
    assert make_referrals(50, 3, NEWEST) != make_referrals(50, 4, NEWEST)
    assert make_referrals(0, 3, NEWEST) == []


def test_ids_differ_and_look_like_guids(referrals: list[dict[str, Any]]) -> None:
    assert len({record["id"] for record in referrals}) == len(referrals)
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", record["id"]) for record in referrals)


def test_times_agree_with_each_other(referrals: list[dict[str, Any]]) -> None:
    newest = ticks.of(NEWEST)
    for record in referrals:
        created, updated = at(record, "createdDateTime"), at(record, "updatedDateTime")
        assert created <= updated <= newest
        if record["closedDateTime"]:
            assert created <= at(record, "closedDateTime") <= updated
            assert record["status"] == "Closed"
    assert max(at(record, "updatedDateTime") for record in referrals) == newest
    recent = sum(at(record, "createdDateTime") > newest - 180 * ticks.DAY for record in referrals)
    assert recent > len(referrals) * 0.4  # a quarter of the span


def test_states_are_legal_and_all_occur(referrals: list[dict[str, Any]]) -> None:
    seen: dict[str, set[str]] = {}
    for record in referrals:
        seen.setdefault(record["status"], set()).add(record["substatus"])
    assert seen == LEGAL


def test_every_category_occurs(referrals: list[dict[str, Any]]) -> None:
    kinds = Counter((record["type"], record.get("direction"), record["qualification"]) for record in referrals)
    for kind in (
        ("Shared", "Incoming", "SalesQualified"),
        ("Shared", "Outgoing", "None"),
        ("Independent", "Incoming", "Direct"),
        ("Independent", "Incoming", "MarketingQualified"),
        ("Independent", "Outgoing", "SalesQualified"),
    ):
        assert kinds[kind] > 20, kind
    inviters = {(record["inviteContext"] or {}).get("invitedBy", {}).get("organizationId") for record in referrals}
    assert {"msft", None} < inviters


def test_the_quirks_of_the_real_api_occur(referrals: list[dict[str, Any]]) -> None:
    text = msgspec.json.Encoder(decimal_format="number").encode(referrals).decode()
    assert "&amp;" in text
    assert "consentToToShareInfoWithOthers" in text
    assert re.search(r'"updatedDateTime":"[^"]{19}\.\d{6}Z"', text)
    assert re.search(r'"closingDateTime":"[^"]+T18:30:00Z"', text)
    assert '"addressLine2":""' in text
    assert '"addressLine2":null' in text
    assert '"requirements":null' in text
    assert '"contactPreference":null' in text
    assert any("direction" not in record for record in referrals)
    assert any(record["inviteContext"] is None for record in referrals)
    assert any(record.get("registrations") for record in referrals)
    assert any("registrations" not in record for record in referrals)
    assert any(
        at(record, "acceptedDateTime") < at(record, "createdDateTime")
        for record in referrals
        if record["acceptedDateTime"]
    )
    assert any(
        at(record, "updatedDateTime") - at(record, "closedDateTime") > ticks.DAY
        for record in referrals
        if record["closedDateTime"]
    )


def test_money_has_more_digits_than_a_float_and_is_written_as_a_number(referrals: list[dict[str, Any]]) -> None:
    values = [record["details"]["dealValue"] for record in referrals]
    assert all(value is None or isinstance(value, Decimal) for value in values)
    assert None in values
    long = next(
        value for value in values if value is not None and Decimal(float(value)) != value and len(str(value)) > 17
    )
    assert msgspec.json.Encoder(decimal_format="number").encode(long) == str(long).encode()


def test_groups_share_one_update_time() -> None:
    groups = Counter(
        at(record, "updatedDateTime") for record in make_referrals(600, 1, NEWEST, tie_share=1.0, tie_size=50)
    )
    assert max(groups.values()) >= 50
    assert (
        max(Counter(record["updatedDateTime"] for record in make_referrals(600, 1, NEWEST, tie_share=0)).values()) < 3
    )


def test_mail_addresses_lie_in_reserved_domains(referrals: list[dict[str, Any]]) -> None:
    members = [member for record in referrals for member in (*record["team"], *record["customerProfile"]["team"])]
    assert len(members) > len(referrals)
    assert all(member["email"].endswith((".example.com", ".example.org")) for member in members)


def test_a_new_referral_is_new() -> None:
    now = ticks.of(NEWEST)
    states = {
        (record["status"], at(record, "createdDateTime")) for record in (make_referral(i, now) for i in range(40))
    }
    assert states == {("New", now), ("Active", now)}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2020-10-30T21:03:00Z", "2020-10-30T21:03:00.0000000Z"),
        ("2020-10-30T23:03:00.5+02:00", "2020-10-30T21:03:00.5000000Z"),
        ("2020-10-30T21:03:00.123456789Z", "2020-10-30T21:03:00.1234567Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.0000000Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z"),
    ],
)
def test_ticks_keep_every_digit(text: str, same: str) -> None:
    instant = ticks.parse(text)
    assert instant is not None
    assert ticks.render(instant) == same


@pytest.mark.parametrize("text", ["", "2020-10-30", "2020-13-30T21:03:00Z", "2020-10-30T21:03:00", None, 5])
def test_what_is_no_time_is_none(text: object) -> None:
    assert ticks.parse(text) is None
