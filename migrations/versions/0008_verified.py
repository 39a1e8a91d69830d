"""What "verified" rests on, and what a run has to remember for others.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Extend tables and views."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    script = (sql / "0008_verified.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: driver.execute(script))
