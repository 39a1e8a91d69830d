"""What `db url` does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from worker.commands.outlet import warn
from worker.config.models import Settings
from worker.wiring import address

_FOR_READERS = """This database is yours, and so are its roles: make one for dashboards and sign in with it.
CREATE ROLE dashboards LOGIN PASSWORD '...' IN ROLE bi_reader;"""


async def show_address(settings: Settings, *, reader: bool, hold: Callable[[asyncio.Event], None] | None) -> int:
    """Print the address of the database; `hold` says when to stop, and keeps the embedded one up until then."""
    async with address(settings, reader=reader, lingers=hold is None) as found:
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        embedded = settings.database.is_embedded
        if reader and not embedded:
            warn(_FOR_READERS)
        if hold is not None and embedded:
            stopped = asyncio.Event()
            hold(stopped)
            warn("The database stays up until Ctrl-C.")
            await stopped.wait()
    return 0
