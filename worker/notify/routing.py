"""Who is notified of what, and whether it is still true; pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from worker.config.models import Channel
from worker.model.events import EventKind
from worker.notify.facts import Deal, Occurrence


def covers(channel: Channel, account: str) -> bool:
    """Return whether a channel covers an account."""
    return not channel.accounts or account in channel.accounts


def wants(channel: Channel, event: Occurrence, *, introduced: bool, now: datetime) -> bool:
    """Return whether an event goes to a channel.

    Before its first summary of an account, a channel is sent only that somebody has to act. Of several thresholds that
    are over, only the last one is sent; and none to whom the referral itself was news after it.
    """
    name = EventKind.STALE if event.kind is EventKind.RECOVERED else event.kind
    if not covers(channel, event.account) or name.value not in channel.events:
        return (
            event.kind is EventKind.RECOVERED and covers(channel, event.account) and "action_required" in channel.events
        )
    if not introduced and event.kind not in (EventKind.ACTION_REQUIRED, EventKind.RECOVERED):
        return False
    if not event.referral_id:
        return True
    if event.deal is None or not matches(channel, event.deal):
        return False
    return event.kind is not EventKind.DUE or _is_threshold(channel, event, event.deal, now)


def _is_threshold(channel: Channel, event: Occurrence, deal: Deal, now: datetime) -> bool:
    days, due = int(event.key.partition("@")[0]), deal.respond_by or now
    passed = [one for one in channel.due_days if due - now <= timedelta(days=one, hours=1)]
    already_sent = event.news_at is not None and event.news_at >= due - timedelta(days=days) and "new" in channel.events
    return days in channel.due_days and days == min(passed, default=days) and not already_sent


def matches(channel: Channel, deal: Deal) -> bool:
    """Return whether a referral is one that a channel covers: all that is named must match."""
    where = channel.where
    return all(
        not wanted or {one.casefold() for one in wanted} & {(one or "").casefold() for one in found}
        for wanted, found in (
            (where.direction, [deal.direction]),
            (where.mpn_id, [deal.mpn_id]),
            (where.seller, [email for _, email in deal.sellers]),
            (where.country, [deal.country]),
            (where.deal_type, [deal.deal_type]),
        )
    )


def is_true(event: Occurrence, now: datetime) -> bool:
    """Return whether an event may still be sent: a referral that was answered meanwhile is not due."""
    if not event.referral_id:
        return event.holds
    deal = event.deal
    if deal is None:
        return False
    due = deal.respond_by if deal.is_awaiting else None
    match event.kind:
        case EventKind.DUE:
            return due is not None and due > now
        case EventKind.OVERDUE:
            return due is not None and due <= now
        case EventKind.EXPIRED | EventKind.CLOSED:
            return deal.status == "Closed"
        case EventKind.NEW:
            return deal.status != "Closed"
        case _:
            return True


def still_true(events: Iterable[Occurrence], now: datetime) -> list[Occurrence]:
    """Keep what may still be sent, of each referral and kind the newest; each change of a value is one of its own."""
    single = (EventKind.VALUE_CHANGED, EventKind.STALE, EventKind.ACTION_REQUIRED, EventKind.RECOVERED)
    newest = {
        (one.account, one.referral_id, one.kind, one.key if one.kind in single else ""): one
        for one in sorted(events, key=lambda one: one.id)
    }
    return [event for event in newest.values() if is_true(event, now)]
