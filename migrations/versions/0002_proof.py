"""What proving takes: lineage of versions, replays of rejects, measured lag, and a health that shows a failed proof.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns, and renew the view that shows them."""
    script = (Path(__file__).parent.parent / "sql" / "0002_sync.sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    connection.run_async(lambda driver: driver.execute(script))
