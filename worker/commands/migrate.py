"""What `migrate` does."""

from __future__ import annotations

from worker.commands.outlet import tell
from worker.config.models import Settings
from worker.wiring import database_url, prepare_database, require_migrated


async def bring_up_to_date(settings: Settings, *, only_check: bool) -> int:
    """Bring the database to the newest revision, or only say whether it is there; raises StoreError where it is not."""
    async with database_url(settings) as url:
        if only_check:
            await require_migrated(url)
            tell("The database is at the newest revision.")
        else:
            for text in await prepare_database(settings, url):
                tell(text)
    return 0
