"""History at the speed of a dashboard, the record of runs for analysts, and what privacy needs.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create and replace the views; and grant them again, unless the worker's own role may not."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    script = (sql / "0004_analysts.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: driver.execute(script))
    roles = (sql / "0003_roles.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: _where_permitted(driver, roles))


async def _where_permitted(driver: asyncpg.Connection, roles: str) -> None:
    try:
        async with driver.transaction():
            await driver.execute(roles)
    except asyncpg.InsufficientPrivilegeError:
        return  # `migrate` prints what a person with the right has to run
