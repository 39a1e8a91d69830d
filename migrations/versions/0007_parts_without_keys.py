"""Parts without keys of their own; deleting a referral still takes them along.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Drop the keys, and create the triggers in their place."""
    sql = Path(__file__).parent.parent / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bind that migrates is connected
    script = (sql / "0007_parts_without_keys.sql").read_text(encoding="utf-8")
    connection.run_async(lambda driver: driver.execute(script))
