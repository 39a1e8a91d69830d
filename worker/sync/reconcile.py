"""Proving the copy: a full listing is compared with it, what differs is repaired, and what is gone is marked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.core.instant import Instant
from worker.core.mapping import map_pages
from worker.core.outcome import Counts
from worker.core.page import Page
from worker.core.reading import Method, Reading
from worker.core.window import TimeField, Window
from worker.errors import SourceDistrusted, SyncError
from worker.source.paging import pages
from worker.store import ledger
from worker.store.leases import Run
from worker.store.save import mark_gone, save
from worker.sync.backfill import choose_field, newest_updated, windows_to_read
from worker.sync.drain import drain
from worker.sync.pipeline import Pipeline, Step, distrust

MIN_VANISHED = 5
"""So many rows may vanish at once, however few rows there are."""

MAX_PASSES = 5


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile came to: counts of the listing, rows marked gone, and through when the copy is now verified."""

    counts: Counts
    vanished: int
    verified_through: Instant | None


async def reconcile(pipeline: Pipeline, run: Run, *, accept_vanished: bool = False) -> Reconciled:
    """Read the whole listing with full records, repair, and mark what it no longer has.

    A row is marked only when a listing that is proven complete lacks it and a look by id does not find it either; and
    never more than the cap at once (a user who lost a role sees less), unless a person accepts that. Raises SyncError
    beyond the cap, with nothing marked. Moves no watermark.
    """
    while True:
        field, reading = await choose_field(pipeline, run)
        verified = await newest_updated(pipeline, run)
        began = (await pipeline.database.clock())()
        try:
            if reading.method is Method.KEYSET:
                counts, missing = await _by_windows(pipeline, run, field, reading, began)
            else:
                counts, missing = await _by_passes(pipeline, run, field, reading, began)
        except SourceDistrusted as why:
            await distrust(pipeline, field, reading, why)
            continue
        gone = await _really_gone(pipeline, run, sorted(missing), accept_vanished=accept_vanished)
        run.vanished = await mark_gone(pipeline.database, run, gone) if gone else 0
        through = verified or await ledger.watermark(pipeline.database, pipeline.account)
        await ledger.put_verified(pipeline.database, pipeline.account, through)
        return Reconciled(counts, run.vanished, through)


async def _by_windows(
    pipeline: Pipeline, run: Run, field: TimeField, reading: Reading, began: datetime
) -> tuple[Counts, set[str]]:
    """Compare window by window, so that only the ids of one are held."""
    windows = await windows_to_read(pipeline, Window(field), reading)
    counts, missing = Counts(), set[str]()
    for done, window in enumerate(windows):
        pipeline.progress(Step(pipeline.account, "reconcile", counts, done, len(windows)))
        read, seen = await _pass(pipeline, run, window, reading)
        counts += read
        missing |= await ledger.listed_here(pipeline.database, pipeline.account, window, began) - seen
    pipeline.progress(Step(pipeline.account, "reconcile", counts, len(windows), len(windows)))
    return counts, missing


async def _by_passes(
    pipeline: Pipeline, run: Run, field: TimeField, reading: Reading, began: datetime
) -> tuple[Counts, set[str]]:
    """Without a filter to rely on, a listing is complete when two passes over it show the same ids."""
    window, counts, before = Window(field), Counts(), None
    for _ in range(MAX_PASSES):
        pipeline.progress(Step(pipeline.account, "reconcile", counts, 0, 0))
        read, seen = await _pass(pipeline, run, window, reading)
        counts += read
        if seen == before:
            return counts, await ledger.listed_here(pipeline.database, pipeline.account, window, began) - seen
        before = seen
    raise SyncError(
        f"The listing of {pipeline.account} changed in each of {MAX_PASSES} passes, so nothing could be proven.",
        "What was read is stored and nothing was marked gone; reconcile again at a quieter hour.",
    )


async def _pass(pipeline: Pipeline, run: Run, window: Window, reading: Reading) -> tuple[Counts, set[str]]:
    seen = set[str]()

    async def observe(page: Page, _: Counts) -> None:
        seen.update(record.id for record in page.records if record.id is not None)

    found = pages(pipeline.client, window, reading)
    return await drain(found, pipeline.database, run, lambda _: None, observe), seen


async def _really_gone(pipeline: Pipeline, run: Run, missing: list[str], *, accept_vanished: bool) -> list[str]:
    """Ask for each missing referral by id: one that answers was only hidden from the listing, and is stored."""
    live = await ledger.live_count(pipeline.database, pipeline.account)
    allowed = max(int(live * pipeline.max_vanished_percent / 100), MIN_VANISHED)
    gone = []
    for referral_id in missing:
        page = await pipeline.client.fetch(referral_id)
        if page is not None:
            await save(pipeline.database, run, map_pages([page]), pages=0, advance=None)
            continue
        gone.append(referral_id)
        if len(gone) > allowed and not accept_vanished:
            raise SyncError(
                f"{len(missing)} of {live} referrals of {pipeline.account} are no longer listed,"
                f" and at most {allowed} may vanish at once: none was marked gone.",
                "Usually the signed-in user lost a role or a location. If they are really gone, run"
                f" `referral-sync reconcile --account {pipeline.account} --accept-vanished`.",
            )
    return gone
