"""What every flow needs of its account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from worker.model.counts import Counts
from worker.model.privacy import Privacy
from worker.model.strategy import Paging
from worker.model.window import TimeField
from worker.source.capabilities import Bounds
from worker.source.client import Client
from worker.store.database import Database
from worker.store.leases import Waiting

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
