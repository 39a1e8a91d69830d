"""Records that windows did not show: those without the time by which they are cut, and those that a filter left out.

Only `id` and `engagementId` are sure to be there. No window of a field holds a record that lacks it, and nobody
documents where a server puts such records in an ordered listing, or whether it shows them there at all. And a filter or
an order may leave out records each time it is asked. So both are looked for in a listing without order or filter, as
far as that can be verified as whole, and else by the other time field.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from worker.errors import SourceContradicted
from worker.model.instant import Instant
from worker.model.mapping import MAX_ID_LENGTH, NEVER, version_of
from worker.model.record import Ended, Page, Record
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.paging import pages
from worker.source.scan import skipped
from worker.sync.pipeline import Pipeline
from worker.sync.run import Run
from worker.sync.strategy import downgrade, strategy_for

EVERYTHING = Strategy(Paging.SWEEP, evidence="asked for without order or filter")


async def elsewhere(
    pipeline: Pipeline, run: Run | None, field: TimeField, shown: Mapping[str, Instant] | None = None
) -> AsyncGenerator[Page]:
    """Give the records of the listing that lack `field`, found by another query than by it.

    And, where it is given what windows of the field have `shown`, in which version, those that are not among it or are
    newer. The last page says UNVERIFIED where no other paging strategy can be relied on.
    """
    ended: Ended | None = None
    try:
        async with aclosing(pages(pipeline.client, Window(field), EVERYTHING)) as found:
            async for page in found:
                ended = page.ended
                yield _new(page, field, shown, None if ended is Ended.UNVERIFIED else ended)
    except SourceContradicted:
        ended = None
        async for listing in skipped(pipeline.client):
            yield _new(Page(listing.records, None, listing.observed_at), field, shown, None)
    if ended not in (None, Ended.UNVERIFIED):
        return
    other = TimeField.UPDATED if field is TimeField.CREATED else TimeField.CREATED
    async for page in _by_other(pipeline, run, other):
        yield _new(page, field, shown, page.ended)


def _new(page: Page, field: TimeField, shown: Mapping[str, Instant] | None, ended: Ended | None) -> Page:
    records = [record for record in page.records if _is_new(record, field, shown)]
    return replace(page, records=records, through=None, ended=ended)


def _is_new(record: Record, field: TimeField, shown: Mapping[str, Instant] | None) -> bool:
    referral_id = record.id
    if shown is not None and referral_id is not None and len(referral_id) <= MAX_ID_LENGTH:
        return shown.get(referral_id, NEVER) < version_of(record)
    return not record.fault and record.time(field) is None


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
