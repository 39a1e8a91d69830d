"""Which answer is kept: the newest version, whatever the order of arrival."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import pytest

from worker.model.decide import Stored, Verdict, decide, newest_of_each
from worker.model.instant import Instant
from worker.model.mapping import Row

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def row(version: int = 5, content: int = 1, seconds: int = 10, etag: str | None = None, *, by_id: bool = False) -> Row:
    observed = NOON + timedelta(seconds=seconds)
    return Row("a", Instant(version), UUID(int=content), etag, b"", {}, b"{}", False, observed, by_id)


def stored(
    version: int = 5, content: int = 1, seconds: int = 5, etag: str | None = None, deleted: int | None = None
) -> Stored:
    deleted_at = None if deleted is None else NOON + timedelta(seconds=deleted)
    return Stored(Instant(version), UUID(int=content), etag, NOON + timedelta(seconds=seconds), deleted_at)


@pytest.mark.parametrize(
    ("answer", "held", "verdict"),
    [
        (row(), None, Verdict.INSERT),
        (row(), stored(), Verdict.KEEP),
        (row(version=6, content=2), stored(), Verdict.UPDATE),
        (row(version=4, content=2), stored(), Verdict.OLDER),
        (row(content=2), stored(), Verdict.UPDATE),
        (row(content=2, seconds=1), stored(), Verdict.KEEP),
        (row(content=2, seconds=5), stored(), Verdict.KEEP),
        (row(), stored(deleted=8), Verdict.RETURN),
        (row(version=4, content=2), stored(deleted=8), Verdict.UPDATE),
        (row(version=4, content=2, seconds=7), stored(deleted=8), Verdict.KEEP),
        (row(seconds=7), stored(deleted=8), Verdict.KEEP),
        (row(version=6, content=2), stored(deleted=8), Verdict.UPDATE),
        (row(etag="x"), stored(), Verdict.ETAG),
        (row(etag="y"), stored(etag="x"), Verdict.KEEP),
        (row(etag="y", by_id=True), stored(etag="x"), Verdict.ETAG),
        (row(etag="x", by_id=True), stored(etag="x"), Verdict.KEEP),
    ],
)
def test_decisions(answer: Row, held: Stored | None, verdict: Verdict) -> None:
    assert decide(answer, held) is verdict


def test_what_a_person_asked_for_wins_even_when_older() -> None:
    assert decide(row(version=4, content=2, seconds=1), stored(), force=True) is Verdict.UPDATE
    assert decide(row(), stored(), force=True) is Verdict.KEEP


def test_the_newest_wins_in_every_order_of_arrival() -> None:
    answers = [
        row(version=3, content=3),
        row(version=5, content=5),
        row(version=5, content=6, seconds=20),
        row(version=4, content=4),
    ]
    for order in permutations(answers):
        held: Stored | None = None
        for answer in order:
            if decide(answer, held) in (Verdict.INSERT, Verdict.UPDATE):
                held = Stored(answer.version, answer.content_hash, None, answer.observed_at, None)
        assert held is not None
        assert held.content_hash == UUID(int=6)
        assert newest_of_each(order)[0].content_hash == UUID(int=6)
