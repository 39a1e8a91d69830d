"""Response bodies: each record is judged by itself, and numbers stay exact."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.page import Record, decode_record, parse_listing
from worker.core.window import TimeField
from worker.errors import SourceUnavailable

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def records(body: bytes) -> list[Record]:
    return parse_listing(body, observed_at=NOW).records


def test_a_page_with_its_link() -> None:
    listing = parse_listing(b'\xef\xbb\xbf{"value":[{"id":"a"},{"id":"b"}],"@odata.nextLink":"x?y"}', observed_at=NOW)
    assert ([record.id for record in listing.records], listing.next_link) == (["a", "b"], "x?y")


@pytest.mark.parametrize(
    "bad",
    [b'{"id":"bad","x":"\\ud800"}', b'{"id":"bad","x":NaN}', b'{"id":"bad","x":"\xff"}', b'{"id":"bad","x":-Infinity}'],
)
def test_one_bad_record_leaves_its_neighbours_as_they_were(bad: bytes) -> None:
    good = b'{"id": "good", "n": 0.10}'
    first, _, last = records(b'{"@odata.count" : 3 ,"value" : [ ' + good + b" , " + bad + b" , " + good + b" ] }")
    assert first.raw == last.raw == good
    assert first.tree == {"id": "good", "n": Decimal("0.10")}


def test_what_postgresql_cannot_hold_is_replaced_and_flagged() -> None:
    for raw in (rb'{"id":"a","x":"1\u00002"}', rb'{"id":"a","x":"1\ud8002"}', b'{"id":"a","x":"1\xff2"}'):
        record = decode_record(raw)
        assert record.tree == {"id": "a", "x": "1\N{REPLACEMENT CHARACTER}2"}
        assert record.repaired
        assert b"\\u0000" not in record.raw
        record.raw.decode()


def test_nul_in_a_key_and_deep_down_is_replaced_too() -> None:
    record = decode_record(rb'{"id":"a","k\u0000":[{"y":"\u0000"}]}')
    assert record.tree == {"id": "a", "k\N{REPLACEMENT CHARACTER}": [{"y": "\N{REPLACEMENT CHARACTER}"}]}


def test_an_escaped_backslash_is_no_nul() -> None:
    raw = rb'{"id":"a","x":"\\u0000"}'
    record = decode_record(raw)
    assert record.tree == {"id": "a", "x": "\\u0000"}
    assert not record.repaired


@pytest.mark.parametrize("number", ["0.10", "12345.67", "1e400", "123456789012345678901234567890.123456789012345"])
def test_numbers_are_exact(number: str) -> None:
    record = decode_record(b'{"id":"a","n":' + number.encode() + b"}")
    assert record.tree is not None
    assert record.tree["n"] == Decimal(number)
    assert number.encode() in record.raw
    repaired = decode_record(b'{"id":"a","z":"\\u0000","n":' + number.encode() + b"}")
    assert decode_record(repaired.raw).tree == repaired.tree


def test_a_record_may_be_no_object_or_too_deep() -> None:
    one, two = records(b'{"value":[1,null]}')
    assert (one.tree, two.tree) == (None, None)
    assert one.fault == "not a JSON object"
    deep = decode_record(b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert deep.tree is None
    assert deep.fault


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"<html>busy</html>", b'{"value":null}', b'{"value":{}}', b'{"error":{}}',
             b'{"value":[{"id":"a"}', b'{"value":[{"id":"a"},', b'{"value":[],"@odata.nextLink":7}', b"\xff\xfe"]
)  # fmt: skip
def test_what_is_no_listing_is_unavailable(body: bytes) -> None:
    with pytest.raises(SourceUnavailable):
        records(body)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\ud8valuenidx0123456789.eE+- ', max_size=80).map(str.encode))
def test_any_bytes_are_a_listing_or_unavailable(body: bytes) -> None:
    for candidate in (body, b'{"value":[' + body + b"]}", b'{"value":[{"id":"' + body + b'"}]}'):
        try:
            records(candidate)
        except SourceUnavailable:
            pass


def test_a_time_is_read_only_where_there_is_one() -> None:
    field = TimeField.UPDATED
    assert decode_record(b'{"updatedDateTime":"2024-01-01T00:00:00Z"}').time(field) is not None
    for value in (b"null", b"7", b'"soon"', b'"0001-01-01T00:00:00Z"'):
        assert decode_record(b'{"updatedDateTime":' + value + b"}").time(field) is None
