"""What every flow needs of its account, and which paging strategy is in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from worker.errors import SourceContradicted
from worker.model.counts import Counts
from worker.model.privacy import Privacy
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField
from worker.source.capabilities import Bounds, bounds, probe
from worker.source.client import Client
from worker.store import capabilities
from worker.store.database import Database
from worker.store.leases import Run, Waiting

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is: `done` of `total` windows (both 0 where that is not known), and its counts so far."""

    account: str
    kind: str
    counts: Counts
    done: int
    total: int


def _silent(_: Step) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a flow of one account works with, from the source to the store.

    `paging` overrides what probing would choose. `max_vanished_percent` bounds how many rows a reconcile may mark.
    `privacy` is what the client admits. `processes` share a backfill; 0 lets its duration decide. `waiting` is
    called while a lease is waited for. `ends` are those of the listing that a probe has
    just seen.
    """

    account: str
    database: Database
    client: Client
    overlap: timedelta
    paging: Paging | None = None
    concurrency: int = 2
    processes: int = 0
    max_vanished_percent: float = 10
    privacy: Privacy = field(default_factory=Privacy)
    progress: Callable[[Step], None] = _silent
    waiting: Waiting | None = None
    ends: dict[TimeField, Bounds] = field(default_factory=dict)


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
        run.paging = strategy.paging.value
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
