"""What is not as documented is brought into that form, which changes nothing about the rest."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.columns import OUTPUT, columns
from worker.demo.data import make_referrals
from worker.model.conform import conform, without_unknown
from worker.model.line import PLAIN
from worker.model.mapping import Mapped, RejectedRecord, Row, map_pages, map_record
from worker.model.naming import shown
from worker.model.reader import read
from worker.model.record import Page, Record, decode_record, parse_listing
from worker.model.window import TimeField

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ENCODE = msgspec.json.Encoder(decimal_format="number").encode
MADE_UP = make_referrals(300, 11, NOW)


def plain(found: Row | RejectedRecord) -> dict[str, Any]:
    kept = asdict(found)
    if "children" in kept:
        kept["children"] = {table: rows for table, rows in kept["children"].items() if rows}
    return kept


def both(raw: bytes) -> tuple[Record, set[str]]:
    """Map a record as it is decoded and with every member looked at; see that nothing differs."""
    record = decode_record(raw)
    looked_at = Record(record.raw, record.tree, record.fault, record.repaired)
    unknown, also_unknown = set[str](), set[str]()
    one, other = (
        map_record(record, NOW, unknown_fields=unknown),
        map_record(looked_at, NOW, unknown_fields=also_unknown),
    )
    assert plain(one) == plain(other)
    assert unknown == also_unknown
    assert record.id == looked_at.id
    if record.tree is not None:
        with suppress(ValueError, OverflowError, msgspec.ValidationError, RecursionError):  # then this way is not taken
            known = without_unknown(record.tree)
            read(known.structure, PLAIN)
            assert known == conform(record.tree)
    assert [record.time(field) for field in TimeField] == [looked_at.time(field) for field in TimeField]
    return record, unknown


def test_a_page_of_documented_records_is_decoded_once() -> None:
    """Decoding twice, as dictionaries, would show as a tree that somebody asked for."""
    body = b'{"value":[' + b",".join(ENCODE(tree) for tree in MADE_UP) + b"]}"
    listing = parse_listing(body, observed_at=NOW)
    mapped = map_pages([Page(listing.records, None, NOW)])
    assert len(mapped.rows) == len(MADE_UP)
    assert all(record.structure is not None for record in listing.records)
    assert all(record._tree is None for record in listing.records)  # noqa: SLF001 - a look through `tree` would decode


def test_made_up_records_come_to_the_same_rows() -> None:
    for tree in MADE_UP:
        record, unknown = both(ENCODE(tree))
        assert record.structure is not None
        assert unknown == set()


@given(st.data())
def test_whatever_is_wrong_with_a_record_it_comes_to_the_same(data: st.DataObject) -> None:
    """Members that are missing, null, of another kind, unknown, or turned around."""
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just([]), st.just({}), st.just([None, "x", 7]),
        st.just({"a": [1, {"b": None}]}), st.just("2024-02-30T00:00:00Z"), st.just("0001-01-01T00:00:00Z"),
        st.just(Decimal("1.50")), st.just(""),
    )  # fmt: skip

    def bent(value: Any) -> Any:
        dice = data.draw(st.integers(0, 30))
        if dice == 0:
            return data.draw(odd)
        if isinstance(value, dict):
            items = [(key, bent(item)) for key, item in value.items() if data.draw(st.integers(0, 20)) != 0]
            if dice == 1:
                items.append((data.draw(st.sampled_from(("new", "@odata.x", "eTag", "type"))), data.draw(odd)))
            return dict(reversed(items) if dice == 2 else items)
        return [bent(item) for item in value] if isinstance(value, list) else value

    both(ENCODE(bent(data.draw(st.sampled_from(MADE_UP[:30])))))


@pytest.mark.parametrize(
    "name", ["x') or exit('owned')  # {0}\u2028", '"', "\\", "a\n  raise SystemExit", "\x1f", "", "é"]
)
@pytest.mark.parametrize("path", [(), ("details",), ("customerProfile", "address")])
def test_a_member_may_have_any_name(path: tuple[str, ...], name: str) -> None:
    tree: dict[str, Any] = {name: 1}
    for holder in reversed(path):
        tree = {holder: tree}
    _, unknown = both(ENCODE({"id": "a", "updatedDateTime": "2024-01-01T00:00:00Z"} | tree))
    assert unknown == {".".join((*path, shown(name)))}


def content(tree: dict[str, Any]) -> UUID:
    row = map_record(decode_record(ENCODE(tree)), NOW)
    assert isinstance(row, Row)
    return row.content_hash


def test_annotations_are_not_content_whether_a_structure_has_them_or_not() -> None:
    notes: tuple[dict[str, Any], ...] = (
        {},
        {"@odata.etag": "a", "eTag": "a"},
        {"@odata.etag": "b"},
        {"@odata.other": "c", "links": None},
    )
    assert len({content(MADE_UP[0] | note) for note in notes}) == 1
    assert content(MADE_UP[0] | {"new": 1}) != content(MADE_UP[0])
    assert content(MADE_UP[0] | {"new": 1, "@odata.etag": "a"}) == content({"new": 1} | MADE_UP[0])


def test_what_is_null_and_what_is_absent_are_the_same_content() -> None:
    """One answer shows a member as null that another leaves out."""
    one = {"id": "a", "details": {"notes": "n", "currency": None, "requirements": None}, "team": [{"email": "e"}]}
    other = {
        "id": "a",
        "details": {"notes": "n"},
        "team": [{"email": "e", "title": None}],
        "consent": None,
        "new": None,
    }
    assert content(one) == content(other) != content({"id": "a", "details": {"notes": "m"}})


def test_what_cannot_be_read_is_content_all_the_same() -> None:
    odd = [content({"id": "a"} | one) for one in ({"details": "x"}, {"details": "y"}, {"new": "x"}, {"new": "y"}, {})]
    assert len(set(odd)) == len(odd)


@pytest.mark.parametrize(("member", "value"), [("details", "x"), ("details", 1.5), ("consent", []), ("team", 7)])
def test_what_is_no_object_where_one_should_be_is_named(member: str, value: Any) -> None:
    found = map_record(decode_record(ENCODE({"id": "a", member: value})), NOW)
    assert isinstance(found, Row)
    assert found.unreadable == (member,)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a","id":"b","updatedDateTime":"2024-01-01T00:00:00Z"}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00Z","details":{"dealValue":1e3},"links":{"z":1,"a":2}}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00Z","details":{"dealValue":"12.50"},"lastRunId":null}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00+02:00","tags":["x",null,{"tag":"y"}],"class":1,"m_id":2}',
        b'{"id":"a","customerProfile":{"ids":{"Duns":"1","External":null}},"team":{"email":"e","new":1},"tags":[[1],1.50]}',
        b'{"id":"a","customerProfile":{"ids":{"profileType":"Duns","id":"1","new":"x"}},"isSpam":"True","favorite":1}',
        b'{"id":"a","customerProfile":{"ids":{"Duns":"1"}},"details":{"requirements":{"products":{"id":"p"}}}}',
        b'{"id":"a","consent":{"consentToToShareInfoWithOthers":null,"consentToShareInfoWithOthers":false}}',
        b'{"id":"a","updatedDateTime":"9999-12-31T23:59:59.9999999Z","expirationDateTime":"9999-12-31T23:59:59.9999999Z"}',
    ],
)
def test_forms_that_are_easily_read_differently(raw: bytes) -> None:
    both(raw)


def test_the_memory_of_a_mapped_page_is_its_rows() -> None:
    """A row keeps its payload as received, and no decoded record."""
    record = decode_record(ENCODE(MADE_UP[0]))
    found: Mapped = map_pages([Page([record], None, NOW)])
    (row,) = found.rows
    assert row.raw is record.raw
    assert json.loads(row.raw)["id"] == row.id
    assert row.record.tree == record.tree


def test_the_columns_are_written_out_as_they_are_declared() -> None:
    assert OUTPUT.read_text(encoding="utf-8") == columns(), "run `make columns`"


def test_an_array_may_be_longer_than_what_is_prepared() -> None:
    found = map_record(decode_record(ENCODE({"id": "a", "tags": [str(n) for n in range(250)]})), NOW)
    assert isinstance(found, Row)
    assert found.children["referral_tags"] == [f"{n}\t{n}" for n in range(250)]
