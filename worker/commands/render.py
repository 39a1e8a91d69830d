"""What commands print, as text. What a stranger may have written is shown on one line, with its controls escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from worker.errors import MFA_ASKED
from worker.model import instant
from worker.model.account_state import loading, sign_in
from worker.model.counts import Counts
from worker.model.decide import Verdict
from worker.model.escape import line
from worker.model.pace import duration, seconds_left

if TYPE_CHECKING:
    from worker.store.rejects import Kept
    from worker.sync.explain import Explained
    from worker.sync.reconcile import Reconciled

_WIDTH = 100


def counts(result: Counts) -> str:
    """Say the four counts."""
    by_name = ((name, getattr(result, name)) for name in ("inserted", "updated", "unchanged", "rejected"))
    return ", ".join(f"{number} {name}" for name, number in by_name)


def status(row: dict[str, Any]) -> str:
    """Say how an account is, from a row of `sync.status`."""
    last = "none" if row["last_run_kind"] is None else f"{row['last_run_kind']} {row['last_run_outcome']}"
    lines = {
        "fresh as of": moment(row["fresh_as_of"]),
        "watermark": moment(row["watermark"]),
        "verified through": moment(row["verified_through"])
        + (f" ({row['verified_by']})" if row["verified_by"] else ""),
        "referrals": f"{row['live_referrals'] or 0:,} listed, {row['deleted_referrals'] or 0:,} deleted at the source",
        "rejected records": f"{row['open_rejects'] or 0:,} open",
        "last run": f"{last}, {moment(row['last_run_at'])}",
    }
    lines |= _sign_in_lines(row) | _lag_lines(row)
    details = {
        "last error": row["last_run_outcome"] in ("failed", "refused", "abandoned") and row["last_error"],
        "backing off": row["backing_off_until"]
        and f"until {moment(row['backing_off_until'])}: {row['backing_off_because']}",
        "loading": under_way.text if (under_way := loading(row, datetime.now(UTC))) else "",
        "not verified": row["not_verified"],
        "last reconcile": row["last_reconcile_error"],
        "note": not row["configured"]
        and f"not in the configuration; `referral-sync account remove {row['account']}` erases it",
    }
    lines |= {name: value for name, value in details.items() if value}
    return f"{line(row['account'])}: {row['health']}\n{_block(lines)}"


def _sign_in_lines(row: dict[str, Any]) -> dict[str, str]:
    lines = {}
    if text := sign_in(row, datetime.now(UTC)):
        lines["sign-in"] = f"{text}: {row['sign_in_refused_because']}" if row["sign_in_refused_at"] else text
    if row["last_run_kind"] is not None:
        asked = MFA_ASKED in (row["last_error"] or "")
        lines["MFA"] = "asked for: sign in again with it" if asked else "not refused for want of it yet"
    return lines


def _lag_lines(row: dict[str, Any]) -> dict[str, str]:
    lines = {}
    if row["lag_p50"] is not None:
        lowest = row["below_watermark_max"]
        below = "" if lowest is None else f"; up to {lowest:.0f} s below the watermark"
        lines["lag"] = f"{row['lag_p50']:.0f} s median, {row['lag_p95']:.0f} s for 95 of 100{below}"
    if row["overlap_too_small"]:
        lines["overlap"] = (
            f"{row['overlap'] or 0:.0f} s is too small: {row['missed']} changes appeared later. Raise `sync.overlap`."
        )
    return lines


def estimate(elapsed: float, done: int, total: int) -> str:
    """Say how long the rest takes if it goes on as so far."""
    left = seconds_left(elapsed, done, total)
    return "estimating" if left is None else f"about {duration(left)} left"


def channel(row: dict[str, Any]) -> str:
    """Say how a channel is, from what is recorded of it."""
    lines = {"messages": f"{row['sent']:,} sent, last {moment(row['last_sent_at'])}"}
    if row["waiting_events"] or row["waiting_messages"]:
        since = f", the oldest since {moment(row['oldest_at'])}" if row["oldest_at"] else ""
        lines["waiting"] = f"{row['waiting_messages']:,} messages, {row['waiting_events']:,} events{since}"
    if row["given_up_lately"]:
        lines["given up"] = f"{row['given_up_lately']:,} messages in 7 days, after a day of attempts each"
    if row["last_error"]:
        lines["last error"] = line(row["last_error"])
    if not row["configured"]:
        lines["note"] = "not in the configuration, so nothing is sent to it"
    return f"channel {row['channel']}\n{_block(lines)}"


def message(row: dict[str, Any]) -> str:
    """Say what came of a message, on a line."""
    events = f", {row['events']:,} events ({row['kinds']})" if row["events"] else ""
    tries = f" after {row['attempts']} attempts" if row["attempts"] > 1 else ""
    error = f": {line(row['error'])}" if row["error"] else ""
    return f"{moment(row['created_at'])}  {row['channel']}  {row['kind']}{events}  {row['state']}{tries}{error}"


def queue(kinds: Sequence[Mapping[str, Any]], workers: int) -> str:
    """Say what waits for workers, and how many there are."""
    waiting, in_hand = (sum(kind[name] for kind in kinds) for name in ("waiting", "in_hand"))
    oldest = max((kind["oldest_seconds"] for kind in kinds), default=0)
    summary = f"{workers} alive, {in_hand} jobs in hand, {waiting} waiting"
    return f"workers: {summary}, the oldest for {oldest:.0f} s" if waiting else f"workers: {summary}"


def rejected_line(account: str, kept: Kept) -> str:
    """Describe a rejected record on one line; never its contents."""
    field = f" at {kept.field}" if kept.field else ""
    seen = f"first {moment(kept.first_seen_at)}, last {moment(kept.last_seen_at)}"
    named = kept.referral_id or f"record {kept.key}"
    return line(f"{account}  {named}  {kept.reason}{field}  ({seen}, tried {kept.attempts} times)")


def explained(account: str, about: Explained) -> Iterator[str]:
    """Say all that is known of a referral, a line or block at a time."""
    row = about.history.row
    yield f"{account}: {_copy(about)}"
    if row is not None:
        columns = {
            name: _short(value)
            for name, value in row.items()
            if value is not None and name not in ("payload", "content_hash", "account")
        }
        yield _block(columns)
        if about.history.child_rows:
            yield "  child rows: " + ", ".join(f"{count} {table}" for table, count in about.history.child_rows.items())
    for version in about.history.versions:
        until = moment(version["valid_to"]) if version["valid_to"] else "now"
        names = f": {', '.join(version['changed_columns'])}" if version["changed_columns"] else ""
        run = f"run {version['run_id']}, {version['run_kind'] or 'forgotten'}" if version["run_id"] else "an early run"
        yield line(f"  {moment(version['valid_from'])} to {until}  {version['change']}{names}  ({run})")
    for kept in about.rejects:
        closed = f", closed: {kept.closed_because}" if kept.closed_at else ""
        yield f"  rejected {rejected_line(account, kept)}{closed}"
    yield line(f"  at the source: {_source(about)}")


def moment(at: datetime | None) -> str:
    """Write a time for people."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "never"


def reconciled(result: Reconciled) -> str:
    """Write what a reconcile came to."""
    summary = f"{counts(result.counts)}, {result.deleted} deleted at the source"
    return line(f"{summary}. Not verified: {result.unverified}" if result.unverified else f"verified: {summary}")


def _copy(about: Explained) -> str:
    if about.history.row is None:
        return "not in the copy" + (", only its history" if about.history.versions else "")
    deleted_at = about.history.row["deleted_at"]
    return f"in the copy, deleted at the source {moment(deleted_at)}" if deleted_at else "in the copy"


def _source(about: Explained) -> str:
    if about.failure is not None:
        return f"cannot be said. {about.failure}"
    row = about.history.row
    if about.source is None:
        if row is None or row["deleted_at"]:
            return "not shown, nor in the copy"
        return "not shown, but in the copy as listed: the next reconcile decides"
    updated = instant.render(about.source.version) if about.source.version else "without a time"
    refresh = f"`referral-sync refresh {about.source.id}`"
    match about.verdict:
        case Verdict.KEEP | Verdict.ETAG:
            comparison = "the same as in the copy"
        case Verdict.OLDER:
            comparison = f"older than the copy: the next reconcile takes it over, or at once {refresh}"
        case _:
            comparison = f"newer than the copy: {refresh}"
    return f"updated {updated}; {comparison}"


def _block(lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"  {name:{width}}  {line(value)}" for name, value in lines.items())


def _short(value: Any) -> str:
    text = line(moment(value) if isinstance(value, datetime) else str(value))
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
