"""Pages of few records, as a client gives them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from worker.model.record import Page, decode_record

ENCODE = msgspec.json.Encoder(decimal_format="number").encode
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def referral(number: int = 1, minute: int = 0, **members: Any) -> dict[str, Any]:
    stamp = f"2024-05-01T10:{minute:02}:00.0000001Z"
    return {"id": f"r{number}", "engagementId": f"e{number}", "createdDateTime": "2024-05-01T09:00:00Z",
            "updatedDateTime": stamp, "status": "New"} | members  # fmt: skip


def page(*trees: dict[str, Any] | bytes, seconds: int = 0, by_id: bool = False) -> Page:
    records = [decode_record(tree if isinstance(tree, bytes) else ENCODE(tree)) for tree in trees]
    return Page(records, None, NOON + timedelta(seconds=seconds), by_id=by_id)
