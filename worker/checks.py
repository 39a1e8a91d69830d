"""The doctor: looks at everything that a run depends on, and says for each how to mend it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from worker import app
from worker.config import Settings
from worker.core.page import Page
from worker.core.window import TimeField
from worker.errors import SyncError
from worker.source.client import Client
from worker.source.probe import probe
from worker.store import migrate
from worker.store.pool import connect, open_database


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, whether it is good, what was found, and the mend."""

    subject: str
    good: bool
    found: str
    mend: str = ""


async def look(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the configuration, the database, and each account's sign-in and API, one finding at a time."""
    yield Finding("configuration", True, f"{len(settings.accounts)} account(s): {', '.join(sorted(settings.accounts))}")
    try:
        async with app.database_url(settings) as url:
            yield await _database(url)
            async with open_database(url, connections=2) as database:
                for name in sorted(settings.accounts):
                    async with app.open_pipeline(settings, database, name) as pipeline:
                        async for finding in _account(name, pipeline.client):
                            yield finding
    except SyncError as error:
        yield Finding("database", False, str(error), error.hint)


async def _database(url: str) -> Finding:
    async with connect(url) as connection:
        version = await connection.fetchval("SHOW server_version")
    revision = await migrate.current(url)
    if revision is None or (revision != migrate.newest() and migrate.knows(revision)):
        return Finding(
            "database", False, f"PostgreSQL {version}, at revision {revision or 'none'}", "Run `referral-sync migrate`."
        )
    return Finding("database", True, f"PostgreSQL {version}, revision {revision}")


async def _account(name: str, client: Client) -> AsyncIterator[Finding]:
    try:
        listing = await client.list("")
        yield Finding(f"{name}: sign-in and API", True, f"a page of {len(listing.records)} referrals")
        for field in TimeField:
            reading = await probe(client, field)
            yield Finding(f"{name}: {field.value}", True, f"read by {reading.method.value}: {reading.evidence}")
        yield await _parity(name, client, listing.records[0].id if listing.records else None)
    except SyncError as error:
        yield Finding(f"{name}: sign-in and API", False, str(error), error.hint)


async def _parity(name: str, client: Client, referral_id: str | None) -> Finding:
    """Compare what the list and a request by id say of one referral: the list may be thinner."""
    subject = f"{name}: list against by-id"
    page: Page | None = await client.fetch(referral_id) if referral_id is not None else None
    if page is None or page.records[0].tree is None:
        return Finding(subject, True, "nothing to compare")
    listed = (await client.list("")).records
    tree = next((record.tree for record in listed if record.id == referral_id), None) or {}
    fuller = sorted(key for key in page.records[0].tree if key not in tree and not key.startswith("@"))
    return Finding(subject, True, f"only by id: {', '.join(fuller)}" if fuller else "the same members")
