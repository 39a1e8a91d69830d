"""The doctor: looks at everything that a run depends on, and says for each how to mend it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from worker import wiring
from worker.auth.tokens import mfa_of
from worker.commands.unknowns import answers
from worker.config.models import Settings
from worker.database import database_url
from worker.errors import SyncError
from worker.notify.channel import ChannelError
from worker.notify.delivery import look as notify_channel
from worker.source.client import Client, TokenSource
from worker.store import ledger, migrate
from worker.store.database import Database, connect, open_database


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, whether it is good, what was found, and the mend."""

    subject: str
    good: bool
    found: str
    mend: str = ""


async def look(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the configuration, the database, and each account's sign-in and API, one finding at a time."""
    yield Finding("configuration", True, f"{len(settings.accounts)} account(s): {', '.join(sorted(settings.accounts))}")
    for name in sorted(settings.notify.channels):
        yield await _channel(settings, name)
    try:
        async with database_url(settings) as url:
            database_is = await _database(url)
            yield database_is
            async with open_database(url, connections=2) as database:
                if database_is.good:
                    yield await _readers(database)
                for name in sorted(settings.accounts):
                    token = wiring.token_source(settings, database, name, insist=True)
                    async with wiring.open_pipeline(settings, database, name, token) as pipeline:
                        async for finding in _account(name, pipeline.client, token):
                            yield finding
                    if database_is.good:
                        async for finding in _data(name, database):
                            yield finding
    except SyncError as error:
        yield Finding("database", False, str(error), error.hint)


async def _database(url: str) -> Finding:
    async with connect(url) as connection:
        version = await connection.fetchval("SHOW server_version")
    revision = await migrate.current(url)
    await migrate.check_database(url, revision)
    if not migrate.suffices(revision):
        return Finding(
            "database", False, f"PostgreSQL {version}, at revision {revision or 'none'}", "Run `referral-sync migrate`."
        )
    return Finding("database", True, f"PostgreSQL {version}, revision {revision}")


async def _readers(database: Database) -> Finding:
    if await ledger.readers_missing(database):
        return Finding("roles of dashboards", True, "bi_reader and bi_reader_pii are missing; `migrate` prints the SQL")
    return Finding("roles of dashboards", True, "bi_reader, and bi_reader_pii for personal data")


async def _account(name: str, client: Client, token: TokenSource) -> AsyncIterator[Finding]:
    try:
        listing = await client.list("")
        yield Finding(
            f"{name}: sign-in and API",
            True,
            f"a page of {len(listing.records)} referrals; (12) not refused for want of MFA yet{await _advice(token)}",
        )
        async for answer in answers(client):
            yield Finding(f"{name}: {answer.subject}", True, f"{answer.seen}. In force: {answer.default}")
    except SyncError as error:
        yield Finding(f"{name}: sign-in and API", False, str(error), error.hint)


async def _advice(token: TokenSource) -> str:
    match mfa_of(await token(False)):
        case True:
            return ", and the token says that it was with MFA"
        case False:
            return ", but the token says that it was without: sign in again with MFA before it is asked for"
        case None:
            return ""


async def _channel(settings: Settings, name: str) -> Finding:
    try:
        service = await notify_channel(settings, name)
    except ChannelError as error:
        return Finding(f"channel {name}", False, str(error), error.hint)
    return Finding(f"channel {name}", True, f"{service}; `notify test` sends a message")


async def _data(name: str, database: Database) -> AsyncIterator[Finding]:
    """Say what cannot be asked of the API, and only shows in what was read."""
    seen = await ledger.seen_in_data(database, name)
    silent, gone = seen.pop("silent"), seen.pop("gone")
    yield Finding(
        f"{name}: (3) edits that do not move updatedDateTime", True, f"{silent} seen. In force: a nightly reconcile"
    )
    yield Finding(
        f"{name}: (5) rows that move while a listing is read",
        True,
        "cannot be asked. In force: each page begins where the last one ended, and what contradicts that is distrusted",
    )
    yield Finding(
        f"{name}: (10) rows that vanish",
        True,
        f"{gone} marked. In force: only a proven listing and a look by id mark a row, and never many at once",
    )
    told = ", ".join(f"{number} {category}" for category, number in seen.items()) or "nothing loaded yet"
    yield Finding(f"{name}: (14) marketplace leads", True, f"{told}. In force: every category is stored")
