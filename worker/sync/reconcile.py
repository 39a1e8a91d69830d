"""Verifying the copy: a full listing is compared with it, what differs is repaired, what it no longer has is marked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from worker.errors import DeletionCapError, PermissionRefused, SourceContradicted, SyncError
from worker.model.counts import Counts
from worker.model.instant import MIN_VALUE, Instant, floor_second
from worker.model.mapping import NEVER, Mapped, MappedPage, Row, map_pages
from worker.model.record import Ended, Page, spelled
from worker.model.strategy import Paging, Strategy
from worker.model.window import TimeField, Window
from worker.source.checks import leaves_out
from worker.source.paging import pages
from worker.store import capabilities, checkpoints
from worker.store.save import mark_deleted, undecided
from worker.store.spelling import is_guid
from worker.sync.backfill import choose_field, newest_updated, windows_to_read
from worker.sync.drain import drain, writing
from worker.sync.hydrate import hydrated
from worker.sync.pipeline import Pipeline, Step
from worker.sync.run import Run, store
from worker.sync.strategy import downgrade
from worker.sync.untimed import elsewhere

MIN_DELETION_CAP = 5
"""Rows that may be marked as deleted at once, however few rows there are."""

MAX_PASSES = 5

UNVERIFIED_END = (
    "the API shows its listing to one query only, so it cannot be verified as complete:"
    " what it showed is stored, and nothing was marked as deleted"
)


UNSETTLED = (
    "the API lists an older state than the copy has ({count} times, such as {example}), and asked by id it does not"
    " show that state: the copy keeps the newest that it was shown"
)

UNLISTED = (
    "the API's listing lacks {count} referrals that it shows by id, so it may lack others:"
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
    stored: Instant
    lacks: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Compared:
    """What the listing was seen to hold so far: its ids and versions, the ids that it lacks, and how it ended.

    Those that it lacks stand with their window; `unlisted` of them are there by id, and were lacking again when their
    windows were read again.
    """

    counts: Counts = field(default_factory=Counts)
    shown: dict[str, Instant] = field(default_factory=dict)
    missing: dict[str, Window] = field(default_factory=dict)
    doubts: dict[str, Doubt] = field(default_factory=dict)
    ends: set[Ended] = field(default_factory=set)
    unlisted: int = 0


async def reconcile(pipeline: Pipeline, run: Run, *, accept_vanished: bool = False) -> Reconciled:
    """Read the whole listing with full records, repair, and mark what it no longer has.

    A row is marked only when a complete listing lacks it and a look by id does not find it either; and
    never more than the cap at once (a user who lost a role sees less), unless `accept_vanished`. Raises
    DeletionCapError beyond the cap, with nothing marked. Moves no watermark. Where the end of the listing cannot be
    verified, or it lacks more than the cap of what is there by id, what it showed is stored, nothing is marked, and
    nothing is called verified; nor where a look by id cannot settle which of two states is the source's.
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
            settled, unsettled = await _settle(pipeline, run, found.doubts)
            found.counts += settled
            if Ended.UNVERIFIED in found.ends:
                return await _unverified(pipeline, run, found, UNVERIFIED_END)
            deleted = await _deleted_at_source(pipeline, run, found, strategy, accept_vanished=accept_vanished)
        except SourceContradicted as why:
            await downgrade(pipeline, field, strategy, why)
            continue
        if found.unlisted > await _allowed(pipeline):
            return await _unverified(pipeline, run, found, UNLISTED.format(count=found.unlisted))
        number = await mark_deleted(pipeline.database, run.lease, deleted, began) if deleted else 0
        run.learn(deleted=number)
        if unsettled:
            doubt = UNSETTLED.format(count=len(unsettled), example=unsettled[0])
            return await _unverified(pipeline, run, found, doubt, deleted=number)
        through = verified or await checkpoints.watermark(pipeline.database, pipeline.account)
        how = f"{strategy.paging.value} by {field.value}, ends seen by {', '.join(sorted(found.ends))}"
        await checkpoints.put_verified(pipeline.database, run.lease, through, how)
        return Reconciled(found.counts, number)


async def _unverified(pipeline: Pipeline, run: Run, found: _Compared, why: str, *, deleted: int = 0) -> Reconciled:
    await checkpoints.put_unverified(pipeline.database, run.lease, why)
    return Reconciled(found.counts, deleted, why)


async def _allowed(pipeline: Pipeline) -> int:
    """Return how many rows the listing may lack at once before it is doubted as a whole."""
    live = await checkpoints.live_count(pipeline.database, pipeline.account)
    return max(int(live * pipeline.max_vanished_percent / 100), MIN_DELETION_CAP)


async def _compare(pipeline: Pipeline, run: Run, field: TimeField, strategy: Strategy, began: datetime) -> _Compared:
    """Read window by window; then what no window of this field can hold, or did not show, by another query.

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
        left_out = dict[str, Instant]()
        listing = elsewhere(pipeline, run, field, found.shown)
        await _read(pipeline, run, found, _noting_times(listing, field, left_out))
        await _check_left_out(pipeline, field, strategy, left_out)
    pipeline.progress(Step(pipeline.account, "reconcile", found.counts, total, total))
    return found


async def _noting_times(
    found: AsyncGenerator[Page], field: TimeField, times: dict[str, Instant]
) -> AsyncGenerator[Page]:
    """Pass pages on, and note which records on them have the time of a field."""
    async with aclosing(found):
        async for page in found:
            for record in page.records:
                if record.id is not None and (time := record.time(field)) is not None:
                    times[record.id] = time
            yield page


async def _check_left_out(
    pipeline: Pipeline, field: TimeField, strategy: Strategy, left_out: dict[str, Instant]
) -> None:
    """Raise SourceContradicted where windows leave out what the same listing shows without order and filter.

    They are asked again first: a record may be new, or have moved or been deleted since.
    """
    if not left_out:
        return
    window = Window(field, floor_second(min(left_out.values())))
    async with aclosing(pages(pipeline.client, window, strategy)) as found:
        async for page in found:
            for record in page.records:
                left_out.pop(record.id or "", None)
    if await leaves_out(pipeline.client, field, left_out):
        raise SourceContradicted(
            f"Asked by {field.value}, the API leaves out records that it lists when it is asked for everything."
        )


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
        for referral_id, version in mapped.versions:
            found.shown[referral_id] = max(version, found.shown.get(referral_id, NEVER))
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
    return {row.id: Doubt(row, stored, lacks) for row, stored, lacks in found}


async def _settle(pipeline: Pipeline, run: Run, doubts: dict[str, Doubt]) -> tuple[Counts, list[str]]:
    """Take over what a look by id shows where the listing showed the same version: older, or with less in it.

    The newest wins among answers that may arrive out of order, and each may be partial; but what both show
    now is the source's present state: an edit that was dated in the future, a source restored from a backup, a member
    that was removed without a new time. A member that a look by id does show is known from then on to lack in the list.
    Returns the counts, and the ids for which the look by id shows nothing, or what is older than the listing.
    """
    counts, only_by_id, unsettled = Counts(), set(run.facts.only_by_id or ()), list[str]()
    for referral_id, doubt in sorted(doubts.items()):
        if doubt.lacks and doubt.lacks <= only_by_id:
            continue
        page = await confirmed_by_id(pipeline, doubt.row)
        if page is None:
            unsettled.append(referral_id)
            continue
        saved = await store(pipeline.database, run, map_pages([page]), force=True)
        if saved.updated:
            counts += saved
            if (page.records[0].time(TimeField.UPDATED) or MIN_VALUE) <= doubt.stored:
                _log.warning("version_reverted", referral=referral_id)
        elif doubt.lacks:
            only_by_id = only_by_id | doubt.lacks
            await capabilities.put_parity(pipeline.database, pipeline.account, only_by_id)
    run.learn(only_by_id=frozenset(only_by_id))
    return counts, unsettled


async def confirmed_by_id(pipeline: Pipeline, listed: Row) -> Page | None:
    """Return the source's answer by id where it is of the version that a listing showed, or of a newer one; else None.

    It was asked for later, so a newer one is an edit since, or a listing that lags: the source's present state as well.
    """
    page = await look(pipeline, listed.id)
    rows = map_pages([page]).rows if page is not None else []
    return page if rows and rows[0].version >= listed.version else None


async def _deleted_at_source(
    pipeline: Pipeline, run: Run, found: _Compared, strategy: Strategy, *, accept_vanished: bool
) -> list[str]:
    """Ask for each missing referral by id, unless it is listed in another case, which is the same referral.

    One that answers is stored, and makes its window's listing doubtful.

    Such a window is read again until two passes agree: only what they lack as well is deleted.
    """
    missing = dict(found.missing)
    live, allowed = await checkpoints.live_count(pipeline.database, pipeline.account), await _allowed(pipeline)
    deleted, there, doubtful = list[str](), set[str](), set[Window]()
    respelled = {referral_id.lower() for referral_id in found.shown if is_guid(referral_id)}
    for referral_id in sorted(missing):
        page = await look(pipeline, referral_id) if referral_id.lower() not in respelled else None
        if page is not None:
            await store(pipeline.database, run, map_pages([page]))
            doubtful.add(missing[referral_id])
            there.add(referral_id)
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
        there -= seen
    found.unlisted = len(there)
    return deleted


async def look(pipeline: Pipeline, referral_id: str) -> Page | None:
    """Ask for a referral that the listing lacks; one that this sign-in may no longer see counts as not there."""
    try:
        page = await pipeline.client.fetch(referral_id)
    except PermissionRefused:
        return None
    return spelled(page, referral_id) if page is not None else None
