"""Instants: exact to 100 ns, floored where microseconds must do, never rounded up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model import instant
from worker.model.instant import MIN_VALUE, TICKS_PER_SECOND, Instant

LAST = instant.parse("9999-12-31T23:59:59.9999999Z")


@given(st.integers(0, LAST))
def test_what_is_rendered_parses_to_the_same(ticks: int) -> None:
    text = instant.render(Instant(ticks))
    assert instant.parse(text) == ticks
    assert len(text) == len("2024-01-01T00:00:00.0000000Z")


@given(st.integers(0, LAST))
def test_as_a_datetime_it_is_floored(ticks: int) -> None:
    floored = instant.from_datetime(instant.to_datetime(Instant(ticks)))
    assert 0 <= ticks - floored < 10


@given(st.datetimes(), st.sampled_from(["", ".0000000", ".1234567", ".12"]))
def test_as_text_it_is_floored_whatever_its_form(at: datetime, fraction: str) -> None:
    """The usual forms are cut without a look at the calendar; the calendar knows better than that look."""
    text = f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z".rjust(len("2024-01-01T00:00:00Z") + len(fraction), "0")
    ticks = instant.parse(text)
    floored = instant.floored(text)
    if ticks == MIN_VALUE:
        assert floored is None
    else:
        assert floored == f"{instant.render(ticks)[:-2]}Z"


@pytest.mark.parametrize("day", ["2023-02-29", "2024-02-30", "2024-04-31", "2024-13-01", "2024-01-32", "0000-01-01"])
def test_no_day_is_floored_that_is_none(day: str) -> None:
    with pytest.raises(ValueError, match=r"out of range|must be in"):
        instant.floored(f"{day}T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2024-05-01T10:00:00.1234565Z", 123456),
        ("2024-05-01T10:00:00.1234567Z", 123456),
        ("2024-05-01T10:00:59.9999999Z", 999999),
    ],
)
def test_the_three_roundings_of_others_are_a_floor_here(text: str, micros: int) -> None:
    moment = instant.to_datetime(instant.parse(text))
    assert moment.microsecond == micros
    assert moment.minute == 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2020-10-30T21:03:00Z", "2020-10-30T21:03:00.0000000Z"),
        ("2020-10-30T21:03:00.5Z", "2020-10-30T21:03:00.5000000Z"),
        ("2020-10-30T21:03:00.123456Z", "2020-10-30T21:03:00.1234560Z"),
        ("2020-10-30T21:03:00.123456789Z", "2020-10-30T21:03:00.1234567Z"),
        ("2020-10-30T21:03:00.1234567+00:00", "2020-10-30T21:03:00.1234567Z"),
        ("2020-10-30T23:33:00+02:30", "2020-10-30T21:03:00.0000000Z"),
        ("2020-10-30T18:03:00-03:00", "2020-10-30T21:03:00.0000000Z"),
        ("2020-10-30T21:03:00", "2020-10-30T21:03:00.0000000Z"),
    ],
)
def test_every_form_that_the_api_uses(text: str, same: str) -> None:
    assert instant.render(instant.parse(text)) == same


def test_the_ends_of_time() -> None:
    assert instant.parse("0001-01-01T00:00:00Z") == MIN_VALUE
    assert instant.to_datetime(LAST) == datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)


@pytest.mark.parametrize(
    "text",
    ["", "Z", "2024", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01 00:00:00Z", "2024-W01-1T00:00:00Z",
     "2024-01-01T00:00:00.Z1", "2024-01-01T00:00:00,5Z", "2024-01-01T24:00:01Z", "0001-01-01T00:00:00+01:00",
     "2024-01-01T00:00:00.12345678901Z", "٢٠٢٤-01-01T00:00:00Z", "2024-01-01T00:00:00.٣Z"],
)  # fmt: skip
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        instant.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    try:
        assert 0 <= instant.parse(text) <= LAST + 86_400 * TICKS_PER_SECOND
    except ValueError:
        pass


def test_shifting_stops_at_the_beginning() -> None:
    assert instant.shift(Instant(5), timedelta(seconds=-1)) == MIN_VALUE
    assert instant.shift(Instant(0), timedelta(seconds=1.5)) == 15_000_000
