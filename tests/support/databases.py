"""Databases of a test's own on the server of the session."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg


@asynccontextmanager
async def new_database(postgres_url: str, template: str) -> AsyncIterator[str]:
    """Give a database made from a template, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex}"
    await execute(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield url_of(postgres_url, name)
    finally:
        await execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def execute(url: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def url_of(url: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


async def ask(url: str, statement: str) -> object:
    """Run one statement; its first value."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
