"""What `status` does."""

from __future__ import annotations

from worker import RELEASE
from worker.commands import render
from worker.commands.outlet import tell
from worker.config.models import Settings
from worker.model.escape import json_text
from worker.notify import records
from worker.store import queries
from worker.wiring import migrated_database


async def show_status(settings: Settings, *, as_json: bool) -> int:
    """Say how each account, each channel and the queue are; the exit code is 1 where an account requires action."""
    async with migrated_database(settings) as database:
        rows = await queries.status(database, settings.accounts)
        channels = await records.state(database, list(settings.notify.channels))
        queue, workers = await queries.queue(database), await queries.workers(database)
    for row in rows:
        row["configured"] = row["account"] in settings.accounts
    if as_json:
        document = {"release": RELEASE, "accounts": rows, "queue": queue, "workers": workers}
        document |= {"channels": channels} if channels else {}
        tell(json_text(document, indent=2))
    else:
        for row in rows:
            tell(render.status(row))
        for one in channels:
            tell(render.channel(one))
        tell(render.queue(queue, workers))
    return 1 if any(row["health"] == "action required" for row in rows) else 0
