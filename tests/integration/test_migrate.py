"""Migrations: on an empty and a filled database, by two processes at once, by an ordinary role, and documented."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from worker.core import instant
from worker.core.referral import CHILDREN, NESTED, REFERRAL_COLUMNS
from worker.errors import StoreError
from worker.store import migrate

ROOT = Path(__file__).parent.parent.parent


def test_revisions_are_named_like_their_files() -> None:
    """Which revision is the newest is read from the names, without loading any."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert migrate.revisions() == [one.revision for one in script.walk_revisions()][::-1]
    assert migrate.newest() == script.get_current_head()


async def test_an_empty_database_and_again(empty_database_url: str) -> None:
    assert await migrate.current(empty_database_url) is None
    newest = migrate.newest()
    assert await migrate.upgrade(empty_database_url) == newest
    assert await migrate.current(empty_database_url) == newest
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("INSERT INTO sync.watermarks (account, position) VALUES ('contoso', 5)")
    assert await migrate.upgrade(empty_database_url) == newest
    assert await connection.fetchval("SELECT position FROM sync.watermarks") == 5
    await connection.close()


async def test_two_processes_at_once(empty_database_url: str) -> None:
    program = "import asyncio, sys; from worker.store import migrate; asyncio.run(migrate.upgrade(sys.argv[1]))"
    racers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_database_url, cwd=ROOT)
        for _ in range(3)
    ]
    assert await asyncio.gather(*(racer.wait() for racer in racers)) == [0, 0, 0]
    assert await migrate.current(empty_database_url) == migrate.newest()


async def test_an_ordinary_role_suffices(empty_database_url: str) -> None:
    admin = await asyncpg.connect(empty_database_url)
    name = f"worker_{urlsplit(empty_database_url).path[3:15]}"
    database = urlsplit(empty_database_url).path[1:]
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEDB NOCREATEROLE")
        parts = urlsplit(empty_database_url)
        url = parts._replace(netloc=f"{name}:x@{parts.hostname}:{parts.port}").geturl()
        with pytest.raises(StoreError, match="permission denied") as caught:
            await migrate.upgrade(url)
        assert "CREATE" in caught.value.hint
        await admin.execute(f'GRANT CREATE ON DATABASE "{database}" TO {name}')
        await migrate.upgrade(url)
        assert await migrate.current(url) == migrate.newest()
    finally:
        await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")
        await admin.close()


async def test_the_tables_are_what_is_declared(db: asyncpg.Connection) -> None:
    columns = {
        (row["table_name"], row["column_name"]): row["data_type"]
        for row in await db.fetch(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'partner_center'"
        )
    }
    types = {"text": "text", "numeric": "numeric", "boolean": "boolean", "timestamptz": "timestamp with time zone"}
    tables = {"referrals": REFERRAL_COLUMNS} | {child.table: child.columns for child in (*CHILDREN, *NESTED)}
    for table, declared in tables.items():
        for column in declared:
            assert columns[table, column.name] == types[column.kind.value], (table, column.name)


async def test_everything_analysts_see_in_the_copy_has_a_comment(db: asyncpg.Connection) -> None:
    bare = await db.fetch(
        """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname = 'partner_center' AND c.relkind = 'r'
            AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)
        """
    )
    assert bare == []


async def test_ticks_read_as_their_floored_moment(db: asyncpg.Connection) -> None:
    for text in ("0001-01-01T00:00:00Z", "2024-05-01T10:00:59.9999999Z", "9999-12-31T23:59:59.9999999Z"):
        ticks = instant.parse(text)
        assert await db.fetchval("SELECT sync.at($1)", ticks) == instant.to_datetime(ticks)
