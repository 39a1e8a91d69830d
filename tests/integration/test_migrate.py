"""Migrations: on an empty and a filled database, by two processes at once, by an ordinary role, and documented."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from worker.errors import StoreError
from worker.model import instant
from worker.model.schema import CHILDREN, NESTED, REFERRAL_COLUMNS
from worker.store import migrate, queries
from worker.store.address import driver_address
from worker.store.database import open_database

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
    await connection.execute("INSERT INTO sync.watermarks (account, checkpoint) VALUES ('contoso', 5)")
    assert await migrate.upgrade(empty_database_url) == newest
    assert await connection.fetchval("SELECT checkpoint FROM sync.watermarks") == 5
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


async def test_an_encoding_that_cannot_hold_every_name_is_refused(postgres_url: str) -> None:
    for encoding in ("LATIN1", "SQL_ASCII"):
        name = f"t_{uuid.uuid4().hex}"
        admin = await asyncpg.connect(postgres_url)
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
            " LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
            with pytest.raises(StoreError, match=encoding):
                await migrate.upgrade(url)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close()


@pytest.mark.parametrize("schema", ["bi", "partner_center", "sync"])
async def test_schemas_of_somebody_else_are_named_and_left_alone(schema: str, empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.theirs (a integer)")
    with pytest.raises(StoreError, match=schema):
        await migrate.upgrade(empty_database_url)
    assert await connection.fetchval(f"SELECT count(*) FROM {schema}.theirs") == 0  # noqa: S608 - a parameter of the test
    await connection.close()


async def test_a_version_table_of_another_program_is_named(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("CREATE SCHEMA sync; CREATE TABLE sync.alembic_version (version_num text PRIMARY KEY)")
    await connection.execute("INSERT INTO sync.alembic_version VALUES ('a1b2c3d4e5f6')")
    with pytest.raises(StoreError, match="no revision of referral-sync"):
        await migrate.upgrade(empty_database_url)
    assert not migrate.is_current_enough("a1b2c3d4e5f6")
    await connection.close()


async def test_an_older_release_works_on_a_newer_schema(database_url: str) -> None:
    """Migrations only add, so a release that does not know the newest one leaves it as it is."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE sync.alembic_version SET version_num = '0999'")
    assert await migrate.upgrade(database_url) == "0999"
    assert migrate.is_current_enough("0999")
    assert await migrate.current(database_url) == "0999"
    await connection.close()


async def test_schemas_made_by_an_administrator_are_enough(postgres_url: str) -> None:
    """The worker's role need not have CREATE on the database."""
    name, role = f"t_{uuid.uuid4().hex}", f"w_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'worker'")
    own = urlsplit(postgres_url)._replace(path=f"/{name}")
    inside = await asyncpg.connect(own.geturl())
    for schema in ("sync", "partner_center", "bi", "queue"):
        await inside.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
    await inside.close()
    url = own._replace(netloc=f"{role}:worker@{own.hostname}:{own.port}").geturl()
    try:
        assert await migrate.upgrade(url) == migrate.newest()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


async def test_an_address_as_postgresql_s_own_clients_take_it(database_url: str) -> None:
    more = (
        "&" if "?" in database_url else "?"
    ) + "channel_binding=prefer&connect_timeout=5&keepalives=1&keepalives_idle=30&gssencmode=disable"
    assert await migrate.upgrade(database_url + more) == migrate.newest()
    async with open_database(database_url + more + "&application_name=theirs", connections=1) as database:
        await queries.reachable(database)
    address, besides = driver_address("postgresql://u:p%2F@h/d?sslmode=verify-full&sslrootcert=system&keepalives=0")
    assert address == "postgresql://u:p%2F@h/d"
    assert besides["ssl"].check_hostname
    assert driver_address("postgresql://u:p%2F@h/d?sslmode=require") == ("postgresql://u:p%2F@h/d?sslmode=require", {})
