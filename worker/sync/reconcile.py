"""Proving the copy: a full listing is compared with it, what differs is repaired, and what is gone is marked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.core.mapping import Mapped, map_pages
from worker.core.outcome import Counts
from worker.core.page import Page
from worker.core.reading import Method, Reading
from worker.core.window import TimeField, Window
from worker.errors import PermissionRefused, SourceDistrusted, SyncError, VanishedError
from worker.source.paging import pages
from worker.store import ledger
from worker.store.leases import Run
from worker.store.save import mark_gone, save
from worker.sync.backfill import choose_field, newest_updated, windows_to_read
from worker.sync.drain import drain, writing
from worker.sync.fuller import fuller
from worker.sync.pipeline import Pipeline, Step, distrust

MIN_VANISHED = 5
"""So many rows may vanish at once, however few rows there are."""

MAX_PASSES = 5


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile came to: counts of the listing, and rows marked gone."""

    counts: Counts
    vanished: int


async def reconcile(pipeline: Pipeline, run: Run, *, accept_vanished: bool = False) -> Reconciled:
    """Read the whole listing with full records, repair, and mark what it no longer has.

    A row is marked only when a listing that is proven complete lacks it and a look by id does not find it either; and
    never more than the cap at once (a user who lost a role sees less), unless a person accepts that. Raises
    VanishedError beyond the cap, with nothing marked. Moves no watermark.
    """
    run.lag.watermark, run.lag.proven = await ledger.proven_so_far(pipeline.database, pipeline.account)
    run.lag.overlap = pipeline.overlap
    while True:
        field, reading = await choose_field(pipeline, run)
        verified = await newest_updated(pipeline, run)
        began = (await pipeline.database.clock())()
        try:
            counts, missing = await _compare(pipeline, run, field, reading, began)
            gone = await _really_gone(pipeline, run, missing, reading, accept_vanished=accept_vanished)
        except SourceDistrusted as why:
            await distrust(pipeline, field, reading, why)
            continue
        run.vanished = await mark_gone(pipeline.database, run, gone) if gone else 0
        through = verified or await ledger.watermark(pipeline.database, pipeline.account)
        await ledger.put_verified(pipeline.database, run, through)
        return Reconciled(counts, run.vanished)


async def _compare(
    pipeline: Pipeline, run: Run, field: TimeField, reading: Reading, began: datetime
) -> tuple[Counts, dict[str, Window]]:
    """Read window by window, so that only the ids of one are held; returns what the listing lacks, and in which.

    Without a filter to rely on there is one window, and it is read until two passes agree.
    """
    windows = await windows_to_read(pipeline, Window(field), reading)
    counts, missing = Counts(), dict[str, Window]()
    for done, window in enumerate(windows):
        pipeline.progress(Step(pipeline.account, "reconcile", counts, done, len(windows)))
        one_pass = _pass if reading.method is Method.KEYSET else _agreeing_passes
        read, seen = await one_pass(pipeline, run, window, reading)
        counts += read
        known = await ledger.listed_here(pipeline.database, pipeline.account, window, began)
        missing.update(dict.fromkeys(known - seen, window))
    pipeline.progress(Step(pipeline.account, "reconcile", counts, len(windows), len(windows)))
    return counts, missing


async def _pass(pipeline: Pipeline, run: Run, window: Window, reading: Reading) -> tuple[Counts, set[str]]:
    """Read a window once and repair what differs; returns the ids that it showed."""
    seen, counts = set[str](), Counts()

    def observe(mapped: Mapped, saved: Counts) -> None:
        nonlocal counts
        seen.update(mapped.ids)
        counts += saved

    found = fuller(pipeline, run, pages(pipeline.client, window, reading))
    async with writing(pipeline.database, run, observe) as writer:
        await drain(found, writer, lambda _: None)
    return counts, seen


async def _agreeing_passes(pipeline: Pipeline, run: Run, window: Window, reading: Reading) -> tuple[Counts, set[str]]:
    """Read a window until two passes over it show the same ids."""
    counts, before = Counts(), None
    for _ in range(MAX_PASSES):
        read, seen = await _pass(pipeline, run, window, reading)
        counts += read
        if seen == before:
            return counts, seen
        before = seen
    raise SyncError(
        f"The listing of {pipeline.account} changed in each of {MAX_PASSES} passes, so nothing could be proven.",
        "What was read is stored and nothing was marked gone; reconcile again at a quieter hour.",
    )


async def _really_gone(
    pipeline: Pipeline, run: Run, missing: dict[str, Window], reading: Reading, *, accept_vanished: bool
) -> list[str]:
    """Ask for each missing referral by id. One that answers is stored, and makes its window's listing doubtful.

    Such a window is read again until two passes agree: only what they lack as well is gone.
    """
    live = await ledger.live_count(pipeline.database, pipeline.account)
    allowed = max(int(live * pipeline.max_vanished_percent / 100), MIN_VANISHED)
    gone, doubtful = list[str](), set[Window]()
    for referral_id in sorted(missing):
        page = await _look(pipeline, referral_id)
        if page is not None:
            await save(pipeline.database, run, map_pages([page]))
            doubtful.add(missing[referral_id])
            continue
        gone.append(referral_id)
        if len(gone) > allowed and not accept_vanished:
            raise VanishedError(
                f"{len(missing)} of {live} referrals of {pipeline.account} are no longer listed,"
                f" and at most {allowed} may vanish at once: none was marked gone.",
                "Usually the signed-in user lost a role or a location. If they are really gone, run"
                f" `referral-sync reconcile --account {pipeline.account} --accept-vanished`.",
            )
    for window in doubtful if reading.method is Method.KEYSET else ():
        _, seen = await _agreeing_passes(pipeline, run, window, reading)
        gone = [referral_id for referral_id in gone if referral_id not in seen]
    return gone


async def _look(pipeline: Pipeline, referral_id: str) -> Page | None:
    """Ask for a referral that the listing lacks; one that this sign-in may no longer see counts as not there."""
    try:
        return await pipeline.client.fetch(referral_id)
    except PermissionRefused:
        return None
