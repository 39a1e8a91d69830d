"""What a run would change, without a lease, a run, or a write."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from worker.model.decide import Verdict
from worker.model.instant import Instant, shift
from worker.model.mapping import NEVER, Row, map_pages
from worker.model.record import Page
from worker.model.window import TimeField, Window
from worker.source.paging import pages
from worker.store import capabilities, checkpoints
from worker.store.save import judge
from worker.sync.hydrate import hydrated
from worker.sync.pipeline import Pipeline
from worker.sync.reconcile import confirmed_by_id, doubted, look
from worker.sync.strategy import strategy_for
from worker.sync.untimed import elsewhere


@dataclass(frozen=True, slots=True)
class Preview:
    """A record that would change the copy: insert, update, return, etag, deleted, or rejected with its reason."""

    id: str
    verdict: str


async def preview_incremental(pipeline: Pipeline) -> AsyncIterator[Preview]:
    """Say what an incremental sync would write."""
    watermark = await checkpoints.watermark(pipeline.database, pipeline.account)
    lower = shift(watermark, -pipeline.overlap) if watermark is not None else None
    window = Window(TimeField.UPDATED, lower)
    strategy = await strategy_for(pipeline, None, window.field)
    async for referral_id, verdict in _judged(pipeline, pages(pipeline.client, window, strategy), {}):
        if isinstance(verdict, str) and (not isinstance(verdict, Verdict) or verdict.changes):
            yield Preview(referral_id, str(verdict))


async def preview_reconcile(pipeline: Pipeline) -> AsyncIterator[Preview]:
    """Say what a reconcile would repair, and which rows it would look for by id because they are not listed."""
    began = (await pipeline.database.clock())()
    window, seen = Window(TimeField.UPDATED), dict[str, Instant]()
    strategy = await strategy_for(pipeline, None, window.field)
    for listing in (pages(pipeline.client, window, strategy), elsewhere(pipeline, None, window.field, seen)):
        async for referral_id, verdict in _judged(pipeline, listing, seen):
            if isinstance(verdict, Row):
                if (page := await confirmed_by_id(pipeline, verdict)) is not None:
                    (_, settled), *_ = await judge(
                        pipeline.database, pipeline.account, map_pages([page]).rows, pipeline.privacy
                    )
                    if settled is not Verdict.KEEP:
                        yield Preview(referral_id, Verdict.UPDATE.value)
            elif not isinstance(verdict, Verdict) or verdict.changes:
                yield Preview(referral_id, str(verdict))
    known = await checkpoints.live_ids(pipeline.database, pipeline.account, window, began)
    for referral_id in sorted(known - seen.keys()):
        if await look(pipeline, referral_id) is None:
            yield Preview(referral_id, "deleted")


async def _judged(
    pipeline: Pipeline, listing: AsyncGenerator[Page], seen: dict[str, Instant]
) -> AsyncIterator[tuple[str, Verdict | Row | str]]:
    """Say for each version of a record, once, what saving it would do.

    Or give the row itself, where only a look by id can decide.
    """
    async with aclosing(hydrated(pipeline, None, listing)) as found:
        async for one in found:
            mapped = one.mapped
            rows = {row.id: row for row in mapped.rows if seen.get(row.id, NEVER) < row.version}
            rejects = [reject for reject in mapped.rejects if (reject.id or reject.digest.hex()) not in seen]
            seen |= {row.id: row.version for row in rows.values()}
            seen |= {reject.id or reject.digest.hex(): reject.version for reject in rejects}
            verdicts = await judge(pipeline.database, pipeline.account, list(rows.values()), pipeline.privacy)
            known = await capabilities.parity(pipeline.database, pipeline.account)
            doubts = await doubted(pipeline, list(rows.values()), known or set())
            for referral_id, verdict in verdicts:
                yield referral_id, rows[referral_id] if referral_id in doubts and not verdict.changes else verdict
            for reject in rejects:
                yield reject.id or reject.digest.hex(), f"rejected: {reject.reason}"
