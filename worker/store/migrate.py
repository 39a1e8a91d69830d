"""Migrations: Alembic under an advisory lock, so that two processes that start together do not race.

Every statement waits at most `LOCK_TIMEOUT` for a lock, so a migration queues no reader behind it for longer. That is
also less than the second after which PostgreSQL looks for deadlocks: of a migration and a reader that wait for each
other, the migration gives way, and is tried again for a minute or two.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import stamina

from worker.errors import StoreError, StoreUnavailable
from worker.store.address import driver_address, place

LOCK_TIMEOUT = "500ms"
ATTEMPTS = 40
_ADVISORY_LOCK = 0x72656673796E63
_MIGRATIONS = Path(__file__).parent.parent / "_migrations"
_FROM_CHECKOUT = Path(__file__).parent.parent.parent / "migrations"


async def upgrade(url: str, revision: str = "head") -> str:
    """Bring the database at `url` to a revision, the newest by default, and return which that is.

    Safe beside other processes doing the same. Raises StoreError with a hint when the database refuses.
    """
    wanted = newest() if revision == "head" else revision
    present = await current(url)
    await check_database(url, present)
    if present is not None and _is_newer(present):
        return present  # a newer release's: its migrations only add
    if present != wanted:
        try:
            async for attempt in stamina.retry_context(
                on=_is_lock_timeout, attempts=ATTEMPTS, wait_initial=0.2, wait_max=3, timeout=None
            ):
                with attempt:
                    await _upgrade(url, [one for one in revisions() if one <= wanted])
        except Exception as error:
            if not _is_lock_timeout(error):
                raise
            raise StoreError(
                "The migration found what it has to change in use, again and again; nothing was changed.",
                "End long transactions that read schema bi (pg_stat_activity shows them), and run it again.",
            ) from error
    return wanted


async def current(url: str) -> str | None:
    """Return the revision of the database, or None when it was never migrated."""
    from worker.store.database import connect  # noqa: PLC0415 - keeps `--help` quick

    async with connect(url) as connection:
        if await connection.fetchval("SELECT to_regclass('sync.alembic_version') IS NULL"):
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM sync.alembic_version")
        return revision


async def check_database(url: str, revision: str | None) -> None:
    """Raise StoreError where the database cannot hold the copy, or holds something of somebody else's in its place."""
    from worker.store.database import connect  # noqa: PLC0415 - keeps `--help` quick

    async with connect(url) as connection:
        encoding = await connection.fetchval("SHOW server_encoding")
        foreign = await connection.fetchval(
            """
            SELECT string_agg(DISTINCT n.nspname, ', ') FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
            WHERE n.nspname IN ('partner_center', 'bi', 'queue')
                OR (n.nspname = 'sync' AND c.relname NOT LIKE 'alembic_version%')
            """
        )
    if encoding != "UTF8":
        raise StoreError(
            f"The database has the encoding {encoding}, which cannot hold every name that the API sends.",
            "Create it anew: CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8'.",
        )
    if revision is None and foreign:
        raise StoreError(
            f"The database has schemas of these names that are not referral-sync's: {foreign}.",
            "Use a database of its own, or rename those schemas; nothing was changed.",
        )
    if revision is not None and not knows(revision) and not _is_newer(revision):
        raise StoreError(
            f"The table sync.alembic_version says {revision}, which is no revision of referral-sync.",
            "Another program keeps its migrations there: use a database of its own; nothing was changed.",
        )


def _is_newer(revision: str) -> bool:
    """Return whether a revision is one of a newer release: they are numbered."""
    return re.fullmatch(r"\d{4}", revision) is not None and revision > newest()


def newest() -> str:
    """Return the newest revision that this release knows."""
    return revisions()[-1]


def revisions() -> list[str]:
    """Name the revisions that this release knows, oldest first.

    Read from the names of their files (`0001_first.py`), because loading them takes longer than most commands run.
    """
    return sorted(path.name.partition("_")[0] for path in (_folder() / "versions").glob("[0-9]*_*.py"))


def knows(revision: str) -> bool:
    """Return whether this release has heard of a revision; a newer release's is unknown to it."""
    return revision in revisions()


def is_current_enough(revision: str | None) -> bool:
    """Return whether this release can work at a revision: its own, or a newer release's, whose changes only add."""
    return revision is not None and (revision == newest() or _is_newer(revision))


def roles_sql() -> str:
    """Return the SQL that makes the roles of dashboards, for a person who may run it."""
    return (_folder() / "sql" / "roles.sql").read_text(encoding="utf-8")


def _folder() -> Path:
    return _MIGRATIONS if _MIGRATIONS.is_dir() else _FROM_CHECKOUT


def _config() -> Any:
    from alembic.config import Config  # noqa: PLC0415 - keeps `--help` quick

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _is_lock_timeout(error: Exception) -> bool:
    return getattr(getattr(error, "orig", error), "sqlstate", None) == "55P03"


async def _upgrade(url: str, revisions: list[str]) -> None:
    """Go through the revisions, each in a transaction of its own: the less is locked at once, the less can deadlock."""
    import asyncpg  # noqa: PLC0415 - keeps `--help` quick
    from sqlalchemy import text  # noqa: PLC0415 - keeps `--help` quick
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    from worker.store.database import store_error  # noqa: PLC0415

    address, besides = driver_address(url)
    engine = create_async_engine(
        make_url("postgresql+asyncpg://"),
        poolclass=NullPool,
        async_creator=lambda: asyncpg.connect(address, statement_cache_size=0, **besides),
    )
    try:
        for revision in revisions:
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                if await connection.scalar(text("SELECT to_regnamespace('sync') IS NULL")):
                    await connection.execute(text("CREATE SCHEMA sync"))
                await connection.run_sync(_run_alembic, revision)
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        if _is_lock_timeout(error):
            raise
        cause = getattr(error, "orig", error)
        outage = store_error(getattr(cause, "__cause__", None) or cause, place(url))
        if isinstance(outage, StoreUnavailable):
            raise outage from error
        raise StoreError(
            f"The migration failed: {str(getattr(error, 'orig', error)).partition(chr(10))[0]}",
            "The database role must own the database or hold CREATE on it; nothing was changed.",
        ) from error
    finally:
        await engine.dispose()


def _run_alembic(connection: Any, revision: str) -> None:
    from alembic import command  # noqa: PLC0415 - keeps `--help` quick

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
