"""Records without the time by which windows are cut: only `id` and `engagementId` are sure to be there.

No window of a field holds a record that lacks it, and nobody documents where a server puts such records in an ordered
listing, or whether it shows them there at all. So they are looked for in a listing without order or filter, as far as
that can be verified as whole, and else by the other time field.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from worker.errors import SourceContradicted
from worker.model.record import Ended, Page
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.paging import pages
from worker.sync.pipeline import Pipeline
from worker.sync.run import Run
from worker.sync.strategy import downgrade, strategy_for

EVERYTHING = Strategy(Paging.SWEEP, evidence="asked for without order or filter")


async def without_time(pipeline: Pipeline, run: Run | None, field: TimeField) -> AsyncGenerator[Page]:
    """Give the records of the listing that lack `field`, found by another query than by it.

    The last page says UNVERIFIED where no other paging strategy can be relied on.
    """
    ended: Ended | None = None
    try:
        async with aclosing(pages(pipeline.client, Window(field), EVERYTHING)) as found:
            async for page in found:
                ended = page.ended
                yield _lacking(page, field, None if ended is Ended.UNVERIFIED else ended)
    except SourceContradicted:
        ended = None
    if ended not in (None, Ended.UNVERIFIED):
        return
    other = TimeField.UPDATED if field is TimeField.CREATED else TimeField.CREATED
    async for page in _by_other(pipeline, run, other):
        yield _lacking(page, field, page.ended)


def _lacking(page: Page, field: TimeField, ended: Ended | None) -> Page:
    records = [record for record in page.records if not record.fault and record.time(field) is None]
    return replace(page, records=records, through=None, ended=ended)


async def _by_other(pipeline: Pipeline, run: Run | None, other: TimeField) -> AsyncGenerator[Page]:
    while True:
        strategy = await strategy_for(pipeline, run, other)
        if strategy.paging is Paging.SWEEP:
            yield Page([], None, (await pipeline.database.clock())(), Ended.UNVERIFIED)
            return
        try:
            async with aclosing(pages(pipeline.client, Window(other), strategy)) as found:
                async for page in found:
                    yield page
        except SourceContradicted as why:
            if run is None:
                raise
            await downgrade(pipeline, other, strategy, why)
        else:
            return
