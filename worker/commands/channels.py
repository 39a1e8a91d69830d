"""What `notify test`, `notify preview` and `notify log` do."""

from __future__ import annotations

from collections.abc import Callable

from worker.commands import render
from worker.config.models import Settings
from worker.errors import ConfigError, SyncError
from worker.notify import delivery, records
from worker.notify.channel import ChannelError
from worker.wiring import migrated_database

Tell = Callable[[str], None]

_SHOWN = 4_000
"""Characters of a message in the terminal."""


def chosen_channels(settings: Settings, only: str | None) -> list[str]:
    """Return the channel asked for, or all; raises ConfigError where there is none such."""
    names = sorted(settings.notify.channels)
    if not names:
        raise ConfigError(["notify.channels: there is none; config.example.toml shows one"])
    if only is not None and only not in names:
        raise ConfigError([f"notify.channels.{only}: no such channel; there is {', '.join(names)}"])
    return names if only is None else [only]


async def send_tests(settings: Settings, only: str | None, tell: Tell, warn: Callable[[SyncError], None]) -> int:
    """Send a message to each channel; returns the exit code."""
    worst = 0
    for name in chosen_channels(settings, only):
        try:
            tell(f"{name}: sent to {await delivery.test(settings, name)}.")
        except ChannelError as error:
            warn(error)
            worst = error.exit_code
    return worst


async def show_preview(settings: Settings, only: str | None, tell: Tell) -> int:
    """Print what would be sent to each channel now, and the digest as it would be."""
    names = chosen_channels(settings, only)
    async with migrated_database(settings) as database:
        for name in names:
            pages = await delivery.preview(database, settings, name)
            tell(f"{name}: {len(pages)} messages would be sent now.")
            if not pages:
                tell("Its digest would be now:")
                pages = [await delivery.digest_now(database, settings, name)]
            for page in pages:
                tell(f"\n--- {page.title}\n{page.text(_SHOWN)}")
    return 0


async def show_log(settings: Settings, limit: int, tell: Tell) -> int:
    """List the last messages."""
    async with migrated_database(settings) as database:
        rows = await records.log(database, limit)
    for row in rows:
        tell(render.message(row))
    if not rows:
        tell("Nothing was sent yet.")
    return 0
