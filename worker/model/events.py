"""Which changes of a referral people may be notified of; decided on the two versions, before anybody asks whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from worker.model import instant
from worker.model.mapping import Row


class EventKind(StrEnum):
    """What an event is; all but `recovered` are names that a channel may ask for, which goes wherever `stale` does."""

    NEW = "new"
    DUE = "due"
    OVERDUE = "overdue"
    EXPIRED = "expired"
    CLOSED = "closed"
    VALUE_CHANGED = "value_changed"
    ACTION_REQUIRED = "action_required"
    STALE = "stale"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a referral.

    `key` tells it from others of its kind, so that it is decided once. `facts` are what the copy will no longer say
    when the message is made; no names.
    """

    referral_id: str
    kind: EventKind
    key: str
    happened_at: datetime
    facts: Mapping[str, str | None] = field(default_factory=dict)


def events_of(before: Row | None, after: Row) -> list[Event]:
    """Return what a change means to people; `before` is None where the referral was not known."""
    key = f"{after.version}:{after.content_hash.hex[:8]}"
    closed = after.value("status") == "Closed"
    if closed and (before is None or before.value("status") != "Closed"):
        kind = EventKind.EXPIRED if after.value("substatus") == "Expired" else EventKind.CLOSED
        return [Event(after.id, kind, key, _moment(after.value("closed_at")) or _updated(after))]
    if before is None:
        if after.value("direction") != "Incoming":
            return []
        return [Event(after.id, EventKind.NEW, "", _moment(after.value("created_at")) or _updated(after))]
    if _worth(before) == _worth(after):
        return []
    facts = {"old_value": before.value("deal_value"), "old_currency": before.value("currency")}
    facts |= {"new_value": after.value("deal_value"), "new_currency": after.value("currency")}
    return [Event(after.id, EventKind.VALUE_CHANGED, key, _updated(after), facts)]


def _worth(row: Row) -> tuple[Decimal | None, str | None]:
    """Return the value in its currency; 5 and 5.00 are the same, and a currency without a value says nothing."""
    text = row.value("deal_value")
    try:
        value = None if text is None else Decimal(text)
    except InvalidOperation:
        value = None
    return value, None if value is None else row.value("currency")


def _updated(row: Row) -> datetime:
    return instant.to_datetime(row.version) if row.version else row.observed_at


def _moment(text: str | None) -> datetime | None:
    """Read a column of times as it is written for PostgreSQL."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
