"""What `report` does."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from worker.commands.outlet import tell
from worker.config.models import Settings
from worker.errors import ConfigError, SyncError
from worker.store.analysis import analysis
from worker.web.pages import load_templates
from worker.web.report import report as page
from worker.wiring import accounts_in_data, migrated_database


async def write_report(settings: Settings, out: Path, account: str | None) -> int:
    """Write the page of one account or of all to a file, `-` for standard output."""
    async with migrated_database(settings) as database:
        if account is not None and account not in await accounts_in_data(database, settings):
            raise ConfigError([f"--account: there is no {account}"])
        rows = await analysis(database, account, settings.labels())
    text = page(rows, datetime.now(UTC), load_templates())
    if str(out) == "-":
        sys.stdout.buffer.write(text.encode())
        return 0
    try:
        out.write_text(text, encoding="utf-8")  # noqa: ASYNC240 - nothing else runs
    except OSError as error:
        raise SyncError(f"{out} cannot be written: {error.strerror}.", "Name another file with --out.") from None
    tell(f"The report is in {out}.")
    return 0
