"""What of people is let in, by rule."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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


def test_dropped_members_are_gone_and_nothing_else() -> None:
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
        {"customerProfile": "Given", "details": [], "inviteContext": 7},
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
