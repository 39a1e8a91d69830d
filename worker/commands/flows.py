"""What the commands that work account by account do for one: each returns what is to be said of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from worker.commands import backfill as backfills
from worker.commands import render
from worker.commands.backfill import Range
from worker.commands.outlet import tell, warn
from worker.model.escape import line
from worker.model.instant import Instant
from worker.sync import account as flows
from worker.sync.account import WAIT
from worker.sync.explain import explain as look
from worker.sync.pipeline import Pipeline
from worker.sync.preview import Preview, preview_incremental, preview_reconcile


async def sync(pipeline: Pipeline, *, since: Instant | None, dry_run: bool) -> str:
    """Run one incremental sync, or show what it would change."""
    if dry_run:
        return await _show_preview(preview_incremental(pipeline))
    return render.counts(await flows.sync_account(pipeline, since, wait=WAIT))


async def backfill(pipeline: Pipeline, *, asked: Range, processes: int | None, verify: bool) -> str:
    """Backfill a range, shared among so many processes, and reconcile afterwards where `verify` asks for it."""
    number = processes if processes is not None else pipeline.processes
    summary = render.counts(await backfills.backfill(pipeline, asked, number, WAIT))
    if verify:
        summary += f"; {render.reconciled(await flows.reconcile_account(pipeline, wait=WAIT))}"
    return summary


async def help_backfill(pipeline: Pipeline, *, asked: Range, reader: str, readers: int) -> str:
    """Read windows of a backfill that another process has planned, and write what came of it for that process."""
    sys.stdout.write(backfills.written(await backfills.read_windows(pipeline, asked, reader, readers)) + "\n")
    return ""


async def reconcile(pipeline: Pipeline, *, accept_vanished: bool, dry_run: bool) -> str:
    """Compare the copy with a full listing and repair it, or show what that would change."""
    if dry_run:
        return await _show_preview(preview_reconcile(pipeline))
    return render.reconciled(await flows.reconcile_account(pipeline, accept_vanished=accept_vanished, wait=WAIT))


async def rejects(pipeline: Pipeline, *, replay: bool) -> str:
    """List the open rejected records, after trying them again where `replay` asks for it."""
    replayed = ""
    if replay:
        replayed = f"replayed: {render.counts(await flows.replay_account(pipeline, wait=WAIT))}; "
    number = 0
    async for kept in flows.all_rejects(pipeline):
        number += 1
        tell(render.rejected_line(pipeline.account, kept))
    return f"{replayed}{number} open"


class Refresh:
    """Fetch referrals by id for each account, and in the end name those that none shows."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids
        self._found = set[str]()

    async def one(self, pipeline: Pipeline) -> str:
        """Fetch and store them for one account."""
        counts, unknown = await flows.refresh_account(pipeline, self._ids)
        self._found |= set(self._ids) - set(unknown)
        return render.counts(counts)

    def exit_code(self) -> int:
        """Say what was found nowhere; 1 where there is any such."""
        absent = [key for key in self._ids if key not in self._found]
        for key in absent:
            warn(f"The source does not show {key}: it does not exist, or this sign-in may not see it.")
        return 1 if absent else 0


class Explain:
    """Say all that is known of one referral, account by account."""

    def __init__(self, referral_id: str) -> None:
        self._id = referral_id
        self._known = False

    async def one(self, pipeline: Pipeline) -> str:
        """Print what one account knows of it."""
        about = await look(pipeline, self._id)
        self._known = self._known or about.known
        if not about.known:
            return "knows nothing of it"
        for text in render.explained(pipeline.account, about):
            tell(text)
        return ""

    def exit_code(self) -> int:
        """Return 1 where nobody knows it."""
        return 0 if self._known else 1


async def _show_preview(changes: AsyncIterator[Preview]) -> str:
    shown = 0
    async for change in changes:
        shown += 1
        tell(line(f"{change.verdict:8} {change.id}"))
    return f"{shown} would change; nothing was written"
