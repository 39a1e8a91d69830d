"""Queries, and the one thing that is taken from a next page link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SourceContradicted
from worker.model import instant
from worker.model.odata import list_query, query_of_next_link
from worker.model.window import TimeField

AT = instant.parse("2024-05-01T10:00:00.5Z")


def test_bounds_are_inclusive_below_with_seven_digits_and_plain_spaces() -> None:
    assert list_query(field=TimeField.UPDATED, lower=AT, upper=AT) == (
        "$filter=updatedDateTime%20ge%202024-05-01T10:00:00.5000000Z%20and%20updatedDateTime%20lt%20"
        "2024-05-01T10:00:00.5000000Z&$orderby=updatedDateTime%20asc"
    )
    assert list_query(field=TimeField.CREATED, descending=True) == "$orderby=createdDateTime%20desc"
    assert "ge%20%272024-05-01T10:00:00.5000000Z%27" in list_query(field=TimeField.UPDATED, lower=AT, quoted=True)


TOKEN = "$skiptoken=k181%2fAb%2bc%3d%3D~x"


@pytest.mark.parametrize(
    "link",
    [
        f"http://api.partner.microsoft.com/v1.0/referrals?{TOKEN}",
        f"https://elsewhere.example.com:8443/x?{TOKEN}#part",
        f"v1.0/ingestion/products?{TOKEN}",
        f"/v1.0/engagements/referrals?{TOKEN}",
        f"?{TOKEN}",
    ],
)
def test_only_the_raw_query_is_taken_byte_for_byte(link: str) -> None:
    assert query_of_next_link(link) == TOKEN


def test_a_bare_space_is_the_only_thing_that_is_encoded() -> None:
    assert query_of_next_link("x?$filter=a eq 'b'&t=%2f") == "$filter=a%20eq%20'b'&t=%2f"


@pytest.mark.parametrize("link", ["", "http://x/y", "x?", "x?#a", "x?a=b\r\nHost: evil", "x?a=\x00", "x?a=é"])
def test_a_link_without_a_usable_query_is_contradicted(link: str) -> None:
    with pytest.raises(SourceContradicted):
        query_of_next_link(link)


@given(st.text())
def test_any_link_gives_a_printable_query_or_is_contradicted(link: str) -> None:
    try:
        query = query_of_next_link(link)
    except SourceContradicted:
        return
    assert query.isascii()
    assert query.isprintable()
    assert " " not in query
