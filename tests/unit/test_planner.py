"""When work is due next, and that accounts neither start nor drift together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config.values import Cron
from worker.daemon.planner import next_due, spec
from worker.store.schedules import phase_of

NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    seconds=st.integers(1, 86_400),
    phase=st.floats(0, 1, exclude_max=True),
)
def test_an_interval_keeps_its_phase_however_late_it_is_looked_at(now: datetime, seconds: int, phase: float) -> None:
    due = next_due(timedelta(seconds=seconds), "UTC")
    first = due(now, phase)
    assert now <= first <= now + timedelta(seconds=seconds, microseconds=10)
    later = due(first + timedelta(seconds=0.4 * seconds), phase)
    assert abs((later - first).total_seconds() - seconds) < 0.001
    after_an_outage = due(first + timedelta(seconds=7.5 * seconds), phase)
    assert abs((after_an_outage - first).total_seconds() - 8 * seconds) < 0.001, "one, not the seven that were missed"


@pytest.mark.parametrize("accounts", [3, 200, 2000])
@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_accounts_are_spread_over_the_interval(accounts: int, kinds: int) -> None:
    """Rows of other kinds may lie between."""
    phases = sorted(phase_of(1 + number * kinds) for number in range(accounts))
    gaps = [after - before for before, after in zip(phases, [*phases[1:], phases[0] + 1], strict=True)]
    assert max(gaps) < 6 / accounts


def test_a_cron_line_means_what_it_says() -> None:
    due = next_due(Cron("30 3 * * *"), "Europe/Berlin")
    first = due(NOON, 0.7)
    assert first.astimezone(UTC) == datetime(2026, 11, 29, 2, 30, tzinfo=UTC)
    assert due(first, 0.7) == first + timedelta(days=1), "not the moment that it is"


def test_a_schedule_is_written_so_that_a_change_shows() -> None:
    assert spec(timedelta(minutes=5), "UTC") == "5m"
    assert spec(Cron("30 3 * * *"), "UTC") != spec(Cron("30 3 * * *"), "Europe/Berlin")
