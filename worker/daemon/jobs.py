"""What the daemon does for each account when the time comes, and the daemon itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from aiohttp import ClientSession

from worker.config.models import Settings
from worker.daemon.kinds import HEAVY, MESSAGES, QUICK
from worker.errors import LeaseError, SourceUnavailable, StoreError, StoreUnavailable, SyncError
from worker.notify import outbox, records
from worker.notify.delivery import deliver_due
from worker.source.client import TokenSource
from worker.store import analysis, backfills, checkpoints, queries, queue, rejects, retention, runs, schedules
from worker.store.database import Database
from worker.store.queue import Job, Taken
from worker.sync.account import backfill_share, help_account, reconcile_account, replay_account, sync_account
from worker.sync.backfill import Share
from worker.sync.pipeline import Pipeline
from worker.wiring import open_pipeline, token_source

SLICE_SECONDS = 20.0
"""A backfill yields to those of other accounts after so long, and comes back behind them."""

EARLY_SECONDS, LARGE_RECORDS = 5.0, 1_000
"""A backfill that has read so many records by then, and is not done, is shared among workers."""

RETRY_SECONDS = 5.0
"""So long a job that cannot be done yet waits before it is tried again."""

LEASE_ATTEMPTS = 12
"""So often it waits for who does the same work: a command, or a worker that has just died."""

OUTAGE_ATTEMPTS = 3
"""So often work that lost the database is tried again; the queue can write that down only once it is back."""

SPREAD_SECONDS, SPREAD_ATTEMPTS = 1.0, 6
"""So long, and so often, a worker that reads its share of an account leaves other readers of it to other workers."""

STRANGER_ATTEMPTS = 5
"""So many times a job of an account that is not configured here is left to workers where it may be."""

UNKNOWN_FOR = "1 day"
RUN_KINDS = {"window": "backfill"}
"""What the run of a job is called in `sync.runs`, where that is not as its job."""

_log = structlog.get_logger()


@dataclass(slots=True)
class AccountState:
    """What the daemon remembers of an account between its runs.

    Where tokens come from; and whether this process has tried again what an earlier release rejected.
    """

    token: TokenSource
    replayed: bool = False


@dataclass(slots=True)
class Jobs:
    """Does jobs; one for a process. `wake` makes the lanes look when a job has put another one into the queue."""

    settings: Settings
    database: Database
    session: ClientSession
    wake: Callable[[], None] = lambda: None
    states: dict[str, AccountState] = field(default_factory=dict)
    up_since: datetime = field(default_factory=lambda: datetime.now(UTC))
    readers: Counter[str] = field(default_factory=Counter)

    async def handle(self, job: Taken, attempts: int) -> float:
        """Do a job; a failure is logged, and the next time comes all the same.

        Returns after how many seconds it is to be tried again, or 0.
        """
        with structlog.contextvars.bound_contextvars(account=job.account, kind=job.kind):
            return await self._logged(job, attempts)

    async def _logged(self, job: Taken, attempts: int) -> float:
        try:
            return await self._handle(job, attempts)
        except LeaseError as error:
            if attempts < LEASE_ATTEMPTS:
                _log.info("lease_waiting", error=str(error), holder=error.holder, retry_seconds=RETRY_SECONDS)
                return RETRY_SECONDS
            _log.warning("run_failed", error=str(error), hint=error.hint)
        except StoreUnavailable as error:
            _log.error("run_failed", error=str(error), hint=error.hint)
            return RETRY_SECONDS if attempts < OUTAGE_ATTEMPTS else 0.0
        except SyncError as error:
            _log.error("run_failed", error=str(error), hint=error.hint)
        except asyncio.CancelledError:
            _log.info("run_stopped")
            raise
        except Exception:  # noqa: BLE001 - see below
            # A bug: said loudly, with its traceback, and the other accounts go on.
            _log.exception("run_crashed")
        return 0.0

    async def _handle(self, job: Taken, attempts: int) -> float:
        whole: dict[str, Callable[[Taken], Awaitable[None]]] = {
            "housekeeping": self._housekeeping,
            schedules.HISTORY: self._history,
            "delivery": self._deliver,
        }
        if job.kind in whole:
            await whole[job.kind](job)
            return 0.0
        if job.account not in self.settings.accounts:
            if attempts < STRANGER_ATTEMPTS:
                return RETRY_SECONDS
            _log.warning("job_dropped", why="no worker here has this account in its configuration")
            return 0.0
        if job.kind not in ("backfill", "window"):
            return await self._of_account(job)
        with self._reads(job.account) as others:
            if job.kind == "window" and attempts < SPREAD_ATTEMPTS and await self._is_share(others):
                return SPREAD_SECONDS
            return await self._of_account(job)

    async def _of_account(self, job: Taken) -> float:
        async with (
            runs.failures_recorded(self.database, job.account, RUN_KINDS.get(job.kind, job.kind)),
            self._allowed(job.account) as pipeline,
        ):
            if pipeline is not None:
                await {
                    "incremental": self._incremental,
                    "reconcile": self._reconcile,
                    "backfill": self._backfill,
                    "window": self._window,
                }[job.kind](job, pipeline)
        return 0.0

    async def _incremental(self, job: Taken, pipeline: Pipeline) -> None:
        """Fetch what changed; an account without a backfill has one begun, or begun again where that was lost."""
        state = self._state(job.account)
        if await checkpoints.watermark(self.database, job.account) is None:
            await self._enqueue(_backfill_job(job.account, 0))
            return
        if not state.replayed:
            await self._replay(pipeline, state)
        await sync_account(pipeline, due_at=job.due_at)

    async def _replay(self, pipeline: Pipeline, state: AccountState) -> None:
        """Try again what an earlier release rejected; whatever comes of that, the sync goes on."""
        try:
            if await rejects.open_rejects(self.database, pipeline.account, limit=1, other_release=True):
                await replay_account(pipeline, other_release=True)
        except SyncError as error:
            _log.warning("run_failed", account=pipeline.account, kind="replay", error=str(error), hint=error.hint)
        else:
            state.replayed = True

    async def _reconcile(self, job: Taken, pipeline: Pipeline) -> None:
        if await checkpoints.watermark(self.database, job.account) is not None:
            await reconcile_account(pipeline, due_at=job.due_at)

    async def _backfill(self, job: Taken, pipeline: Pipeline) -> None:
        """Backfill an account; what takes longer is shared among workers, slice by slice, in turn with other accounts.

        So a small account is one job and one run.
        """
        readers, turn, shared = self.settings.api.concurrency, job.details["turn"], job.details["shared"]
        share = Share(1, SLICE_SECONDS) if shared else Share(readers, SLICE_SECONDS, EARLY_SECONDS, LARGE_RECORDS)
        result = await backfill_share(pipeline, share)
        if result.free:
            large = not shared and result.counts.records >= LARGE_RECORDS
            others = [_window(job.account, number, 0) for number in range(1, readers)] if large else []
            await self._enqueue(_backfill_job(job.account, 1 - turn, shared=shared or large, again=True), *others)
        elif not result.whole:
            await self._declare(job.account)

    async def _window(self, job: Taken, pipeline: Pipeline) -> None:
        """Read a slice of a planned backfill; whoever finds nothing left has it declared complete."""
        number, turn = job.details["reader"], job.details["turn"]
        result = await help_account(pipeline, str(number), Share(1, SLICE_SECONDS))
        if result is not None and result.free:
            await self._enqueue(_window(job.account, number, 1 - turn, again=True))
        else:
            await self._declare(job.account)

    async def _declare(self, account: str) -> None:
        """Have a backfill declared complete if all of its windows are read.

        Under either of its job's keys: the job that is in hand may have looked before the last window was done, and
        ends without a further look.
        """
        left = await backfills.unfinished_progress(self.database, account)
        if left is not None and left.whole:
            for turn in (0, 1):
                if await self._enqueue(_backfill_job(account, turn, shared=True, again=True)):
                    return

    async def _housekeeping(self, _: Taken) -> None:
        """Let old runs, resolved rejected records, the engine's log and jobs that nobody knows go."""
        keep = f"{int(self.settings.sync.keep_runs.total_seconds())} seconds"
        unchanged = f"{int(self.settings.sync.keep_unchanged_runs.total_seconds())} seconds"
        while await retention.delete_old_runs(self.database, keep, unchanged):
            pass
        while await retention.delete_closed_rejects(self.database, keep):
            pass
        while await records.delete_old(self.database, keep):
            pass
        await schedules.delete_dead_workers(self.database)
        await queue.prune_log(self.database)
        strange = await queue.delete_unknown(self.database, [*QUICK, *HEAVY, *MESSAGES], UNKNOWN_FOR)
        if strange:
            _log.warning("jobs_dropped", count=strange, why=f"no release here knows their kind, for {UNKNOWN_FOR}")

    async def _history(self, _: Taken) -> None:
        """Bring up to date what dashboards read; when that fails it stays asked for."""
        try:
            await analysis.refresh_history(self.database)
        except StoreError:
            await schedules.ask_for_history(self.database)
            raise

    async def _deliver(self, job: Taken) -> None:
        """Deliver what is due to one channel; each has jobs of its own, so that none waits for another.

        While the database is unavailable there is nothing to say that the accounts' jobs do not, and this comes every
        few seconds.
        """
        channel = outbox.channel_of(job.account)
        if channel in self.settings.notify.channels:
            with suppress(StoreUnavailable):
                await deliver_due(self.database, self.settings, channel, up_since=self.up_since)

    async def _enqueue(self, *jobs: Job) -> bool:
        """Put jobs into the queue; returns whether any was not there already."""
        async with self.database.transaction() as connection:
            taken = await queue.enqueue(connection, jobs)
        if any(taken):
            self.wake()
        return any(taken)

    @contextmanager
    def _reads(self, account: str) -> Iterator[int]:
        """Count a reader of an account's backfill; gives how many others this process has."""
        others = self.readers[account]
        self.readers[account] += 1
        try:
            yield others
        finally:
            self.readers[account] -= 1

    async def _is_share(self, readers: int) -> bool:
        """Say whether so many readers of a backfill are what falls to each of the workers that are alive, or more."""
        return readers > 0 and readers * await queries.workers(self.database) >= self.settings.api.concurrency

    def _state(self, name: str) -> AccountState:
        if name not in self.states:
            self.states[name] = AccountState(token_source(self.settings, self.database, name))
        return self.states[name]

    @asynccontextmanager
    async def _allowed(self, name: str) -> AsyncIterator[Pipeline | None]:
        """Open the account's pipeline, or give None while the API has asked for a longer pause than a run waits out."""
        seconds = await schedules.backing_off(self.database, name)
        if seconds:
            _log.warning("run_deferred", account=name, retry_seconds=round(seconds))
            yield None
            return
        try:
            token = self._state(name).token
            async with open_pipeline(self.settings, self.database, name, token, session=self.session) as pipeline:
                yield pipeline
        except SourceUnavailable as busy:
            if busy.retry_after is not None:
                _log.warning("run_deferred", account=name, retry_seconds=round(busy.retry_after))
            raise


def _backfill_job(account: str, turn: int, *, shared: bool = False, again: bool = False) -> Job:
    """Make the job that plans a backfill and declares it complete; `shared` once there are others that read.

    `again` is for who has such a job in hand, whose own key would bar it.
    """
    keys = [f"backfill:{account}:{number}" for number in (0, 1)]
    return Job("backfill", account, keys[turn], details={"turn": turn, "shared": shared}, unless=() if again else keys)


def _window(account: str, reader: int, turn: int, *, again: bool = False) -> Job:
    """Make the job of one more reader of a backfill."""
    keys = [f"window:{account}:{reader}:{number}" for number in (0, 1)]
    return Job("window", account, keys[turn], details={"reader": reader, "turn": turn}, unless=() if again else keys)
