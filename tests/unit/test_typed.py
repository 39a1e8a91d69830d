"""Records that are as documented are read quickly, and come to the very same rows as when they are read with care."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.demo.data import make_referrals
from worker.model.mapping import Mapped, Reject, Row, map_pages, map_record
from worker.model.naming import shown
from worker.model.record import Page, Record, decode_record, parse_listing
from worker.model.typed import MAX_LEARNED, Decoder
from worker.model.window import TimeField

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ENCODE = msgspec.json.Encoder(decimal_format="number").encode
MADE_UP = make_referrals(300, 11, NOW)


def plain(found: Row | Reject) -> dict[str, Any]:
    kept = asdict(found)
    if "children" in kept:
        kept["children"] = {table: rows for table, rows in kept["children"].items() if rows}
    return kept


def both(raw: bytes, decoder: Decoder | None = None) -> tuple[Record, set[str]]:
    """Map a record in both ways, see that nothing differs, and return it as the decoder gave it."""
    record, slowly = decode_record(raw, decoder or Decoder()), decode_record(raw)
    unknown, also_unknown = set[str](), set[str]()
    quick, careful = (
        map_record(record, NOW, unknown_fields=unknown),
        map_record(slowly, NOW, unknown_fields=also_unknown),
    )
    assert plain(quick) == plain(careful)
    assert unknown == also_unknown
    assert record.id == slowly.id
    assert [record.time(field) for field in TimeField] == [slowly.time(field) for field in TimeField]
    return record, unknown


def test_a_page_of_documented_records_is_decoded_once() -> None:
    """Decoding twice, as dictionaries, would show as a tree that somebody asked for."""
    body = b'{"value":[' + b",".join(ENCODE(tree) for tree in MADE_UP) + b"]}"
    listing = parse_listing(body, observed_at=NOW, decoder=Decoder())
    mapped = map_pages([Page(listing.records, None, NOW)])
    assert len(mapped.rows) == len(MADE_UP)
    assert all(record.typed is not None for record in listing.records)
    assert all(record._tree is None for record in listing.records)  # noqa: SLF001 - a look through `tree` would decode


def test_made_up_records_come_to_the_same_rows() -> None:
    decoder = Decoder()
    for tree in MADE_UP:
        record, unknown = both(ENCODE(tree), decoder)
        assert record.typed is not None
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

    decoder = Decoder()
    for _ in range(3):
        both(ENCODE(bent(data.draw(st.sampled_from(MADE_UP[:30])))), decoder)


@pytest.mark.parametrize(
    "name", ["x') or exit('owned')  # {0}\u2028", '"', "\\", "a\n  raise SystemExit", "\x1f", "", "é"]
)
@pytest.mark.parametrize("path", [(), ("details",), ("customerProfile", "address")])
def test_a_member_with_the_text_of_a_program_for_a_name_is_only_a_name(path: tuple[str, ...], name: str) -> None:
    """Names that were learned are part of the function that reads records, and of a structure."""
    tree: dict[str, Any] = {name: 1}
    for holder in reversed(path):
        tree = {holder: tree}
    raw = ENCODE({"id": "a", "updatedDateTime": "2024-01-01T00:00:00Z"} | tree)
    decoder = Decoder()
    both(raw, decoder)
    record, unknown = both(raw, decoder)
    assert (record.typed is not None) == (not any(sign in name for sign in '"\\\n\x1f'))
    assert unknown == {".".join((*path, shown(name)))}


def test_a_member_that_appears_costs_the_slow_way_once() -> None:
    decoder = Decoder()
    new = [ENCODE(tree | {"new": {"any": [1]}, "@odata.etag": str(n)}) for n, tree in enumerate(MADE_UP[:3])]
    deep = ENCODE({"id": "a", "updatedDateTime": "2024-01-01T00:00:00Z", "team": [{"email": "a", "pronoun": "x"}]})
    for raw in (*new, deep):
        both(raw, decoder)
    for raw, expected in ((new[1], {"new"}), (deep, {"team[].pronoun"}), (ENCODE(MADE_UP[7]), set())):
        record, unknown = both(raw, decoder)
        assert record.typed is not None, "it is known by now"
        assert unknown == expected


def test_annotations_are_not_content_when_they_are_learned_either() -> None:
    decoder = Decoder()
    one, other = (ENCODE(MADE_UP[0] | {"@odata.etag": text, "eTag": text}) for text in ("a", "b"))
    hashes = set()
    for raw in (one, other, one, other):
        row = map_record(decode_record(raw, decoder), NOW)
        assert isinstance(row, Row)
        hashes.add(row.content_hash)
    assert len(hashes) == 1
    changed = map_record(decode_record(ENCODE(MADE_UP[0] | {"@odata.etag": "a", "new": 1}), decoder), NOW)
    assert isinstance(changed, Row)
    assert changed.content_hash not in hashes


def test_a_source_that_names_members_at_random_is_not_learned_for_ever() -> None:
    decoder = Decoder()
    for number in range(3 * MAX_LEARNED):
        both(ENCODE(MADE_UP[0] | {f"random{number}": number}), decoder)
    assert decode_record(ENCODE(MADE_UP[0] | {"random0": 0}), decoder).typed is not None
    last = ENCODE(MADE_UP[0] | {f"random{3 * MAX_LEARNED - 1}": 0})
    assert decode_record(last, decoder).typed is None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a","id":"b","updatedDateTime":"2024-01-01T00:00:00Z"}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00Z","details":{"dealValue":1e3},"links":{"z":1,"a":2}}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00Z","details":{"dealValue":"12.50"},"lastRunId":null}',
        b'{"id":"a","updatedDateTime":"2024-01-01T00:00:00+02:00","tags":["x",null,{"tag":"y"}],"class":1,"m_id":2}',
        b'{"id":"a","updatedDateTime":"9999-12-31T23:59:59.9999999Z","expirationDateTime":"9999-12-31T23:59:59.9999999Z"}',
    ],
)
def test_forms_that_are_easily_read_differently(raw: bytes) -> None:
    decoder = Decoder()
    both(raw, decoder)
    both(raw, decoder)


def test_the_memory_of_a_mapped_page_is_its_rows() -> None:
    """A row keeps its payload as received, and no decoded record."""
    record = decode_record(ENCODE(MADE_UP[0]), Decoder())
    found: Mapped = map_pages([Page([record], None, NOW)])
    (row,) = found.rows
    assert row.raw is record.raw
    assert json.loads(row.raw)["id"] == row.id
    assert row.record.tree == record.tree
