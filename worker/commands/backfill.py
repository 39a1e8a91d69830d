"""A backfill by one process, or by several that read windows of one backfill with the same claims and fencing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from worker.config.models import PREFIX
from worker.model.counts import Counts
from worker.model.instant import Instant, render
from worker.store import backfills
from worker.sync.account import backfill_share, help_account
from worker.sync.backfill import BackfillResult, Share, looks
from worker.sync.pipeline import Pipeline, Step

if TYPE_CHECKING:
    from asyncio.subprocess import Process

ALONE_SECONDS = 1.0
"""A backfill that takes no longer is not worth a second process, which takes most of a second of a core to start."""

LOOK_SECONDS = 1.0
_STOP_SECONDS = 8.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked for: referrals created in `[since, until)`, from the beginning where `restart`."""

    since: Instant | None = None
    until: Instant | None = None
    restart: bool = False


async def backfill(pipeline: Pipeline, asked: Range, processes: int, wait: timedelta) -> Counts:
    """Backfill a range with so many processes; 0 takes one, and one for each core where that is busy and not soon done.

    The readers of `api.concurrency` are shared among them. Returns the counts of all.
    """
    number = processes or min(cores(), pipeline.concurrency)
    if number == 1:
        return (await _own(pipeline, asked, None, wait)).counts
    counts = Counts()
    if not processes:
        first = await _own(pipeline, asked, Share(pipeline.concurrency, ALONE_SECONDS, busy=True), wait)
        if first.whole:
            return first.counts
        counts, asked = first.counts, replace(asked, restart=False)
    share = Share(max(1, pipeline.concurrency // number))
    watched = _Watched(pipeline)
    async with watched.whole() as shown, _helpers(watched, asked, number - 1, share.readers) as helpers:
        own = await _own(shown, asked, share, wait)
        counts += own.counts
        for helper in helpers:
            counts += await _ended(helper)
    return counts


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: those of the machine, less where it or its container is limited.

    The `quota` of a container is in a file of version 2 of Linux's control groups: microseconds of CPU, or `max`, in a
    period of so many (docs.kernel.org, "Control Group v2", `cpu.max`).
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, min(allowed, int(granted) // int(period)))
    except (OSError, ValueError):
        return allowed


async def read_windows(pipeline: Pipeline, asked: Range, reader: str, parent: int) -> Counts:
    """Read windows of a backfill that `parent` has planned, until none is left or the parent has exited."""
    helping = asyncio.create_task(_help(pipeline, asked, reader))
    try:
        while not helping.done():
            await asyncio.wait({helping}, timeout=LOOK_SECONDS)
            if os.getppid() != parent:
                helping.cancel()
        return await helping
    finally:
        helping.cancel()
        await asyncio.wait({helping})


async def _help(pipeline: Pipeline, asked: Range, reader: str) -> Counts:
    counts, pauses = Counts(), looks()
    while True:
        result = await help_account(pipeline, reader, Share(pipeline.concurrency), asked.since, asked.until)
        if result is not None:
            counts += result.counts
        left = await backfills.unfinished_progress(pipeline.database, pipeline.account)
        if left is None or left.whole:
            return counts
        await asyncio.sleep(next(pauses))


async def _own(pipeline: Pipeline, asked: Range, share: Share | None, wait: timedelta) -> BackfillResult:
    return await backfill_share(pipeline, share, asked.since, asked.until, restart=asked.restart, wait=wait)


class _Watched:
    """A backfill whose progress is that of all its processes, and which says when its windows are planned."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.planned = asyncio.Event()

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[Pipeline]:
        """Give the pipeline to work with, and show how far the whole of it is."""
        task = asyncio.create_task(self._show())
        try:
            yield replace(self.pipeline, progress=lambda _: self.planned.set())
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _show(self) -> None:
        account = self.pipeline.account
        await self.planned.wait()
        while True:
            left = await backfills.unfinished_progress(self.pipeline.database, account)
            if left is not None:
                read = Counts(unchanged=left.records)
                self.pipeline.progress(Step(account, "backfill", read, left.done, left.windows))
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def _helpers(watched: _Watched, asked: Range, number: int, readers: int) -> AsyncIterator[list[Process]]:
    """Start processes that help once the windows are planned; they end with this one, however it ends."""
    started: list[Process] = []
    starting = asyncio.create_task(_start(watched, asked, number, readers, started))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, starting, started)
        yield started


async def _start(watched: _Watched, asked: Range, number: int, readers: int, started: list[Process]) -> None:
    await watched.planned.wait()
    command = [sys.executable, "-m", "worker", "backfill", "--account", watched.pipeline.account]
    command += ["--concurrency", str(readers), "--helps", str(os.getpid())]
    for name, moment in (("--since", asked.since), ("--until", asked.until)):
        command += [name, render(moment)] if moment is not None else []
    # The address as it is: an embedded server has been started by this process.
    variables = os.environ | {f"{PREFIX}DATABASE__URL": watched.pipeline.database.address}
    for one in range(1, number + 1):
        process = await asyncio.create_subprocess_exec(
            *command, "--reader", f"p{one}", env=variables, stdout=asyncio.subprocess.PIPE
        )
        started.append(process)
        _log.info("backfill_helper_started", account=watched.pipeline.account, kind="backfill", process=process.pid)


async def _ended(helper: Process) -> Counts:
    """Return what a process that helped came to; what it has stored stands, whatever became of it."""
    output, _ = await helper.communicate()
    try:
        return Counts(**json.loads(output.decode().splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        _log.warning("backfill_helper_failed", process=helper.pid, code=helper.returncode)
        return Counts()


async def _stop(starting: asyncio.Task[None], started: list[Process]) -> None:
    starting.cancel()
    await asyncio.wait({starting})
    for process in started:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
    for process in started:
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def written(counts: Counts) -> str:
    """Write counts for the process that is helped."""
    return json.dumps(asdict(counts))
