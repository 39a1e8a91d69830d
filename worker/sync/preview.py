"""What a run would change, without a lease, a run, or a write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from worker.core.instant import shift
from worker.core.mapping import map_pages
from worker.core.reading import Reading
from worker.core.upsert import Verdict
from worker.core.window import TimeField, Window
from worker.source.paging import pages
from worker.source.probe import probe
from worker.store import ledger
from worker.store.save import judge
from worker.sync.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Preview:
    """A record that would change the copy: insert, update, return, etag, or reject with its reason."""

    id: str
    verdict: str


async def preview_incremental(pipeline: Pipeline) -> AsyncIterator[Preview]:
    """Say what a tick would write."""
    watermark = await ledger.watermark(pipeline.database, pipeline.account)
    lower = shift(watermark, -pipeline.overlap) if watermark is not None else None
    async for change in _preview(pipeline, Window(TimeField.UPDATED, lower)):
        yield change


async def preview_reconcile(pipeline: Pipeline) -> AsyncIterator[Preview]:
    """Say what a reconcile would repair, and which rows it would look for by id because they are not listed."""
    began = (await pipeline.database.clock())()
    seen = set[str]()
    window = Window(TimeField.UPDATED)
    async for change in _preview(pipeline, window, seen):
        yield change
    for referral_id in sorted(await ledger.listed_here(pipeline.database, pipeline.account, window, began) - seen):
        if await pipeline.client.fetch(referral_id) is None:
            yield Preview(referral_id, "gone")


async def _preview(pipeline: Pipeline, window: Window, seen: set[str] | None = None) -> AsyncIterator[Preview]:
    if pipeline.paging is not None:
        reading = Reading(pipeline.paging)
    else:
        stored = await ledger.reading(pipeline.database, pipeline.account, window.field)
        reading = stored or await probe(pipeline.client, window.field)
    async with aclosing(pages(pipeline.client, window, reading)) as found:
        async for page in found:
            mapped = map_pages([page])
            if seen is not None:
                seen |= mapped.ids
            for referral_id, verdict in await judge(pipeline.database, pipeline.account, mapped.rows, pipeline.privacy):
                if verdict is not Verdict.KEEP:
                    yield Preview(referral_id, verdict.value)
            for reject in mapped.rejects:
                yield Preview(reject.id or reject.digest.hex(), f"reject: {reject.reason}")
