"""What is stored of people, by rule."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from worker.model.mapping import map_record
from worker.model.privacy import Contacts, Privacy
from worker.model.record import Record, decode_record

CONTACT = {
    "firstName": "Given", "lastName": "Family", "email": "Given@Example.com", "phoneNumber": "+1 555 0100",
    "title": "CTO", "mobileNumber": 15550101, "emailValidationStatus": "Valid",
    "contactPreference": {"locale": "en-US"},
}  # fmt: skip
SELLER = {
    "firstName": "Own",
    "email": "own@example.com",
    "phoneNumber": "+1 555 0199",
    "phoneValidationStatus": "Valid",
}
TREE = {
    "id": "a",
    "customerProfile": {"name": "Company", "team": [CONTACT, None]},
    "team": [SELLER],
    "details": {"notes": "Ask for Given", "dealValue": 5},
    "inviteContext": {"notes": "Family knows", "invitedMpnId": "7"},
}
PERSONAL = ("Given", "Family", "given@", "555", "CTO", "1555")
KEY = "0123456789abcdef" * 4


def admitted(tree: Any, contacts: Contacts, key: str = KEY) -> Record:
    return Privacy(contacts, key=key).admit(decode_record(msgspec.json.encode(tree)))


@pytest.mark.parametrize("contacts", [Contacts.HASH, Contacts.DROP])
def test_nobody_is_named_and_business_data_stays(contacts: Contacts) -> None:
    record = admitted(TREE, contacts)
    assert record.tree is not None
    assert msgspec.json.decode(record.raw) == record.tree
    text = record.raw.decode()
    assert [word for word in PERSONAL if word.casefold() in text.casefold()] == []
    assert record.tree["team"][0]["email"] == "own@example.com"
    assert record.tree["team"][0]["phoneValidationStatus"] == "Valid"
    assert (record.tree["customerProfile"]["name"], record.tree["details"]["dealValue"]) == ("Company", 5)
    assert record.tree["inviteContext"]["invitedMpnId"] == "7"


def test_dropped_members_are_absent_and_nothing_else() -> None:
    assert admitted(TREE, Contacts.DROP).tree == {
        "id": "a",
        "customerProfile": {"name": "Company"},
        "team": [{"firstName": "Own", "email": "own@example.com", "phoneValidationStatus": "Valid"}],
        "details": {"dealValue": 5},
        "inviteContext": {"invitedMpnId": "7"},
    }


def test_equal_values_stay_equal_and_only_with_the_key() -> None:
    first = admitted(TREE, Contacts.HASH).tree
    other = admitted(TREE | {"customerProfile": {"team": [{"email": " given@example.COM"}]}}, Contacts.HASH).tree
    assert first is not None
    assert other is not None
    contact = first["customerProfile"]["team"][0]
    assert contact["email"] == other["customerProfile"]["team"][0]["email"]
    assert contact["email"].startswith("hash:")
    assert contact["contactPreference"] == {"locale": "en-US"}
    assert contact["mobileNumber"].startswith("hash:"), "a member that nobody documented may name somebody"
    stranger = admitted(TREE, Contacts.HASH, key="another").tree
    assert stranger is not None
    assert stranger["customerProfile"]["team"][0]["email"] != contact["email"]


@pytest.mark.parametrize("contacts", list(Contacts))
def test_the_rule_may_be_applied_again(contacts: Contacts) -> None:
    privacy = Privacy(contacts, key=KEY)
    once = privacy.admit(decode_record(msgspec.json.encode(TREE)))
    assert privacy.admit(once) is once
    withheld = privacy.admit(decode_record(b'{"id": "a", "team": [}'))
    assert privacy.admit(withheld) is withheld


def test_a_record_that_nobody_can_read_is_withheld() -> None:
    """Where people are in it cannot be told; what is left still tells two such records apart."""
    first, second = (
        Privacy(Contacts.DROP, key=KEY).admit(decode_record(b'{"email": "given@example.com' + end))
        for end in (b"", b"}")
    )
    assert b"given" not in first.raw
    assert first.raw != second.raw
    assert "withheld" in first.fault
    kept = decode_record(b"{")
    assert Privacy(key=KEY).admit(kept) is kept


@pytest.mark.parametrize(
    "tree",
    [
        {"customerProfile": None, "team": None, "details": {"notes": None}, "inviteContext": None},
        {"customerProfile": [], "details": [], "inviteContext": {}},
        {"id": "a"},
    ],
)
def test_what_is_not_there_is_left_as_it_is(tree: dict[str, Any]) -> None:
    assert admitted(tree, Contacts.HASH).tree == tree


@pytest.mark.parametrize(
    "team", ["given@example.com", ["given@example.com"], {"email": "given@example.com"}, 5550100, [[5550100]]]
)
def test_other_shapes_than_the_documented_one_name_nobody_either(team: Any) -> None:
    for contacts in (Contacts.HASH, Contacts.DROP):
        text = admitted({"customerProfile": {"team": team}}, contacts).raw.decode()
        assert "given" not in text
        assert "555" not in text


SECRET = ("555", "zoe", "quux")
HOSTILE: dict[str, Any] = {
    "an array in place of the profile": {"customerProfile": [{"team": [{"email": "zoe@quux.example"}]}]},
    "a text in place of the profile": {"customerProfile": "zoe@quux.example"},
    "a phone beside the team": {"customerProfile": {"phoneNumber": "+1 555 0100"}},
    "a mobile of the seller": {"team": [{"mobile": "+1 555 0100", "email": "own@example.com"}]},
    "a number of the seller without a name for it": {"team": [{"reach": 5550100}]},
    "a text in place of a seller": {"team": "call 555 0100"},
    "another case": {"CustomerProfile": {"Team": [{"Email": "zoe@quux.example"}]}, "DETAILS": {"Notes": "zoe"}},
    "other signs between words": {"customer_profile": {"team": [{"e-mail": "zoe@quux.example"}]}},
    "letters that only look different": {"\uff23ustomer\uff30rofile": {"team": [{"first": "zoe"}]}},
    "notes as an object": {"details": {"notes": {"text": "zoe"}}},
    "details as an array": {"details": [{"notes": "zoe"}, "zoe"]},
    "an array in an array": {"details": [[{"notes": "zoe"}]]},
    "details as a text": {"details": "zoe", "inviteContext": "zoe"},
    "somebody who invited": {"inviteContext": {"invitedBy": {"name": "zoe", "organizationId": "o"}}},
    "an address under the address": {"customerProfile": {"address": ["zoe@quux.example"]}},
    "a name as an object": {"customerProfile": {"name": {"first": "zoe"}}},
    "an address as a company": {"customerProfile": {"name": "zoe@quux.example"}},
    "a name as a status": {"customerProfile": {"team": [{"emailValidationStatus": "Zoe"}]}},
    "a phone as a status": {"team": [{"phoneValidationStatus": 15550100}, {"emailValidationStatus": "555-0100"}]},
    "a phone as a switch": {"team": [{"contactPreference": {"disableNotifications": 15550100}}]},
    "a preference with an address": {"team": [{"contactPreference": {"locale": "zoe@quux.example", "by": "zoe"}}]},
    "a value that is a note": {"details": {"dealValue": "ask zoe", "closingDateTime": "zoe knows"}},
    "a contact of the record": {"primaryContact": {"x": "zoe"}, "phone": 5550100, "comments": ["zoe"]},
    "an address as a name of a member": {"zoe@quux.example": 1, "customerProfile": {"team": {"zoe": {"x": 5550100}}}},
    "an address deep in what nobody documents": {"new": [{"thing": [{"text": "write to zoe@quux.example"}]}]},
    "a phone in what nobody documents": {"new": {"thing": "ring +1 555 0100"}},
    "a profile deep in what nobody documents": {"new": [{"customerProfile": {"by": "zoe"}, "team": {"x": "zoe"}}]},
    "people in requirements": {"details": {"requirements": {"offers": [{"contactName": "zoe"}]}}},
}


@pytest.mark.parametrize("contacts", [Contacts.HASH, Contacts.DROP])
@pytest.mark.parametrize("tree", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_shape_no_case_and_no_place_lets_people_through(tree: dict[str, Any], contacts: Contacts) -> None:
    privacy = Privacy(contacts, key=KEY)
    record = privacy.admit(decode_record(msgspec.json.encode(tree)))
    assert [word for word in SECRET if word in re.sub("hash:[0-9a-f]{32}", "", record.raw.decode().casefold())] == []
    assert privacy.admit(record) is record, "applied again it changes nothing"


def test_what_is_known_to_be_harmless_stays() -> None:
    tree = {
        "id": "a",
        "isNew": {"thing": [1, "text", None, True]},
        "links": {"self": {"uri": "https://api.example.com/a", "method": "GET"}},
        "customerProfile": {
            "name": "Company", "size": "10", "isMatchingComplete": True,
            "address": {"addressLine1": "1 Road", "postalCode": "94105", "country": "US"},
            "ids": {"Duns": "123456789", "External": ""},
        },
        "team": {"firstName": "Own", "contactPreference": {"locale": "es-419", "disableNotifications": None}},
        "details": {
            "dealValue": "1e3", "currency": "USD", "closingDateTime": "2024-01-31T00:00:00.1234567Z",
            "requirements": {"solutions": [{"id": "s", "name": "Solution", "future": 1}], "products": ["id"]},
        },
        "consent": {"consentToToShareInfoWithOthers": False, "consentToContact": "yes"},
        "registrations": [{"type": "t", "contract": {"value": 5, "signDateTime": "2024-01-31T09:00:00+05:30"}}],
    }  # fmt: skip
    for contacts in (Contacts.HASH, Contacts.DROP):
        assert admitted(tree, contacts).tree == tree


def test_a_member_that_stands_there_twice_does_not_stay_in_the_text() -> None:
    """Only the last one is decoded; a rejected record is kept as its text."""
    raw = b'{"id":"a","details":{"notes":"zoe"},"details":{"currency":"EUR"}}'
    record = Privacy(Contacts.DROP, key=KEY).admit(decode_record(raw))
    assert record.raw == b'{"id":"a","details":{"currency":"EUR"}}'


def test_what_is_nested_beyond_bounds_is_withheld_with_its_id() -> None:
    deep = b'{"id":"a","customerProfile":' + b"[" * 100_000 + b'"zoe"' + b"]" * 100_000 + b"}"
    for contacts in (Contacts.HASH, Contacts.DROP):
        record = Privacy(contacts, key=KEY).admit(decode_record(deep))
        assert record.tree is None
        assert record.id == "a", "so that it can be forgotten by it"
        assert b"zoe" not in record.raw


@pytest.mark.parametrize("name", ["zoe@quux.example", "+1 555 0100", "p5550100", "Zoe Quux", "x" * 200, "\x1b[31m", ""])
def test_a_name_that_looks_like_none_is_not_sent(name: str) -> None:
    """Unknown members are logged, and kept with the run, whatever `[privacy]` says."""
    raw = msgspec.json.encode({"id": "a", "updatedDateTime": "2024-01-31T09:00:00Z", "details": {name: 1}, name: 1})
    unknown = set[str]()
    map_record(decode_record(raw), datetime(2024, 5, 1, tzinfo=UTC), unknown_fields=unknown)
    assert unknown == {"(withheld)", "details.(withheld)"}
