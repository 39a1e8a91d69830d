"""The configured database: opened, migrated, and made ready. What only looks at data needs no more than this."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from worker.config.models import Settings
from worker.errors import StoreError
from worker.model.privacy import Privacy
from worker.store import analysis, migrate, privacy, queries, schedules, view_settings
from worker.store.address import without_sign_in
from worker.store.database import Database, open_database

CONNECTIONS = 10
"""So many connections a process has at most, however many accounts there are."""

_log = structlog.get_logger()


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Give the address of the database; joins or starts (and migrates) the embedded one when that is configured."""
    if not settings.database.is_embedded:
        yield settings.database.url.get_secret_value()
        return
    from worker.embedded import server as embedded  # noqa: PLC0415 - needed only where no server is configured

    folder = settings.database.data_dir
    async with embedded.server(folder, port=settings.database.port, lasting=True) as own:
        await migrate.upgrade(own)
        yield own


@asynccontextmanager
async def address(settings: Settings, *, reader: bool, lingers: bool) -> AsyncIterator[str]:
    """Give the address for psql and dashboards; an embedded database that `lingers` waits a little for them to connect.

    For a `reader` it signs in as a role that is a member of `bi_reader`. That of an external database is not ours to
    make, so its address comes without a sign-in.
    """
    async with database_url(settings) as url:
        if settings.database.is_embedded:
            from worker.embedded import server as embedded  # noqa: PLC0415 - needed only where no server is configured

            folder = settings.database.data_dir
            own = await embedded.reader_address(folder, url) if reader else url
            if lingers:
                await embedded.linger(folder)
            yield own
        else:
            yield without_sign_in(url) if reader else url


@asynccontextmanager
async def migrated_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database, which must be at a revision that this release can work with."""
    async with database_url(settings) as url:
        await require_migrated(url)
        async with open_database(url, connections=pool_size(settings)) as database:
            yield database


async def prepare_database(settings: Settings, url: str) -> list[str]:
    """Migrate, hand over the settings that views need, and say what is left for a person with more rights."""
    told = [f"The database is at revision {await migrate.upgrade(url)}."]
    async with open_database(url, connections=1) as database:
        moved = await view_settings.put_setting(database, "bi.timezone", settings.bi.timezone)
        await view_settings.put_labels(database, settings.labels())
        await privacy.enforce(database, await configured_rules(settings, database))
        await refresh_history(database, insist=moved)
        if await queries.readers_missing(database):
            told += ["The roles of dashboards could not be made. Somebody with CREATEROLE has to run this once:", ""]
            told.append(migrate.roles_sql())
    return told


async def require_migrated(url: str) -> None:
    """Raise StoreError unless the database is at a revision that this release can work with, and can hold the copy."""
    revision = await migrate.current(url)
    await migrate.check_database(url, revision)
    if not migrate.suffices(revision):
        raise StoreError("The database is not migrated to this release.", "Run `referral-sync migrate`.")


def pool_size(settings: Settings) -> int:
    """Count connections: enough for the readers of one account, and for whatever a worker has in hand at once."""
    return max(CONNECTIONS, min(4 + settings.api.concurrency, 2 * CONNECTIONS))


async def configured_rules(settings: Settings, database: Database) -> Privacy:
    """Return what of people may be stored, as configured."""
    return await privacy.rules(database, settings.privacy.contacts, settings.privacy.after_expiry)


async def refresh_history(database: Database, *, insist: bool = False) -> None:
    """Bring up to date what dashboards read from materialised views, where a run asked for it, or we `insist`.

    When that fails the copy itself is as good, and the refresh stays asked for.
    """
    try:
        if not await schedules.take_history(database) and not insist:
            return
        await analysis.refresh_history(database)
    except StoreError as error:
        _log.warning("history_refresh_failed", error=str(error), hint=error.hint)
        with suppress(StoreError):
            await schedules.ask_for_history(database)


async def accounts_in_data(database: Database, settings: Settings, *, configured: bool = True) -> list[str]:
    """Return the accounts that the database knows, and with `configured` those of the configuration too."""
    known = await queries.accounts(database)
    return sorted(known | set(settings.accounts if configured else ()))
