"""A PostgreSQL server of our own, shared by the processes that use it."""
