"""Verifying the copy: a full listing is compared with it, what differs is repaired, what it no longer has is marked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from worker.errors import DeletionCapError, PermissionRefused, SourceContradicted, SyncError
from worker.model.counts import Counts
from worker.model.mapping import Mapped, MappedPage, Row, map_pages
from worker.model.record import Ended, Page
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.paging import pages
from worker.store import capabilities, checkpoints
from worker.store.save import mark_deleted, undecided
from worker.sync.backfill import choose_field, newest_updated, windows_to_read
from worker.sync.drain import drain, writing
from worker.sync.hydrate import hydrated
from worker.sync.pipeline import Pipeline, Step
from worker.sync.run import Run, store
from worker.sync.strategy import downgrade
from worker.sync.untimed import without_time

MIN_DELETION_CAP = 5
"""Rows that may be marked as deleted at once, however few rows there are."""

MAX_PASSES = 5

UNVERIFIED_END = (
    "the API shows its listing to one query only, so it cannot be verified as complete:"
    " what it showed is stored, and nothing was marked as deleted"
)


_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile came to: counts of the listing, rows marked as deleted, and why the copy is not verified."""

    counts: Counts
    deleted: int
    unverified: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row as a listing showed it: of an older version than the copy has, or lacking members of the same version."""

    row: Row
    lacks: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Compared:
    """What the listing was seen to hold so far: ids of the copy that it lacks, with their window, and how it ended."""

    counts: Counts = field(default_factory=Counts)
    missing: dict[str, Window] = field(default_factory=dict)
    doubts: dict[str, Doubt] = field(default_factory=dict)
    ends: set[Ended] = field(default_factory=set)


async def reconcile(pipeline: Pipeline, run: Run, *, accept_vanished: bool = False) -> Reconciled:
    """Read the whole listing with full records, repair, and mark what it no longer has.

    A row is marked only when a complete listing lacks it and a look by id does not find it either; and
    never more than the cap at once (a user who lost a role sees less), unless `accept_vanished`. Raises
    DeletionCapError beyond the cap, with nothing marked. Moves no watermark. Where the end of the listing cannot be
    verified, what it showed is stored, nothing is marked, and nothing is called verified.
    """
    run.lag.watermark, run.lag.verified_through = await checkpoints.watermark_and_verified(
        pipeline.database, pipeline.account
    )
    run.lag.overlap = pipeline.overlap
    while True:
        field, strategy = await choose_field(pipeline, run)
        verified = await newest_updated(pipeline, run)
        began = (await pipeline.database.clock())()
        try:
            found = await _compare(pipeline, run, field, strategy, began)
            found.counts += await _settle(pipeline, run, found.doubts)
            if Ended.UNVERIFIED in found.ends:
                await checkpoints.put_unverified(pipeline.database, run.lease, UNVERIFIED_END)
                return Reconciled(found.counts, 0, UNVERIFIED_END)
            deleted = await _deleted_at_source(pipeline, run, found, strategy, accept_vanished=accept_vanished)
        except SourceContradicted as why:
            await downgrade(pipeline, field, strategy, why)
            continue
        number = await mark_deleted(pipeline.database, run.lease, deleted) if deleted else 0
        run.learn(deleted=number)
        through = verified or await checkpoints.watermark(pipeline.database, pipeline.account)
        how = f"{strategy.paging.value} by {field.value}, ends seen by {', '.join(sorted(found.ends))}"
        await checkpoints.put_verified(pipeline.database, run.lease, through, how)
        return Reconciled(found.counts, number)


async def _compare(pipeline: Pipeline, run: Run, field: TimeField, strategy: Strategy, began: datetime) -> _Compared:
    """Read window by window, so that only the ids of one are in memory; then what no window of this field can hold.

    Without a filter to rely on there is one window, and it is read until two passes agree.
    """
    found = _Compared()
    windows = await windows_to_read(pipeline, Window(field), strategy)
    total = len(windows) + (strategy.paging is not Paging.SWEEP)
    for done, window in enumerate(windows):
        pipeline.progress(Step(pipeline.account, "reconcile", found.counts, done, total))
        one_pass = _pass if strategy.paging is Paging.KEYSET else _agreeing_passes
        seen = await one_pass(pipeline, run, found, window, strategy)
        known = await checkpoints.live_ids(pipeline.database, pipeline.account, window, began)
        found.missing.update(dict.fromkeys(known - seen, window))
    if strategy.paging is not Paging.SWEEP:
        pipeline.progress(Step(pipeline.account, "reconcile", found.counts, len(windows), total))
        await _read(pipeline, run, found, without_time(pipeline, run, field))
    pipeline.progress(Step(pipeline.account, "reconcile", found.counts, total, total))
    return found


async def _pass(pipeline: Pipeline, run: Run, found: _Compared, window: Window, strategy: Strategy) -> set[str]:
    """Read a window once and repair what differs; returns the ids that it showed."""
    return await _read(pipeline, run, found, pages(pipeline.client, window, strategy))


async def _agreeing_passes(
    pipeline: Pipeline, run: Run, found: _Compared, window: Window, strategy: Strategy
) -> set[str]:
    """Read a window until two passes over it show the same ids."""
    before = None
    for _ in range(MAX_PASSES):
        seen = await _pass(pipeline, run, found, window, strategy)
        if seen == before:
            return seen
        before = seen
    raise SyncError(
        f"The listing of {pipeline.account} changed in each of {MAX_PASSES} passes, so nothing could be verified.",
        "What was read is stored and nothing was marked as deleted; reconcile again at a quieter hour.",
    )


async def _read(pipeline: Pipeline, run: Run, found: _Compared, listing: AsyncGenerator[Page]) -> set[str]:
    """Store what a listing shows, and note what that says about the copy; returns the ids that it showed."""
    seen = set[str]()

    def observe(mapped: Mapped, saved: Counts) -> None:
        seen.update(mapped.ids)
        found.counts += saved

    def end(page: Page) -> None:
        if page.ended is not None:
            found.ends.add(page.ended)

    async with writing(pipeline.database, run, observe) as writer:
        await drain(_noting_doubts(pipeline, run, hydrated(pipeline, run, listing), found.doubts), writer, end)
    for referral_id in seen & found.missing.keys():
        del found.missing[referral_id]
    return seen


async def _noting_doubts(
    pipeline: Pipeline, run: Run, found: AsyncGenerator[MappedPage], doubts: dict[str, Doubt]
) -> AsyncGenerator[MappedPage]:
    """Pass pages on, and note what they show at an older version than the copy has, or with less in it."""
    async with aclosing(found):
        async for one in found:
            doubts |= await doubted(pipeline, one.mapped.rows, set(run.facts.only_by_id or ()))
            yield one


async def doubted(pipeline: Pipeline, rows: list[Row], only_by_id: set[str]) -> dict[str, Doubt]:
    """Return the rows of a listing that only a look by id can decide on."""
    found = await undecided(pipeline.database, pipeline.account, rows, pipeline.privacy, only_by_id)
    return {row.id: Doubt(row, lacks) for row, lacks in found}


async def _settle(pipeline: Pipeline, run: Run, doubts: dict[str, Doubt]) -> Counts:
    """Take over what a look by id shows where the listing showed the same version: older, or with less in it.

    The newest wins among answers that may arrive out of order, and each may be partial; but what both show
    now is the source's present state: an edit that was dated in the future, a source restored from a backup, a member
    that was removed without a new time. A member that a look by id does show is known from then on to lack in the list.
    """
    counts, only_by_id = Counts(), set(run.facts.only_by_id or ())
    for referral_id, doubt in sorted(doubts.items()):
        if doubt.lacks and doubt.lacks <= only_by_id:
            continue
        page = await agreed_by_id(pipeline, doubt.row)
        if page is None:
            continue
        saved = await store(pipeline.database, run, map_pages([page]), force=True)
        if saved.updated:
            counts += saved
            _log.warning("version_reverted", referral=referral_id)
        elif doubt.lacks:
            only_by_id = only_by_id | doubt.lacks
            await capabilities.put_parity(pipeline.database, pipeline.account, only_by_id)
    run.learn(only_by_id=frozenset(only_by_id))
    return counts


async def agreed_by_id(pipeline: Pipeline, listed: Row) -> Page | None:
    """Return the source's answer by id where it is of the very version that a listing showed; else None."""
    page = await look(pipeline, listed.id)
    rows = map_pages([page]).rows if page is not None else []
    return page if rows and rows[0].version == listed.version else None


async def _deleted_at_source(
    pipeline: Pipeline, run: Run, found: _Compared, strategy: Strategy, *, accept_vanished: bool
) -> list[str]:
    """Ask for each missing referral by id. One that answers is stored, and makes its window's listing doubtful.

    Such a window is read again until two passes agree: only what they lack as well is deleted.
    """
    missing = dict(found.missing)
    live = await checkpoints.live_count(pipeline.database, pipeline.account)
    allowed = max(int(live * pipeline.max_vanished_percent / 100), MIN_DELETION_CAP)
    deleted, doubtful = list[str](), set[Window]()
    for referral_id in sorted(missing):
        page = await look(pipeline, referral_id)
        if page is not None:
            await store(pipeline.database, run, map_pages([page]))
            doubtful.add(missing[referral_id])
            continue
        deleted.append(referral_id)
        if len(deleted) > allowed and not accept_vanished:
            raise DeletionCapError(
                f"{len(missing)} of {live} referrals of {pipeline.account} are no longer listed,"
                f" and at most {allowed} may be marked as deleted at once: none was.",
                "Usually the signed-in user lost a role or a location. If they are really deleted, run"
                f" `referral-sync reconcile --account {pipeline.account} --accept-vanished`.",
            )
    for window in doubtful if strategy.paging is Paging.KEYSET else ():
        seen = await _agreeing_passes(pipeline, run, found, window, strategy)
        deleted = [referral_id for referral_id in deleted if referral_id not in seen]
    return deleted


async def look(pipeline: Pipeline, referral_id: str) -> Page | None:
    """Ask for a referral that the listing lacks; one that this sign-in may no longer see counts as not there."""
    try:
        return await pipeline.client.fetch(referral_id)
    except PermissionRefused:
        return None
