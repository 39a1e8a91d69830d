"""Records become rows: every documented field, nulls anywhere, and a reject that names the member at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.columns import _functions
from worker.demo.data import make_referrals
from worker.model import instant
from worker.model.line import values_of
from worker.model.mapping import Mapped, RejectedRecord, Row, changed_columns, map_pages, map_record, merge_missing
from worker.model.record import Page, decode_record, parse_listing
from worker.model.schema import CHILDREN, NESTED, REFERRAL, REFERRAL_COLUMNS, Child, Column, Group, Kind

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ENCODE = msgspec.json.Encoder(decimal_format="number").encode
MADE_UP = make_referrals(300, 7, NOW)


def mapped(tree: Any, unknown: set[str] | None = None) -> Row | RejectedRecord:
    return map_record(decode_record(ENCODE(tree)), NOW, unknown_fields=unknown)


def row(tree: Any, unknown: set[str] | None = None) -> Row:
    found = mapped(tree, unknown)
    assert isinstance(found, Row), found
    return found


def columns(one: Row) -> dict[str, Any]:
    return {column.name: value for column, value in zip(REFERRAL_COLUMNS, one.values, strict=True)}


def child_rows(one: Row, table: str) -> list[dict[str, Any]]:
    child = next(child for child in (*CHILDREN, *NESTED) if child.table == table)
    names = [*child.keys, *(column.name for column in child.columns)]
    return [dict(zip(names, values_of(line), strict=True)) for line in one.children.get(table, [])]


def reject(tree: Any) -> RejectedRecord:
    found = mapped(tree)
    assert isinstance(found, RejectedRecord)
    return found


def test_every_documented_field_has_its_column() -> None:
    unknown = set[str]()
    rows = [row(tree, unknown) for tree in MADE_UP]
    assert unknown == set()
    assert len({name for one in rows for name, value in columns(one).items() if value is not None}) > 50
    for child in (*CHILDREN, *NESTED):
        found = [part for one in rows for part in child_rows(one, child.table)]
        assert found, child.table
        held = {name for part in found for name, value in part.items() if value is not None}
        assert held > set(child.keys), child.table


def samples(columns: Iterable[Column]) -> Iterator[tuple[Column, Any, Any]]:
    """A value of its own for each column, as it is sent and as it is held."""
    for number, column in enumerate(columns, 1):
        match column.kind:
            case Kind.TEXT:
                yield column, column.name, column.name
            case Kind.NUMERIC:
                yield column, Decimal(number) / 8, str(Decimal(number) / 8)
            case Kind.BOOLEAN:
                yield column, number % 2 == 0, "true" if number % 2 == 0 else "false"
            case Kind.TIMESTAMP:
                yield column, f"2024-01-01T00:00:{number:02}.1234567Z", f"2024-01-01T00:00:{number:02}.123456Z"


def filled(groups: Iterable[Group]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An object with every member that is stored, and what its columns then hold."""
    tree, held = dict[str, Any](), dict[str, Any]()
    for group in groups:
        parent = tree
        for name in group.path:
            parent = parent.setdefault(name, {})
        for column, sent, kept in samples(group.columns):
            parent[column.members[0]], held[column.name] = sent, kept
    return tree, held


def test_every_column_is_filled_from_its_member() -> None:
    tree, held = filled(REFERRAL)
    one = row({"id": "a"} | tree)
    assert columns(one) == held
    assert instant.floored(instant.render(one.version)) == held["updated_at"]


@pytest.mark.parametrize("child", [*CHILDREN, *NESTED], ids=lambda child: child.table)
def test_every_column_of_a_part_is_filled_from_its_member(child: Child) -> None:
    element, held = filled(child.groups)
    outer = next((one for one in CHILDREN if child in one.nested), None)
    for tag, path in child.arrays:
        inner: Any = [element, None, element]
        for name in reversed(path):
            inner = {name: inner}
        for name in reversed(outer.arrays[0][1] if outer else ()):
            inner = {name: [inner]}
        keys = ({"kind": tag} if tag else {}) | ({"parent_position": "0"} if outer else {})
        expected = [{"position": place} | keys | held for place in ("0", "2")]
        assert child_rows(row({"id": "a"} | inner), child.table) == expected


@given(st.data())
def test_nulls_may_be_anywhere_but_in_the_id(data: st.DataObject) -> None:
    tree = json.loads(ENCODE(data.draw(st.sampled_from(MADE_UP[:20]))))

    def hollow(value: Any) -> Any:
        if data.draw(st.integers(0, 9)) == 0:
            return None
        if isinstance(value, dict):
            return {key: item if key == "id" and value is tree else hollow(item) for key, item in value.items()}
        return [hollow(item) for item in value] if isinstance(value, list) else value

    holed = {key: item if key == "id" else hollow(item) for key, item in tree.items()}
    assert isinstance(mapped(holed), Row)


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x" * 201}, "id"),
    ],
)
def test_what_makes_a_row_impossible_makes_a_rejected_record_that_names_it(tree: dict[str, Any], field: str) -> None:
    found = reject(tree)
    assert found.field == field
    assert found.reason
    assert found.raw == ENCODE(tree)


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"id": "a", "updatedDateTime": 5}, "updatedDateTime"),
        ({"id": "a", "updatedDateTime": "soon"}, "updatedDateTime"),
        ({"id": "a", "createdDateTime": "2024-13-01T00:00:00Z"}, "createdDateTime"),
        ({"id": "a", "details": {"dealValue": "much"}}, "details.dealValue"),
        ({"id": "a", "details": {"dealValue": True}}, "details.dealValue"),
        ({"id": "a", "details": {"dealValue": Decimal("1e131072")}}, "details.dealValue"),
        ({"id": "a", "details": {"dealValue": "Infinity"}}, "details.dealValue"),
        ({"id": "a", "favorite": "perhaps"}, "favorite"),
        ({"id": "a", "team": "nobody"}, "team"),
        ({"id": "a", "registrations": [{"contract": {"value": "x"}}]}, "registrations[].contract.value"),
    ],
)
def test_a_member_that_cannot_be_read_is_null_and_named(tree: dict[str, Any], field: str) -> None:
    """One odd date, one odd optional member never hides the record: it is in the payload as received."""
    found = row(tree | {"name": "shown"})
    assert found.unreadable == (field,)
    assert found.value("name") == "shown"
    assert found.raw == ENCODE(tree | {"name": "shown"})
    for column in ("updated_at", "created_at", "deal_value", "favorite"):
        assert found.value(column) is None


def test_both_forms_are_read_where_the_documents_contradict_themselves() -> None:
    one = row(
        {
            "id": "a",
            "details": {
                "dealValue": "12345678901234567890.125",
                "requirements": {"industries": ["Retail", {"id": "Government"}]},
            },
            "tags": ["hot", {"tag": "cold"}, None],
            "team": {"email": "seller@example.com"},
            "customerProfile": {"ids": {"Duns": "123", "External": "x-1"}},
            "lastRunId": {"run": 7},
        }
    )
    assert one.value("deal_value") == "12345678901234567890.125"
    assert one.value("last_run_id") == '{"run":7}'
    assert [part["tag"] for part in child_rows(one, "referral_tags")] == ["hot", "cold"]
    assert [part["email"] for part in child_rows(one, "referral_team_members")] == ["seller@example.com"]
    assert [part["item_id"] for part in child_rows(one, "referral_requirements")] == ["Retail", "Government"]
    ids = [(part["profile_type"], part["external_id"]) for part in child_rows(one, "referral_customer_ids")]
    assert ids == [("Duns", "123"), ("External", "x-1")]


def test_unset_times_are_null_and_others_floored() -> None:
    one = row({"id": "a", "acceptedDateTime": "0001-01-01T00:00:00Z", "closedDateTime": "2024-01-01T23:59:59.9999999Z"})
    assert one.value("accepted_at") is None
    assert one.value("closed_at") == "2024-01-01T23:59:59.999999Z"
    assert one.version == 0


def test_unknown_members_are_named_by_path() -> None:
    unknown = set[str]()
    row({"id": "a", "new": 1, "details": {"x": {}}, "team": [{"y": 1}], "@odata.z": 1, "links": {"any": 1}}, unknown)
    assert unknown == {"new", "details.x", "team[].y"}


def test_content_is_compared_without_what_may_differ() -> None:
    one = row({"id": "a", "name": "n", "eTag": "1", "links": {"self": 1}, "@odata.context": "c"})
    same = row({"@odata.context": "d", "eTag": "2", "name": "n", "id": "a"})
    other = row({"id": "a", "name": "m"})
    assert one.content_hash == same.content_hash != other.content_hash


def test_a_partial_answer_is_completed_member_by_member() -> None:
    complete = {"id": "a", "registrations": [1], "customerProfile": {"name": "old", "team": [{"email": "x"}]}}
    merged = merge_missing(decode_record(ENCODE({"id": "a", "customerProfile": {"name": "new"}})), complete)
    assert merged.tree == {
        "id": "a",
        "registrations": [1],
        "customerProfile": {"name": "new", "team": [{"email": "x"}]},
    }
    null_is_an_answer = merge_missing(decode_record(b'{"id":"a","registrations":null}'), complete)
    assert null_is_an_answer.tree is not None
    assert null_is_an_answer.tree["registrations"] is None


def test_changes_are_named() -> None:
    before = row({"id": "a", "status": "New", "team": []})
    assert changed_columns(before, row({"id": "a", "status": "Active", "team": [{"email": "x"}]})) == [
        "status",
        "team_members",
    ]
    assert changed_columns(before, row({"id": "a", "status": "New", "team": [], "new": 1})) == ["payload"]


def test_a_page_drops_nothing() -> None:
    records = [
        decode_record(b'{"id":"a"}'),
        decode_record(b"7"),
        decode_record(b'{"id":"b","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ]
    found: Mapped = map_pages([Page(records, None, NOW)])
    assert ([one.id for one in found.rows], [one.id for one in found.rejects]) == (["a"], [None, "b"])


@pytest.mark.parametrize("member", ["newMember", "name", "details"])
@pytest.mark.parametrize("nul", [b"", b"\\u0000"])
def test_an_exponent_beyond_all_numbers_rejects_its_record_alone(member: str, nul: bytes) -> None:
    number = b'{"id":"a","%s":1e99999999999999999999,"notes":"%s"}' % (member.encode(), nul)
    page = parse_listing(b'{"value":[{"id":"b"},' + number + b"]}", observed_at=NOW)
    found = map_pages([Page(page.records, None, NOW)])
    assert [one.id for one in found.rows] == ["b"]
    assert [(one.id, one.raw) for one in found.rejects] == [("a", number)]
    assert "exponent" in found.rejects[0].reason


def test_columns_of_objects_with_one_name_are_not_mixed_up() -> None:
    """Wherever `schema.py` puts an object, its variable in the written functions is its own."""
    again = Group(("inviteContext", "address"), (Column("invite_city", ("city",)),))
    written = "".join(_functions("referrals", (*REFERRAL, again), CHILDREN))
    steps = re.findall(r"^    (\w+) = (\S+) or ", written, re.MULTILINE)
    assert len(dict(steps)) == len(set(steps))
