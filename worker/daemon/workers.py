"""Who runs things: this process takes jobs out of the queue, in two lanes, and hands back what it cannot finish.

The engine decides which of all processes gets a job. Quick work and heavy work have lanes of their own, so that
backfills never keep syncs waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from pgqueuer.core.executors import EntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job

from worker.daemon.planner import pause
from worker.store.database import Database
from worker.store.queue import AGAIN_SECONDS, CHANNEL, PoolDriver, Taken, queries

DEAD_AFTER = timedelta(seconds=30)
"""A job whose worker has not been heard of for so long is taken by another one."""

LOOK = timedelta(seconds=2)
"""So often a lane looks for jobs that other processes have put into the queue."""

STOP_SECONDS = 8.0
"""A container's grace period is longer; whatever a run is doing is rolled back by then."""

FULL_SECONDS = 0.25
"""So often a lane that is full looks again while more waits; the engine's own choice is ten times a second."""

_log = structlog.get_logger()

Handle = Callable[[Taken, int], Awaitable[float]]
"""Does a job that was tried so many times before; returns after how many seconds it is to be tried again, or 0."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Kinds of jobs that share a number of places in this process."""

    name: str
    kinds: Sequence[str]
    at_once: int


class Workers:
    """The jobs that this process has in hand."""

    def __init__(self, database: Database, lanes: Sequence[Lane], handle: Handle) -> None:
        self._stopping = asyncio.Event()
        self._lanes = [(lane, PoolDriver(database, lane=lane.name, stopping=self._stopping)) for lane in lanes]
        self._handle = handle
        self._managers = dict[str, QueueManager]()
        self.in_hand = set[asyncio.Task[float]]()

    def wake(self) -> None:
        """Let every lane look at once: this process has put something into the queue."""
        for _, driver in self._lanes:
            driver.wake()

    async def work_until(self, stopped: asyncio.Event) -> None:
        """Do jobs until `stopped`; then cancel what is in hand, and give it back to the queue for another process."""
        running = [asyncio.create_task(self._work(lane, driver)) for lane, driver in self._lanes]
        try:
            await stopped.wait()
        finally:
            self._stopping.set()
            for manager in self._managers.values():
                manager.shutdown.set()
            for task in set(self.in_hand):
                task.cancel()
            _, late = await asyncio.wait(running, timeout=STOP_SECONDS)
            for one in late:
                one.cancel()

    async def _work(self, lane: Lane, driver: PoolDriver) -> None:
        """Keep a lane going: whatever ends the engine's loop but a stop, it begins again."""
        failed = False
        while not self._stopping.is_set():
            manager = QueueManager(queries(driver), channel=CHANNEL)
            manager.min_dequeue_poll_interval = timedelta(seconds=FULL_SECONDS)
            executor = EntrypointExecutor(EntrypointExecutorParameters(concurrency_limit=0, func=self._do))
            for kind in lane.kinds:
                manager.register_executor(kind, executor)
            self._managers[lane.name] = manager
            try:
                await manager.run(
                    dequeue_timeout=LOOK,
                    batch_size=max(1, lane.at_once // 2),
                    max_concurrent_tasks=lane.at_once,
                    heartbeat_timeout=DEAD_AFTER,
                    log_aggregation_interval=timedelta(0),
                )
            except Exception as error:  # noqa: BLE001 - whatever it was, the lane has to go on
                if not failed:
                    _log.warning("queue_unreachable", lane=lane.name, error=str(error).partition("\n")[0])
                failed = True
                await pause(self._stopping, AGAIN_SECONDS)

    async def _do(self, job: Job) -> None:
        """Do one job for the engine; raises RetryRequested to give it back."""
        try:
            taken = Taken.read(job.entrypoint, job.payload)
        except ValueError as error:
            _log.error("job_rejected", kind=job.entrypoint, job=job.id, error=str(error))
            return
        if self._stopping.is_set():
            raise RetryRequested(timedelta(0), "the worker stops")
        task = asyncio.ensure_future(self._handle(taken, job.attempts))
        self.in_hand.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self.in_hand.discard(task)
            task.cancel()
        if task.cancelled():
            raise RetryRequested(timedelta(0), "the worker stops")
        if (seconds := task.result()) > 0:
            raise RetryRequested(timedelta(seconds=seconds), "it cannot be done yet")
