"""Windows: splitting leaves nothing out, subtracting reads nothing twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.model.instant import TICKS_PER_SECOND, Instant
from worker.model.window import TimeField, Window, split, subtract

SECOND = TICKS_PER_SECOND
bounds = st.none() | st.integers(0, 60)


def members(window: Window, universe: range) -> set[int]:
    low = -1 if window.lower is None else window.lower
    high = universe.stop if window.upper is None else window.upper
    return {tick for tick in universe if low <= tick < high}


@given(
    st.integers(0, 500 * SECOND), st.integers(0, 500 * SECOND), st.integers(1, 20),
    st.none() | st.integers(0, 500 * SECOND), st.none() | st.integers(0, 500 * SECOND),
)  # fmt: skip
def test_parts_touch_and_cover_the_whole(first: int, last: int, parts: int, low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low >= high:
        low, high = high, low + 1
    whole = Window(TimeField.CREATED, None if low is None else Instant(low), None if high is None else Instant(high))
    pieces = split(whole, Instant(min(first, last)), Instant(max(first, last)), parts)
    assert pieces[0].lower == whole.lower
    assert pieces[-1].upper == whole.upper
    for left, right in pairwise(pieces):
        assert left.upper == right.lower
        assert left.upper is not None
        assert left.upper % SECOND == 0, "no server can round an inner bound"
        assert (-1 if left.lower is None else left.lower) < left.upper
    assert len(pieces) <= parts


@given(bounds, bounds, st.lists(st.tuples(bounds, st.integers(0, 60)), max_size=6))
def test_what_is_left_is_what_was_not_covered(
    low: int | None, high: int | None, ranges: list[tuple[int | None, int]]
) -> None:
    window = Window(TimeField.CREATED, None if low is None else Instant(low), None if high is None else Instant(high))
    covered = [(None if a is None else Instant(a), Instant(b)) for a, b in ranges if a is None or a < b]
    universe = range(70)
    expected = members(window, universe)
    for a, b in covered:
        expected -= {tick for tick in universe if (a is None or tick >= a) and tick < b}
    left = subtract(window, covered)
    found = [tick for part in left for tick in members(part, universe)]
    assert sorted(found) == sorted(expected), "and none of it twice"


def test_above_only_ever_raises_the_lower_bound() -> None:
    window = Window(TimeField.UPDATED, Instant(5), Instant(9))
    assert window.above(None) == window
    assert window.above(Instant(3)) == window
    assert window.above(Instant(7)) == Window(TimeField.UPDATED, Instant(7), Instant(9))
