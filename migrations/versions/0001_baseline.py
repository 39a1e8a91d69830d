"""The tables, views and roles of release 0.1.0.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic import op

from worker.store.queue import install_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything; the roles of dashboards only where the worker's own role may."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    scripts = [
        (sql / f"0001_{part}.sql").read_text(encoding="utf-8") for part in ("partner_center", "sync", "bi", "queue")
    ]
    for script in (*scripts, install_sql(), (sql / "0001_queue_status.sql").read_text(encoding="utf-8")):
        connection.run_async(lambda driver, script=script: driver.execute(script))
    roles = (sql / "roles.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: _where_permitted(driver, roles))


async def _where_permitted(driver: asyncpg.Connection, roles: str) -> None:
    try:
        async with driver.transaction():
            await driver.execute(roles)
    except asyncpg.InsufficientPrivilegeError:
        return  # `check` prints what a person with the right has to run
