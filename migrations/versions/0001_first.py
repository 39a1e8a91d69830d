"""The copy, the worker's books, and the first views for dashboards.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the schemas with everything in them."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    for part in ("partner_center", "sync", "bi"):
        script = (sql / f"0001_{part}.sql").read_text(encoding="utf-8")
        connection.run_async(lambda driver, script=script: driver.execute(script))
