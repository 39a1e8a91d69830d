"""What messages are made of: referrals, events, and how fresh the copy is, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from worker.model.events import EventKind


@dataclass(frozen=True, slots=True)
class Deal:
    """A referral as the copy has it now, without anything personal but its sellers (name, e-mail)."""

    account: str
    label: str
    id: str
    engagement_id: str | None
    name: str | None = field(repr=False)
    customer: str | None = field(repr=False)
    country: str | None
    value: Decimal | None
    currency: str | None
    direction: str
    status: str | None
    substatus: str | None
    deal_type: str | None
    mpn_id: str | None
    created_at: datetime | None
    respond_by: datetime | None
    is_awaiting: bool
    accepted_at: datetime | None
    sellers: Sequence[tuple[str, str]] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event of the outbox, with its referral where it has one that the copy still has.

    `holds`: for what is wrong with an account, whether it still is; for its end, whether its beginning was sent.
    `news_at`: when the referral itself was news.
    """

    id: int
    account: str
    label: str
    kind: EventKind
    referral_id: str
    key: str
    happened_at: datetime
    recorded_at: datetime
    found_by: str | None
    facts: Mapping[str, str | None]
    deal: Deal | None = None
    holds: bool = True
    news_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How an account is.

    `fresh_as_of`: every change before it is in the copy, as far as the source showed it; `is_fresh` whether that is
    recent enough to say that something did not happen. `attempted`: whether a run was tried and failed since.
    `unknown_direction`: referrals that may wait for an answer, but the source does not say whose.
    """

    account: str
    label: str
    is_backfilled: bool
    fresh_as_of: datetime | None
    verified_through: datetime | None
    is_fresh: bool = False
    attempted: bool = False
    sign_in: str | None = None
    reconcile: str | None = None
    unknown_direction: int = 0
    rejects: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What awaits an answer: how many, how many of them too late, and the most urgent ones."""

    number: int
    overdue: int
    first: Sequence[Deal]
