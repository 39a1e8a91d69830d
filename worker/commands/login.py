"""A sign-in by a person, once: guided, and stored."""

from __future__ import annotations

from collections.abc import Callable

from worker.auth.refresh import begin
from worker.config.models import DeviceCode, RefreshToken, Settings
from worker.errors import ConfigError
from worker.store.database import Database
from worker.wiring import chosen_accounts, identity, migrated_database, sign_in_of


async def login(
    settings: Settings, database: Database, name: str, tell: Callable[[str], None], ask: Callable[[str], str]
) -> None:
    """Guide a person through a sign-in and store it; `tell` shows them something, `ask` also returns what they type."""
    account, service, sign_in = settings.accounts[name], identity(settings, name), sign_in_of(settings, name)
    match account:
        case DeviceCode():
            granted = await service.by_device(tell)
        case RefreshToken(redirect_uri=redirect_uri):
            flow = await service.begin_code(redirect_uri)
            address = ask(
                f"1. Open this address in a browser, on any machine, and sign in as the user of {name}:\n\n"
                f"{flow['auth_uri']}\n\n"
                f"2. The browser ends at {redirect_uri}, which need not load. Paste that whole address here:"
            )
            granted = await service.finish_code(flow, address)
        case _:
            raise ConfigError([f"accounts.{name}.auth: {account.auth} needs no login"])
    await begin(database, sign_in, granted)


async def sign_in(settings: Settings, account: str, tell: Callable[[str], None], ask: Callable[[str], str]) -> int:
    """Sign a person in for an account, and store the sign-in in the migrated database."""
    chosen_accounts(settings, account)
    async with migrated_database(settings) as database:
        await login(settings, database, account, tell, ask)
    tell(f"{account} is signed in; every worker on this database uses that from now on.")
    return 0
