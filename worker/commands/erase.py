"""What `forget` and `account remove` do."""

from __future__ import annotations

from worker.commands.outlet import tell
from worker.commands.progress import progress
from worker.config.models import Settings
from worker.errors import SyncError
from worker.store.erase import forget as erase
from worker.store.erase import remove_account
from worker.store.leases import free
from worker.store.spelling import is_guid
from worker.sync.account import WAIT
from worker.sync.run import refresh_history
from worker.wiring import accounts_in_data, migrated_database


async def forget(settings: Settings, ids: list[str], account: str | None) -> int:
    """Erase referrals of an account, or of all; the exit code is 1 where nothing is stored of one."""
    absent = 0
    async with migrated_database(settings) as database:
        names = await accounts_in_data(database, settings) if account is None else [account]
        for key in ids:
            rows = sum([await erase(database, name, key) for name in names])
            absent += not rows
            strange = "" if is_guid(key) else ", and it is no id as the API gives them"
            outcome = f"{rows} rows erased" if rows else f"nothing is stored of it{strange}"
            tell(f"{key}: {outcome}")
        await refresh_history(database, force=True)
    return 1 if absent else 0


async def remove(settings: Settings, name: str) -> int:
    """Erase all of an account, once nobody works on it."""
    async with migrated_database(settings) as database:
        if name not in await accounts_in_data(database, settings, configured=False):
            raise SyncError(f"The data holds no account {name}.", "`referral-sync status` names those that it has.")
        with progress() as shown:
            await free(database, name, wait_seconds=WAIT.total_seconds(), waiting=shown.waiting)
        removed = await remove_account(database, name)
        await refresh_history(database, force=True)
    tell(f"{name}: {removed:,} referrals and versions erased.")
    if name in settings.accounts:
        tell("It is still in the configuration, so the next run backfills it again.")
    return 0
