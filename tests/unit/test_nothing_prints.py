"""What holds secrets or personal data does not print them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.auth.tokens import Granted
from worker.model.mapping import Mapped, RejectedRecord, Row, map_record
from worker.model.record import Listing, Page, decode_record
from worker.store.history import History
from worker.store.rejects import Kept
from worker.store.tokens import Chain

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RECORD = decode_record(b'{"id":"a","details":{"notes":"secret words"},"team":[{"email":"secret words"}]}')
ROW = map_record(RECORD, NOW)
REJECT = RejectedRecord("a", b"secret words", "reason")


@pytest.mark.parametrize(
    "thing",
    [
        RECORD,
        ROW,
        REJECT,
        Mapped([ROW] if isinstance(ROW, Row) else [], [REJECT]),
        Page([RECORD], None, NOW),
        Listing([RECORD], None, None, NOW),
        Granted("secret words", 1.0, "secret words"),
        Chain("key", b"secret words"),
        Kept("a", "a", "reason", None, b"secret words", NOW, NOW, 1, None, None),
        History("contoso", {"notes": "secret words"}, {}, []),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_it_does_not_print(thing: object) -> None:
    for text in (repr(thing), str(thing), f"{thing}", f"{[thing]}"):
        assert "secret" not in text
