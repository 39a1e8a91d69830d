"""Index the parts of referrals by a hash of their referral.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the indexes."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    script = (sql / "0006_parts_by_hash.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: driver.execute(script))
