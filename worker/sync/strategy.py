"""Which paging strategy is in force for a field."""

from __future__ import annotations

import structlog

from worker.errors import SourceContradicted
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField
from worker.source.capabilities import Bounds, bounds, probe
from worker.store import capabilities
from worker.sync.pipeline import Pipeline
from worker.sync.run import Run

_log = structlog.get_logger()


async def strategy_for(pipeline: Pipeline, run: Run | None, field: TimeField) -> Strategy:
    """Return how a field is read: as configured, as seen within a day, or as seen now.

    Without a run nothing is written down of what was seen.
    """
    if pipeline.paging is not None:
        strategy = Strategy(pipeline.paging, evidence="set by api.paging")
    else:
        stored = await capabilities.strategy(pipeline.database, pipeline.account, field)
        pipeline.ends.pop(field, None)
        strategy, ends = (stored, None) if stored is not None else await probe(pipeline.client, field)
        if ends is not None:
            pipeline.ends[field] = ends
        if stored is None and run is not None:
            await capabilities.put_strategy(pipeline.database, pipeline.account, field, strategy)
    if run is not None:
        run.learn(paging=strategy.paging.value)
    return strategy


async def ends_of(pipeline: Pipeline, field: TimeField) -> Bounds:
    """Return the ends of the listing, asked for unless a probe has just seen them; each is good for one plan."""
    return pipeline.ends.pop(field, None) or await bounds(pipeline.client, field)


async def downgrade(pipeline: Pipeline, field: TimeField, strategy: Strategy, why: SourceContradicted) -> None:
    """Downgrade the paging strategy for a day; raise `why` where there is none below, or where `api.paging` sets it."""
    if strategy.paging is Paging.SWEEP or pipeline.paging is not None:
        raise why
    lower = strategy.downgraded(str(why), conclusive=why.lasting)
    _log.warning(
        "paging_downgraded", account=pipeline.account, field=field.value, paging=lower.paging.value, why=str(why)
    )
    await capabilities.put_strategy(pipeline.database, pipeline.account, field, lower)
