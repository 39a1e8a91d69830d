"""Referrals to make in the simulator, and what of them is personal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any


def incoming(days_left: float, **more: Any) -> dict[str, Any]:
    """A referral that waits for an answer, with so many days left."""
    expires = datetime.now(UTC) + timedelta(days=days_left)
    return {
        "direction": "Incoming",
        "status": "New",
        "substatus": "Pending",
        "acceptedDateTime": None,
        "closedDateTime": None,
        "expirationDateTime": f"{expires:%Y-%m-%dT%H:%M:%S}.0000000Z",
    } | more


def personal(records: dict[str, Any]) -> set[str]:
    """Collect what must not be found anywhere: whatever names a customer's people, phones, notes."""
    found = set()
    for record in records.values():
        for contact in (record.get("customerProfile") or {}).get("team") or ():
            found |= {contact.get("email"), contact.get("phoneNumber")}
        found |= {member.get("phoneNumber") for member in record.get("team") or ()}
        found |= {(record.get("details") or {}).get("notes"), (record.get("inviteContext") or {}).get("notes")}
    return {json.dumps(value)[1:-1] for value in found if value}
