"""Stored sign-ins, totals for metrics, and where each run's time went.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables, and extend the view."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    script = (sql / "0005_operations.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: driver.execute(script))
