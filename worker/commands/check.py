"""The doctor: looks at everything that a run depends on, and says for each how to fix it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from worker import wiring
from worker.auth.tokens import mfa_of
from worker.commands.outlet import tell
from worker.commands.unknowns import Unknown, answers
from worker.config.models import Settings
from worker.errors import StoreError, SyncError
from worker.model.escape import line
from worker.notify.channel import ChannelError
from worker.notify.delivery import look as notify_channel
from worker.source.client import TokenSource
from worker.store import migrate, queries
from worker.store.database import Database, connect, open_database
from worker.wiring import database_url


class State(StrEnum):
    """What a finding means: all is well, something is missing that a run can do without, or runs will fail."""

    GOOD = "ok"
    LACKING = "warn"
    BAD = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, what was found, and the fix.

    `exit_code` is what the command ends with where this is the worst.
    """

    subject: str
    found: str
    state: State = State.GOOD
    fix: str = ""
    exit_code: int = 0


OPEN = "What the documents of the API leave open (14 questions), what was seen of it, and what is in force for it"


async def look(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the configuration, the database, and each account's sign-in and API, one finding at a time.

    What fails for one account is said of it, and the others are looked at all the same.
    """
    yield Finding("configuration", f"{len(settings.accounts)} account(s): {', '.join(sorted(settings.accounts))}")
    for name in sorted(settings.notify.channels):
        yield await _channel(settings, name)
    try:
        async with database_url(settings) as url:
            database_is = await _database(url)
            yield database_is
            async with open_database(url, connections=2) as database:
                usable = database_is.state is State.GOOD
                if usable:
                    yield await _readers(database)
                for name in sorted(settings.accounts):
                    async for finding in _account(settings, database, name, migrated=usable):
                        yield finding
    except StoreError as error:
        yield _failure("database", error)


def _failure(subject: str, error: SyncError) -> Finding:
    return Finding(subject, str(error), State.BAD, error.hint, error.exit_code)


async def _database(url: str) -> Finding:
    async with connect(url) as connection:
        version = await connection.fetchval("SHOW server_version")
    revision = await migrate.current(url)
    await migrate.check_database(url, revision)
    found = f"PostgreSQL {version}, revision {revision or 'none'}"
    if not migrate.is_current_enough(revision):
        return Finding("database", found, State.BAD, "Run `referral-sync migrate`.", exit_code=1)
    return Finding("database", found)


async def _readers(database: Database) -> Finding:
    if await queries.readers_missing(database):
        return Finding(
            "roles of dashboards",
            "bi_reader and bi_reader_pii are missing, so no dashboard can read.",
            State.LACKING,
            "Somebody with CREATEROLE runs the SQL that `referral-sync migrate` prints.",
        )
    return Finding("roles of dashboards", "bi_reader, and bi_reader_pii for personal data")


async def _account(settings: Settings, database: Database, name: str, *, migrated: bool) -> AsyncIterator[Finding]:
    subject = f"{name}: sign-in and API"
    try:
        token = wiring.token_source(settings, database, name, force=True)
        async with wiring.open_pipeline(settings, database, name, token) as pipeline:
            listing = await pipeline.client.list("")
            mfa = await _mfa(token)
            yield Finding(subject, f"a page of {len(listing.records)} referrals")
            subject = f"{name}: what the API does"
            seen = [answer async for answer in answers(pipeline.client)]
    except StoreError:
        raise
    except SyncError as error:
        yield _failure(subject, error)
        return
    seen.append(Unknown(12, "MFA and conditional access", mfa, "a refusal ends the run: action required"))
    seen += await _in_data(name, database) if migrated else []
    yield Finding(name, f"{OPEN}:")
    for answer in sorted(seen, key=lambda one: one.number):
        yield Finding(f"{name}: ({answer.number}) {answer.subject}", f"{answer.seen}. In force: {answer.default}")


async def _mfa(token: TokenSource) -> str:
    texts = {True: ", and the token says that it was with MFA", None: ""}
    return "not refused for want of MFA yet" + texts.get(
        mfa_of(await token(False)),
        ", but the token says that it was without: sign in again with MFA before it is asked for",
    )


async def _channel(settings: Settings, name: str) -> Finding:
    try:
        service = await notify_channel(settings, name)
    except ChannelError as error:
        return _failure(f"channel {name}", error)
    return Finding(f"channel {name}", f"{service}; `notify test` sends a message")


async def _in_data(name: str, database: Database) -> list[Unknown]:
    """Say what cannot be asked of the API, and only shows in what was read."""
    seen = await queries.seen_in_data(database, name)
    silent, deleted = seen.pop("silent"), seen.pop("deleted")
    seen_text = ", ".join(f"{number} {category}" for category, number in seen.items()) or "nothing stored yet"
    return [
        Unknown(3, "edits that do not move updatedDateTime", f"{silent} seen", "a nightly reconcile"),
        Unknown(
            5,
            "rows that move while a listing is read",
            "cannot be asked",
            "each page begins where the last one ended, and what contradicts that is not relied on",
        ),
        Unknown(
            10,
            "rows deleted at the source",
            f"{deleted} marked",
            "only a complete listing and a look by id mark a row, and never many at once",
        ),
        Unknown(14, "marketplace leads", seen_text, "every category is stored"),
    ]


async def show_findings(settings: Settings) -> int:
    """Print each finding with its fix; returns the worst exit code."""
    worst = 0
    async for finding in look(settings):
        tell(line(f"{finding.state:4}  {finding.subject}: {finding.found}"))
        if finding.fix:
            tell(line(f"      {finding.fix}"))
        worst = max(worst, finding.exit_code)
    return worst
