"""Settings become objects: accounts, sign-ins, pipelines and the database; the only place that constructs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from worker.auth.refresh import SignIn, kept_fresh
from worker.auth.tokens import command_token, static_token
from worker.config.models import DeviceCode, Password, RefreshToken, Settings, StaticToken, TokenCommand
from worker.errors import ConfigError, StoreError
from worker.model.privacy import Privacy
from worker.model.strategy import Paging
from worker.store import (
    leases,
    migrate,
    privacy,
    queries,
    view_settings,
)
from worker.store.address import without_sign_in
from worker.store.database import Database, open_database

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from worker.auth.microsoft import MicrosoftIdentity
    from worker.source.client import TokenSource
    from worker.store.seal import Seal
    from worker.sync.pipeline import Pipeline, Step

Show: TypeAlias = "Callable[[Step], None]"


def chosen_accounts(settings: Settings, only: str | None) -> list[str]:
    """Return the account asked for, or all; raises ConfigError for one that is not configured."""
    if only is None:
        return sorted(settings.accounts)
    if only not in settings.accounts:
        raise ConfigError([f"accounts.{only}: no such account; there is {', '.join(sorted(settings.accounts))}"])
    return [only]


def token_source(settings: Settings, database: Database, name: str, *, force: bool = False) -> TokenSource:
    """Build where an account's tokens come from; keep it, for it remembers the token that is good.

    `force` asks the identity service even when it has just refused. Raises ConfigError for a key file that is none.
    """
    match settings.accounts[name]:
        case StaticToken(access_token=token):
            return static_token(token.get_secret_value(), f"accounts.{name}.access_token")
        case TokenCommand(command=command):
            return command_token(command, f"accounts.{name}.command")
    return kept_fresh(database, sign_in_of(settings, name), force=force)


def sign_in_of(settings: Settings, name: str) -> SignIn:
    """Describe how an account signs in at the identity service. Raises ConfigError when it does not."""
    account = settings.accounts[name]
    if isinstance(account, StaticToken | TokenCommand):
        raise ConfigError([f"accounts.{name}.auth: {account.auth} signs in without us"])
    service = identity(settings, name)
    issued_for = f"{settings.api.authority}/{account.tenant_id}, application {account.client_id}".lower()
    if isinstance(account, Password):
        user = account.username.get_secret_value()
        return SignIn(
            name,
            partial(service.by_password, user),
            account.password.get_secret_value(),
            issued_for,
            settings.api.base_url,
            (account.client_secret.get_secret_value(), user),
            _seal(settings),
            stores=False,
        )
    configured = account.refresh_token.get_secret_value() if isinstance(account, RefreshToken) else ""
    secret = account.client_secret.get_secret_value() if isinstance(account, RefreshToken) else ""
    return SignIn(
        name, service.by_refresh_token, configured, issued_for, settings.api.base_url, (secret,), _seal(settings)
    )


def identity(settings: Settings, name: str) -> MicrosoftIdentity:
    """Build an account's application at the identity service."""
    from worker.auth.microsoft import MicrosoftIdentity  # noqa: PLC0415 - slow, and needed by some accounts only

    account = settings.accounts[name]
    if isinstance(account, StaticToken | TokenCommand):
        raise ConfigError([f"accounts.{name}.auth: {account.auth} signs in without us"])
    return MicrosoftIdentity(
        name=name,
        authority=settings.api.authority,
        tenant_id=account.tenant_id,
        client_id=account.client_id,
        client_secret="" if isinstance(account, DeviceCode) else account.client_secret.get_secret_value(),
        scope=f"{settings.api.base_url}/.default",
        ca_file=settings.api.ca_file,
    )


def _seal(settings: Settings) -> Seal | None:
    from worker.store.seal import Seal, read_keys  # noqa: PLC0415 - slow, and needed by some accounts only

    path = settings.security.key_file
    if path is None:
        return None
    try:
        return Seal(read_keys(path))
    except ValueError as error:
        raise ConfigError([f"security.key_file: {error}"]) from None


@asynccontextmanager
async def open_pipeline(
    settings: Settings,
    database: Database,
    name: str,
    token: TokenSource | None = None,
    show: Show | None = None,
    waiting: leases.Waiting | None = None,
    session: ClientSession | None = None,
) -> AsyncIterator[Pipeline]:
    """Open the pipeline of one account, from the API to the database; `session` is what the process shares."""
    from worker.source.client import open_client  # noqa: PLC0415 - slow, and not needed by what only looks at the copy
    from worker.sync.pipeline import Pipeline  # noqa: PLC0415

    api = settings.api
    rules = await configured_rules(settings, database)
    async with open_client(
        base_url=api.base_url,
        token=token or token_source(settings, database, name),
        clock=await database.clock(),
        ca_file=api.ca_file,
        max_page_bytes=api.max_page_bytes,
        admit=rules.admit if rules.restricts else None,
        session=session,
    ) as client:
        options: dict[str, Any] = {"progress": show} if show is not None else {}
        yield Pipeline(
            account=name,
            database=database,
            client=client,
            overlap=settings.sync.overlap,
            paging=None if api.paging == "auto" else Paging(api.paging),
            concurrency=api.concurrency,
            processes=settings.scale.processes,
            max_vanished_percent=settings.sync.max_vanished_percent,
            privacy=rules,
            waiting=waiting,
            **options,
        )


CONNECTIONS = 10
"""So many connections a process has at most, however many accounts there are."""


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
    """Migrate, hand over the settings that views need, and say what is left for somebody with more rights."""
    from worker.sync.run import refresh_history  # noqa: PLC0415

    lines = [f"The database is at revision {await migrate.upgrade(url)}."]
    async with open_database(url, connections=1) as database:
        moved = await view_settings.put_setting(database, "bi.timezone", settings.bi.timezone)
        await view_settings.put_labels(database, settings.labels())
        await privacy.enforce(database, await configured_rules(settings, database))
        await refresh_history(database, force=moved)
        if await queries.readers_missing(database):
            lines += ["The roles of dashboards could not be made. Somebody with CREATEROLE has to run this once:", ""]
            lines.append(migrate.roles_sql())
    return lines


async def require_migrated(url: str) -> None:
    """Raise StoreError unless the database is at a revision that this release can work with, and can hold the copy."""
    revision = await migrate.current(url)
    await migrate.check_database(url, revision)
    if not migrate.is_current_enough(revision):
        raise StoreError("The database is not migrated to this release.", "Run `referral-sync migrate`.")


def pool_size(settings: Settings) -> int:
    """Count connections: enough for the readers of one account, and for whatever a worker has in hand at once."""
    return max(CONNECTIONS, min(4 + settings.api.concurrency, 2 * CONNECTIONS))


async def configured_rules(settings: Settings, database: Database) -> Privacy:
    """Return what of people may be stored, as configured."""
    return await privacy.rules(database, settings.privacy.contacts, settings.privacy.after_expiry)


async def accounts_in_data(database: Database, settings: Settings, *, configured: bool = True) -> list[str]:
    """Return the accounts that the database knows, and with `configured` those of the configuration too."""
    known = await queries.accounts(database)
    return sorted(known | set(settings.accounts if configured else ()))
