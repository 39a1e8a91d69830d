"""What the messages say, of each kind; pure. A page of words first, then the text, and the HTML for e-mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from worker.model.events import EventKind
from worker.notify.facts import Deal, Health, Occurrence, Waiting
from worker.notify.words import address, amount, counted, moment, plain_text, span

SHOWN = 25
"""Referrals in one section of a digest at most; the others are counted."""

LONGEST_HTML = 90_000
"""Gmail cuts off what is beyond 102 kB."""

_FEWER = (SHOWN, 10, 5, 3, 1, 0)
_HEADINGS = {
    EventKind.OVERDUE: "Deadline passed",
    EventKind.DUE: "Deadline comes near",
    EventKind.NEW: "New",
    EventKind.EXPIRED: "Expired unanswered",
    EventKind.CLOSED: "Closed",
    EventKind.VALUE_CHANGED: "Value changed",
    EventKind.ACTION_REQUIRED: "Action required",
    EventKind.STALE: "No fresh data",
    EventKind.RECOVERED: "Recovered",
}
_NOT_SYNCS = ("reconcile", "replay", "refresh", "backfill")


@dataclass(frozen=True, slots=True)
class Frame:
    """What holds for all of a message: when it is made, in which time zone, how links are, and how the accounts are."""

    now: datetime
    zone: ZoneInfo
    link: str
    accounts: Sequence[Health]


@dataclass(frozen=True, slots=True)
class Entry:
    """One referral, or account, in a message: its name, what is said of it, and where to look."""

    name: str
    details: Sequence[str]
    link: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Entries under a heading; `number` is how many there are, shown or not."""

    heading: str
    entries: Sequence[Entry]
    number: int
    note: str = ""

    @property
    def more(self) -> int:
        """How many are not shown."""
        return self.number - len(self.entries)


@dataclass(frozen=True, slots=True)
class MessagePage:
    """A message before it is written for a channel. Its first lines say how old the data is where that matters."""

    title: str
    first: Sequence[str]
    sections: Sequence[Section]
    last: Sequence[str] = field(default=())

    def text(self, longest: int) -> str:
        """Write it as plain text of at most so many characters, with fewer referrals where there is no room."""
        texts = ("\n".join(self._lines(shown)) for shown in _FEWER)
        fitting = next((text for text in texts if len(text) <= longest), None)
        if fitting is not None:
            return fitting
        return f"{chr(10).join(self._lines(0))[: max(longest - 1, 0)]}…"

    def html(self) -> str:
        """Write it as a page for e-mail, small enough that readers of mail show all of it."""
        html = ""
        for shown in _FEWER[:-1]:
            sections = [replace(section, entries=section.entries[:shown]) for section in self.sections]
            html = _template().render(page=replace(self, sections=sections))
            if len(html) <= LONGEST_HTML:
                break
        return html

    def _lines(self, shown: int) -> list[str]:
        lines = list(self.first)
        for section in self.sections:
            if section.heading:
                lines += ["", f"{section.heading} ({section.number:,})"]
            lines += [section.note] if section.note else []
            for entry in section.entries[: shown if section.heading else max(shown, 1)]:
                lines += ([""] if lines and not section.heading else []) + [entry.name]
                lines += [f"  {line}" for line in (*entry.details, entry.link) if line]
            left = section.number - len(section.entries[:shown])
            lines += [f"... and {left:,} more"] if left and section.heading else []
        return lines + ([""] if self.last else []) + list(self.last)


def single(event: Occurrence, frame: Frame, last: Sequence[str] = ()) -> MessagePage:
    """Write the message of one event."""
    entry = _entry(event, frame)
    name = entry.name
    match event.kind:
        case EventKind.NEW:
            title = f"New referral: {name}"
        case EventKind.DUE:
            title = f"{_left(event.deal, frame)}: {name}"
        case EventKind.CLOSED:
            title = f"{_ending(event.deal)}: {name}"
        case kind:
            title = f"{_HEADINGS[kind]}: {name}"
    old = [_age(one, frame) for one in frame.accounts if event.referral_id and not one.is_fresh]
    fresh = [] if old or not event.referral_id else [_age(one, frame) for one in frame.accounts]
    return MessagePage(title, old, [Section("", [entry], 1)], [*fresh, *last])


def digest(
    title: str, waiting: Waiting | None, events: Sequence[Occurrence], frame: Frame, last: Sequence[str] = ()
) -> MessagePage:
    """Write the message of what awaits an answer, where that is asked for, and of what happened, by kind."""
    sections = []
    if waiting is not None:
        sections.append(_awaiting(waiting, frame))
    for kind, heading in _HEADINGS.items():
        of_kind = [event for event in events if event.kind is kind]
        if of_kind:
            of_kind.sort(key=lambda one: (one.deal.respond_by if one.deal else None) or one.happened_at)
            entries = [_entry(event, frame) for event in of_kind[:SHOWN]]
            sections.append(Section(heading, entries, len(of_kind)))
    old = [frame.now - one.fresh_as_of for one in frame.accounts if not one.is_fresh and one.fresh_as_of is not None]
    unknown = any(one.fresh_as_of is None for one in frame.accounts)
    age = f"Data {span(max(old))} old. " if old else "Data not complete. " if unknown else ""
    return MessagePage(f"{age}{title}", _first(frame), sections, last)


def awaiting_title(waiting: Waiting, frame: Frame) -> str:
    """Say in a title what awaits an answer; from an old copy only what did."""
    overdue = f", {waiting.overdue:,} overdue" if waiting.overdue else ""
    if all(one.is_fresh for one in frame.accounts):
        if not waiting.number:
            return "Referrals: nothing awaits an answer"
        return f"Referrals: {counted(waiting.number, 'awaits', 'await')} an answer{overdue}"
    return f"Referrals: {waiting.number:,} awaited an answer{overdue}" if waiting.number else "Referrals"


def test(channel: str) -> MessagePage:
    """Say that a channel works."""
    return MessagePage("referral-sync: a test", [f"The channel {channel} works."], [])


def _awaiting(waiting: Waiting, frame: Frame) -> Section:
    entries = [_deal_entry(deal, frame, [_deadline(deal, frame)]) for deal in waiting.first]
    notes = []
    if not waiting.number:
        if all(one.is_fresh for one in frame.accounts):
            notes.append("Nothing awaits an answer.")
        else:
            notes.append("None is known of; what came since the copy was last fresh is not in it.")
    unknown = sum(one.unknown_direction for one in frame.accounts)
    if unknown:
        notes.append(f"{counted(unknown, 'referral')} without a direction may await an answer too.")
    rejects = sum(one.rejects for one in frame.accounts)
    if rejects:
        notes.append(
            f"{counted(rejects, 'record')} could not be stored, and may too; `referral-sync rejects` says why."
        )
    return Section("Awaiting an answer", entries, waiting.number, " ".join(notes))


def _first(frame: Frame) -> list[str]:
    """Say how old the data is, the oldest first."""
    return [_age(one, frame) for one in sorted(frame.accounts, key=lambda one: (one.is_fresh, one.label))]


def _age(one: Health, frame: Frame) -> str:
    name, verified = plain_text(one.label), ""
    if one.verified_through is not None:
        verified = f"; verified through {moment(one.verified_through, frame.zone)}"
    if one.fresh_as_of is None:
        return f"Warning: {name} has no finished backfill, so nothing is known of it."
    age = f"{moment(one.fresh_as_of, frame.zone)}, {span(frame.now - one.fresh_as_of)} ago"
    if one.is_fresh:
        return f"{name}: data as of {age}{verified or '; not verified yet'}."
    return f"Warning: the data of {name} is old: as of {age}{verified}. What happened since is not in it."


def _entry(event: Occurrence, frame: Frame) -> Entry:
    if event.deal is None:
        return Entry(plain_text(event.label), _account_lines(event, frame))
    deal = event.deal
    match event.kind:
        case EventKind.NEW:
            lines = [f"Created {moment(event.happened_at, frame.zone)}{_found(event, frame)}", _deadline(deal, frame)]
        case EventKind.EXPIRED | EventKind.CLOSED:
            ending = "Closed" if event.kind is EventKind.EXPIRED else _ending(deal)
            lines = [f"{ending} {moment(event.happened_at, frame.zone)}{_found(event, frame)}"]
        case EventKind.VALUE_CHANGED:
            facts = event.facts
            old = amount(facts.get("old_value"), facts.get("old_currency")) or "no value"
            new = amount(facts.get("new_value"), facts.get("new_currency")) or "no value"
            lines = [f"From {old} to {new}, {moment(event.happened_at, frame.zone)}{_found(event, frame)}"]
        case _:
            lines = [_deadline(deal, frame)]
    return _deal_entry(deal, frame, lines)


def _deal_entry(deal: Deal, frame: Frame, lines: Sequence[str]) -> Entry:
    about = ", ".join(
        one
        for one in (plain_text(deal.customer), plain_text(deal.country, 40), amount(deal.value, deal.currency))
        if one
    )
    sellers = "; ".join(
        ", ".join(one for one in (plain_text(name, 60), address(email)) if one) for name, email in deal.sellers[:2]
    )
    more = f" and {len(deal.sellers) - 2} more" if len(deal.sellers) > 2 else ""  # noqa: PLR2004 - two are named
    details = [about, *lines, f"Seller: {sellers}{more}" if sellers else ""]
    return Entry(plain_text(deal.name) or plain_text(deal.id), [one for one in details if one], _link(deal, frame))


def _account_lines(event: Occurrence, frame: Frame) -> list[str]:
    since = moment(event.happened_at, frame.zone)
    why = plain_text(event.facts.get("why"), 600)
    match event.kind:
        case EventKind.STALE:
            return [
                f"No sync has been good since {since}, {span(frame.now - event.happened_at)} ago.",
                "Deadlines go on meanwhile: look in Partner Center itself. `referral-sync status` says what is wrong.",
            ]
        case EventKind.ACTION_REQUIRED:
            return [why, f"Since {since}. `referral-sync check` says what to do."]
        case _:
            over = (
                "Data is fresh again"
                if event.facts.get("kind") == EventKind.STALE.value
                else "Nobody has to act any more"
            )
            began = event.facts.get("began_at")
            began_text = f" It had begun {moment(datetime.fromisoformat(began), frame.zone)}." if began else ""
            return [f"{over}, since {since}.{began_text}"]


def _deadline(deal: Deal, frame: Frame) -> str:
    if not deal.is_awaiting or deal.respond_by is None:
        return f"Accepted {moment(deal.accepted_at, frame.zone)}" if deal.accepted_at else ""
    left = deal.respond_by - frame.now
    at = moment(deal.respond_by, frame.zone)
    return f"Answer by {at}: {span(left)} left" if left.total_seconds() > 0 else f"Overdue since {at}, {span(left)} ago"


def _left(deal: Deal | None, frame: Frame) -> str:
    return f"{span(deal.respond_by - frame.now)} left" if deal and deal.respond_by else "Due"


def _ending(deal: Deal | None) -> str:
    return plain_text(deal.substatus if deal else None, 40) or "Closed"


def _found(event: Occurrence, frame: Frame) -> str:
    """Say when it was found, where that was not soon after it happened."""
    lag = event.recorded_at - event.happened_at
    if event.found_by not in _NOT_SYNCS and lag.total_seconds() < 86_400:  # noqa: PLR2004 - a day
        return ""
    return f", found {moment(event.recorded_at, frame.zone)} by {event.found_by or 'a sync'}"


def _link(deal: Deal, frame: Frame) -> str:
    if not frame.link or ("{engagement_id}" in frame.link and not deal.engagement_id):
        return ""
    return frame.link.format(id=quote(deal.id, safe=""), engagement_id=quote(deal.engagement_id or "", safe=""))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("worker.notify"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("message.html")
