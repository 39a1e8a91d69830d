"""Response bodies: each record is judged by itself, and numbers stay exact."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SourceUnavailable
from worker.model.record import Record, decode_record, parse_listing
from worker.model.window import TimeField

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


ROWS = b'"value":[{"id":"a","contract":{"value":1}},{"id":"b"}]'
ERROR = b'{"code":"InternalServerError","message":"busy"}'


@pytest.mark.parametrize(
    "body",
    [
        b"{" + ROWS + b',"error":' + ERROR + b"}",
        b'{"error":' + ERROR + b"," + ROWS + b"}",
        b"{" + ROWS + b',"error":{}}',
        b"{" + ROWS + b',"Error":"busy"}',
        b"{" + ROWS + b',"errors":[1]}',
        b"{" + ROWS + b',"odata.error":' + ERROR + b"}",
        b"{" + ROWS + b',"@odata.error":' + ERROR + b"}",
        b"{" + ROWS + b',"innerException":' + ERROR + b"}",
        b"{" + ROWS + b',"code":"InternalServerError"}',
        b'{"statusCode":500,"message":"busy",' + ROWS + b"}",
        b"{" + ROWS + b"}" + b'{"error":' + ERROR + b"}",
        b"{" + ROWS + b"}\n<html><body>busy</body></html>",
        b"{" + ROWS + b"}]",
        b"{" + ROWS + b",}",
        b"{" + ROWS + b',"value":[]}',
        b'{"value":[{"id":"a"}],"value":[{"id":"b"},{"id":"c"}]}',
        b'{ "value" : [ {"id":"' + b"a" * 60 + b'"} ] , "value" : [ {"id":"b"} ] }',
        b'[{"value":[]}]',
        b'{"result":{' + ROWS + b"}}",
    ],
)
def test_an_error_or_anything_else_inside_a_200_is_no_listing(body: bytes) -> None:
    """Half the rows and an error, a second document, a page of HTML: the whole text belongs to the answer."""
    with pytest.raises(SourceUnavailable):
        records(body)
    with pytest.raises(SourceUnavailable):
        records(body.replace(b'"a"', b'"a","n":"one\ttab"'))  # which only the scanner can take apart


@pytest.mark.parametrize("beside", [b'"error":null', b'"errors":[]', b'"@odata.context":"x"', b'"totalCount":7'])
def test_what_is_harmless_beside_the_rows_is_let_by(beside: bytes) -> None:
    assert len(records(b"{" + ROWS + b"," + beside + b"}")) == 2


@pytest.mark.parametrize("name", ["@odata.nextLink", "@odata.nextlink", "odata.nextLink", "nextLink", "NextLink"])
@pytest.mark.parametrize("note", [b"", b"one\ttab"])
def test_a_link_is_found_however_it_is_spelt(name: str, note: bytes) -> None:
    def link(value: bytes) -> str | None:
        body = b'{"value":[{"id":"a","n":"' + note + b'"}],"' + name.encode() + b'":' + value + b"}"
        return parse_listing(body, observed_at=NOW).next_link

    assert link(b'"x?$skiptoken=y"') == "x?$skiptoken=y"
    assert link(b'""') is None
    assert link(b"null") is None


@pytest.mark.parametrize("sign", [b"\t", b"\n", b"\r", b"\x01", b"\x1f", b"\x7f"])
def test_a_raw_control_character_is_repaired(sign: bytes) -> None:
    good = b'{"id":"good"}'
    one, two = records(b'{"value":[{"id":"a","notes":"x' + sign + b'y"},' + good + b"]}")
    assert one.tree == {"id": "a", "notes": "x" + sign.decode() + "y"}
    assert one.repaired == (sign != b"\x7f"), "JSON allows that one"
    assert sign not in one.raw or sign == b"\x7f"
    assert two.raw == good


@pytest.mark.parametrize(
    "odd",
    [
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"id":"odd"}',
        b'{"x":' + b'{"y":' * 200_000 + b"1" + b"}" * 200_000 + b',"id":"odd"}',
        b'{"id":"odd","x":"\\x"}',
        b'{"id":"odd","x":1,}',
        b'{"id":"odd","x":01}',
        b'{"id":"odd","x":tru}',
    ],
)
def test_one_record_of_any_kind_is_rejected_alone_and_by_its_id(odd: bytes) -> None:
    good = b'{"id":"good"}'
    first, second, third = records(b'{"value":[' + good + b"," + odd + b"," + good + b"]}")
    assert first.raw == third.raw == good
    assert (second.tree, second.id) == (None, "odd")
    assert second.fault


def test_a_number_of_any_size_is_kept() -> None:
    digits = b"9" * 100_000
    one, two = records(b'{"value":[{"id":"a","n":' + digits + b'},{"id":"b","n":1e400}]}')
    assert digits in one.raw
    assert two.tree == {"id": "b", "n": Decimal("1e400")}


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
