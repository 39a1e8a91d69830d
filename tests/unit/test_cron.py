"""Cron lines mean what cron makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.config.cron import cron_trigger

START = datetime(2026, 11, 1, tzinfo=UTC)  # a Sunday


def fires(line: str, days: int = 35) -> list[datetime]:
    trigger, found, end = cron_trigger(line), list[datetime](), START + timedelta(days)
    at = trigger.get_next_fire_time(None, START)
    while at is not None and at < end:
        found.append(at)
        at = trigger.get_next_fire_time(None, at + timedelta(seconds=1))
    return found


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("sun", "Sun"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("MON-FRI", "Mon Tue Wed Thu Fri"),
        ("5-7", "Fri Sat Sun"),
        ("fri-sun", "Fri Sat Sun"),
        ("6,0", "Sat Sun"),
        ("*/2", "Sun Tue Thu Sat"),
        ("1/2", "Mon Wed Fri"),
        ("1-5/2", "Mon Wed Fri"),
        ("*", "Sun Mon Tue Wed Thu Fri Sat"),
    ],
)
def test_weekdays_are_counted_from_sunday(field: str, names: str) -> None:
    assert {f"{at:%a}" for at in fires(f"30 3 * * {field}")} == set(names.split())


def test_a_day_and_a_weekday_are_either() -> None:
    days = {at.date() for at in fires("0 0 13 * 5", 28)}
    assert {day.day for day in days} == {6, 13, 20, 27}, "each Friday, and the 13th, which is one"
    assert {at.day for at in fires("0 0 10 * 1", 28)} == {2, 9, 10, 16, 23}


@pytest.mark.parametrize(
    "line",
    ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 * * 8", "0 0 * * mon-", "0 0 * * 5-2", "0 0 * * x",
     "60 * * * *", "* * * 13 *"],
)  # fmt: skip
def test_a_line_that_is_none_or_never_fires_is_a_fault(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cron_trigger(line)
