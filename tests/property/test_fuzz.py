"""Input from outside, made up: pages, links, times and configurations end in a value or in an error of ours."""

from __future__ import annotations

import json
import string
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.config.render import render
from worker.config.sources import keys, load
from worker.errors import ConfigError, SourceContradicted, SourceUnavailable
from worker.model import instant
from worker.model.mapping import RejectedRecord, Row, map_record
from worker.model.odata import query_of_next_link
from worker.model.privacy import Contacts, Privacy
from worker.model.record import decode_record, parse_listing

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MEMBERS = st.sampled_from([
    "id", "updatedDateTime", "createdDateTime", "eTag", "status", "isSpam", "team", "customerProfile", "details",
    "notes", "dealValue", "requirements", "solutions", "registrations", "target", "tags", "inviteContext", "email",
    "ids", "value", "@odata.nextLink", "address", "phoneNumber",
])  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "\x00", "\ud800", "1e999", ""])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS | st.text(max_size=8), inner, max_size=6),
    max_leaves=25,
)
FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@FUZZ
@given(st.binary(max_size=400))
@example(b'{"value":[{"id":"a"},')
@example(b'\xef\xbb\xbf{"value":[]}')
@example(b'{"value":[' + b"[" * 50_000)
def test_any_bytes_are_a_listing_or_refused(body: bytes) -> None:
    try:
        listing = parse_listing(body, observed_at=NOW)
    except SourceUnavailable as refused:
        assert "referral listing" in str(refused)  # noqa: PT017 - either outcome is good
    else:
        assert isinstance(listing.records, list)


@FUZZ
@given(st.lists(JSON, max_size=5), st.none() | st.text(max_size=30))
def test_any_records_on_a_page_are_each_a_row_or_a_rejected_record(records: list[Any], link: str | None) -> None:
    """And none makes the others unreadable."""
    body = encoded({"value": [*records, {"id": "good"}], "@odata.nextLink": link})
    listing = parse_listing(body, observed_at=NOW)
    assert len(listing.records) == len(records) + 1
    for record in listing.records:
        for contacts in Contacts:
            mapped = map_record(Privacy(contacts, key="k").admit(record), NOW)
            assert isinstance(mapped, Row | RejectedRecord)
    last = map_record(listing.records[-1], NOW)
    assert isinstance(last, Row)
    assert last.id == "good"


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_say_why_not(raw: bytes) -> None:
    record = decode_record(raw)
    assert record.tree is not None or record.fault


TIMES = st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,9})?(Z|[+-]\d\d:\d\d)?", fullmatch=True)


@FUZZ
@given(st.text(max_size=40) | TIMES)
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59.9999999-14:00")
@example("2024-02-30T00:00:00Z")
@example("\uff12\uff10\uff12\uff14-01-01T00:00:00Z")
@example("2024-01-01T00:00:00+\uff11\uff11:00")
def test_any_text_is_a_time_or_no_time(text: str) -> None:
    try:
        ticks = instant.parse(text)
    except ValueError:
        return
    assert ticks >= 0
    assert instant.to_datetime(ticks).tzinfo is not None


NAMED = st.sampled_from([
    "team", "Team", "customerProfile", "details", "inviteContext", "notes", "NOTES", "email", "Email", "phoneNumber",
    "mobile", "name", "size", "address", "city", "ids", "id", "invitedBy", "contactPreference", "locale", "dealValue",
    "emailValidationStatus", "title", "currency", "organizationName", "future", "zoe@quux.example",
])  # fmt: skip
PEOPLE = st.recursive(
    st.sampled_from(["zoe@quux.example", "write to zoe@quux.example", None, 1, "", "+1 555 0100"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMED, inner, max_size=5),
    max_leaves=25,
)
HOLDERS = st.sampled_from(["customerProfile", "CUSTOMERPROFILE", "customer_profile", "details", "inviteContext"])


@FUZZ
@given(st.dictionaries(HOLDERS, PEOPLE, max_size=4), st.sampled_from([Contacts.HASH, Contacts.DROP]))
def test_under_the_members_that_hold_people_nobody_is_let_in(tree: dict[str, Any], contacts: Contacts) -> None:
    privacy = Privacy(contacts, key="k")
    record = privacy.admit(decode_record(encoded(tree | {"future": {"deep": [tree]}})))
    assert b"zoe" not in record.raw
    assert b"+1 555" not in record.raw
    assert privacy.admit(record) is record
    assert privacy.admit(decode_record(record.raw)).raw == record.raw


LINKS = st.builds(
    "{}{}?{}".format,
    st.sampled_from(["http://a.example/", "/", "", "//x.example/"]),
    st.text(max_size=10),
    st.text(string.printable, max_size=40),
)


@FUZZ
@given(st.text(max_size=60) | LINKS)
@example("https://a.example/?$skiptoken=a%2fb#fragment")
@example("?a b\r\nAuthorization: x")
def test_of_any_link_only_a_query_is_used(link: str) -> None:
    """Byte for byte but for spaces, and never a host, a path or a line that could become a header."""
    try:
        query = query_of_next_link(link)
    except SourceContradicted:
        return
    assert query
    assert query in link.replace(" ", "%20")
    assert not set(query) & set("\r\n\0 #")
    assert query.isascii()


NAMES = st.sampled_from([f"REFERRAL_SYNC_{key.replace('*', 'contoso').replace('.', '__').upper()}" for key in keys()])
VALUES = st.text(string.printable, max_size=30) | st.sampled_from([
    "embedded", "5m", "0", "-1", "1e9", "true", "[]", "{}", "null", "https://x", "http://127.0.0.1:1", "30 3 * * *",
    "UTC",
])  # fmt: skip


@FUZZ
@given(st.dictionaries(NAMES | st.text("REFALSYNC_", max_size=20).map("REFERRAL_SYNC_".__add__), VALUES, max_size=8))
def test_any_variables_are_settings_or_faults(variables: dict[str, str]) -> None:
    secret = "a-secret-that-must-not-show"
    given_ = variables | {"REFERRAL_SYNC_HTTP__TOKEN": secret}
    try:
        found = load(given_, Path("/nonexistent"))
    except ConfigError as refused:
        assert refused.faults  # noqa: PT017 - either outcome is good
        assert secret not in str(refused)  # noqa: PT017
    else:
        assert secret not in render(found) + repr(found)


@FUZZ
@given(st.text(max_size=200))
@example('[accounts]\n"a b" = 1')
@example("[accounts.a]\nauth = []")
@example("database = 1")
def test_any_file_is_a_configuration_or_faults(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ConfigError) as refused:
            load({}, Path(folder))
    assert refused.value.faults
