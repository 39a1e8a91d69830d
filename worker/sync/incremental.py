"""The incremental sync: everything that changed since the watermark."""

from __future__ import annotations

from worker.errors import SourceContradicted
from worker.model.counts import Checkpoint, Counts, WatermarkCheckpoint
from worker.model.instant import Instant, shift
from worker.model.mapping import Mapped
from worker.model.record import Page
from worker.model.window import TimeField, Window
from worker.source.checks import Anchor
from worker.source.paging import pages
from worker.store import checkpoints
from worker.sync.drain import drain, writing
from worker.sync.hydrate import hydrated
from worker.sync.pipeline import Pipeline, Step
from worker.sync.run import Run
from worker.sync.strategy import downgrade, strategy_for


async def incremental(pipeline: Pipeline, run: Run, watermark: Instant) -> Counts:
    """Read from the overlap below the watermark on, and move the watermark with each page.

    The overlap is for the query only: the watermark is what the data showed. When the API contradicts itself, the next
    paging strategy begins again from the watermark that the database has then.
    """
    counts = Counts()
    run.lag.watermark, run.lag.overlap = watermark, pipeline.overlap

    def observe(_: Mapped, saved: Counts) -> None:
        nonlocal counts
        counts += saved
        pipeline.progress(Step(pipeline.account, "incremental", counts, 0, 0))

    while True:
        strategy = await strategy_for(pipeline, run, TimeField.UPDATED)
        lower = shift(watermark, -pipeline.overlap)
        known = await checkpoints.anchor(pipeline.database, pipeline.account, lower, watermark)
        window = Window(TimeField.UPDATED, lower)
        try:
            found = pages(pipeline.client, window, strategy, Anchor(*known) if known else None)
            async with writing(pipeline.database, run, observe) as writer:
                await drain(hydrated(pipeline, run, found), writer, _watermark_checkpoint)
        except SourceContradicted as why:
            await downgrade(pipeline, TimeField.UPDATED, strategy, why)
            watermark = await checkpoints.watermark(pipeline.database, pipeline.account) or watermark
        else:
            return counts


def _watermark_checkpoint(page: Page) -> Checkpoint:
    return WatermarkCheckpoint(page.through) if page.through is not None else None
