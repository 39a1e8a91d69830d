"""Hydrating partial records: where the list lacks members, what changed is fetched by id before it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import structlog

from worker.errors import PermissionRefused, SourceRejected
from worker.model.decide import Verdict
from worker.model.mapping import NEVER, Mapped, MappedPage, lacking
from worker.model.record import Listing, Page, Record, spelled
from worker.source.client import Client
from worker.store import capabilities
from worker.store.save import judge
from worker.sync.pipeline import Pipeline
from worker.sync.run import Run, mapped

PARITY_RECORDS = 3

_log = structlog.get_logger()


async def list_is_partial(pipeline: Pipeline, run: Run) -> bool:
    """Return whether the list has partial records; looked up once a run, compared at the API once a day."""
    return bool(await _lacking_in_list(pipeline, run) - {"eTag"})


async def hydrated(pipeline: Pipeline, run: Run | None, found: AsyncGenerator[Page]) -> AsyncGenerator[MappedPage]:
    """Map pages; where their records are partial, put what is new or changed on a page before it as fetched by id.

    Without a run nothing is written down of what a comparison showed.
    """
    async with aclosing(found):
        lacking_members = await _lacking_in_list(pipeline, run)
        partial = bool(lacking_members - {"eTag"})
        async for page in found:
            listed = mapped(run, page)
            if partial and (changed := await _changed(pipeline, lacking_members, listed.mapped)):
                by_id = [mapped(run, answer) for answer in await _fetched(pipeline, changed)]
                for one in by_id:
                    yield one
                had = _as_new(listed.mapped, by_id)
                rest = [record for record in page.records if record.id not in had]
                yield MappedPage(replace(page, records=rest), listed.mapped.without(had))
            else:
                yield listed


async def only_by_id(client: Client, plain: Listing | None = None) -> set[str] | None:
    """Return the members that a few records have by id and lack in the list, as dotted paths.

    Links, `@odata` members and nulls do not count. None where no record could be compared.
    """
    listing = plain if plain is not None else await client.list("")
    lacked, compared = set[str](), False
    for listed in _various([record for record in listing.records if record.id is not None])[:PARITY_RECORDS]:
        try:
            page = await client.fetch(listed.id or "")
        except PermissionRefused:
            continue
        if page is not None and page.records[0].tree is not None:
            compared = True
            lacked |= lacking(page.records[0].tree, listed.tree or {})
    return lacked if compared else None


def _various(records: list[Record]) -> list[Record]:
    """Put the first record of each status first: a registration is no matter of a new referral."""
    first = {str(record.member("status")): record for record in reversed(records)}
    return [*reversed(first.values()), *(record for record in records if record not in first.values())]


async def _lacking_in_list(pipeline: Pipeline, run: Run | None) -> set[str]:
    """Return the members that only answers by id have, as this run knows them."""
    if run is None:
        return await _compared(pipeline, write=False)
    if run.facts.only_by_id is None:
        run.learn(only_by_id=frozenset(await _compared(pipeline, write=True)))
    return set(run.facts.only_by_id or ())


async def _compared(pipeline: Pipeline, *, write: bool) -> set[str]:
    """Compare a few records list against by id; where none could be compared, nothing is known to be missing."""
    missing = await capabilities.parity(pipeline.database, pipeline.account)
    if missing is None:
        missing = await only_by_id(pipeline.client)
        if missing is None:
            return set()
        if write:
            await capabilities.put_parity(pipeline.database, pipeline.account, missing)
        if missing - {"eTag"}:
            _log.warning("partial_list_found", account=pipeline.account, only_by_id=sorted(missing))
    return missing


async def _changed(pipeline: Pipeline, lacking_members: set[str], listed: Mapped) -> set[str]:
    """Name what is new or changed on a page, and what was only ever had from the list: then by id was out of reach.

    Such a row agrees with the list, so nothing else would make it whole. It is known by its missing eTag, where answers
    by id have one.
    """
    if not listed.rows:
        return set()
    verdicts = await judge(pipeline.database, pipeline.account, listed.rows, pipeline.privacy)
    changed = {key for key, verdict in verdicts if verdict in (Verdict.INSERT, Verdict.UPDATE)}
    if "eTag" in lacking_members:
        changed |= await capabilities.without_etag(pipeline.database, pipeline.account, sorted(listed.ids - changed))
    return changed


async def _fetched(pipeline: Pipeline, changed: set[str]) -> list[Page]:
    """Fetch by id what changed; what cannot be fetched by id is left to the list."""
    allowed = asyncio.Semaphore(pipeline.concurrency)

    async def fetch(referral_id: str) -> Page | None:
        async with allowed:
            try:
                answer = await pipeline.client.fetch(referral_id)
            except (PermissionRefused, SourceRejected):
                return None
        return spelled(answer, referral_id) if answer is not None else None

    answers = await asyncio.gather(*(fetch(key) for key in sorted(changed)))
    return [answer for answer in answers if answer is not None]


def _as_new(listed: Mapped, by_id: list[MappedPage]) -> set[str]:
    """Return the ids whose answer by id is of the version that the list showed, or a newer one."""
    had = {row.id: row.version for one in by_id for row in one.mapped.rows}
    return {referral_id for referral_id, version in listed.versions if had.get(referral_id, NEVER) >= version}
