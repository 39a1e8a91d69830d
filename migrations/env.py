"""How Alembic runs here: on the connection that `worker.store.migrate` hands over, under its advisory lock."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="sync", transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
