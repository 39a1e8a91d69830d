"""Migrations: Alembic under an advisory lock, so that two processes that start together do not race.

Every statement waits at most `LOCK_TIMEOUT` for a lock, so a migration queues no reader behind it for longer; it is
tried again a few times before it gives up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import stamina

from worker.errors import StoreError

LOCK_TIMEOUT = "5s"
_ADVISORY_LOCK = 0x72656673796E63
_MIGRATIONS = Path(__file__).parent.parent / "_migrations"
_FROM_CHECKOUT = Path(__file__).parent.parent.parent / "migrations"


async def upgrade(url: str) -> str:
    """Bring the database at `url` to the newest revision and return that revision.

    Safe beside other processes doing the same. Raises StoreError with the mend when the database refuses.
    """
    newest = _script().get_current_head()
    if await current(url) != newest:
        async for attempt in stamina.retry_context(on=_is_lock_timeout, attempts=5, wait_initial=1.0, timeout=None):
            with attempt:
                await _upgrade(url)
    return newest or ""


async def current(url: str) -> str | None:
    """Return the revision of the database, or None when it was never migrated."""
    from worker.store.pool import connect  # noqa: PLC0415 - keeps `--help` quick

    async with connect(url) as connection:
        if await connection.fetchval("SELECT to_regclass('sync.alembic_version') IS NULL"):
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM sync.alembic_version")
        return revision


def newest() -> str:
    """Return the newest revision that this release knows."""
    return _script().get_current_head() or ""


def knows(revision: str) -> bool:
    """Tell whether this release has heard of a revision; a newer release's is unknown to it."""
    return revision in {script.revision for script in _script().walk_revisions()}


def _config() -> Any:
    from alembic.config import Config  # noqa: PLC0415 - keeps `--help` quick

    config = Config()
    folder = _MIGRATIONS if _MIGRATIONS.is_dir() else _FROM_CHECKOUT
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _script() -> Any:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - keeps `--help` quick

    return ScriptDirectory.from_config(_config())


def _is_lock_timeout(error: Exception) -> bool:
    return getattr(getattr(error, "orig", error), "sqlstate", None) == "55P03"


async def _upgrade(url: str) -> None:
    import asyncpg  # noqa: PLC0415
    from sqlalchemy import text  # noqa: PLC0415 - keeps `--help` quick
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    engine = create_async_engine(
        make_url("postgresql+asyncpg://"),
        poolclass=NullPool,
        async_creator=lambda: asyncpg.connect(url, statement_cache_size=0),
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS sync"))
            await connection.run_sync(_run_alembic)
    except (DBAPIError, asyncpg.PostgresError) as error:
        if _is_lock_timeout(error):
            raise
        raise StoreError(
            f"The migration failed: {str(getattr(error, 'orig', error)).partition(chr(10))[0]}",
            "The database role must own the database or hold CREATE on it; nothing was changed.",
        ) from error
    finally:
        await engine.dispose()


def _run_alembic(connection: Any) -> None:
    from alembic import command  # noqa: PLC0415 - keeps `--help` quick

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
