"""Replaying rejected records: on request, or because a new release may understand more."""

from __future__ import annotations

from worker.model.counts import Counts
from worker.model.mapping import Mapped, RejectedRecord, Row, map_record
from worker.model.record import decode_record
from worker.store import rejects
from worker.store.database import Database
from worker.sync.run import Run, store


async def replay(database: Database, run: Run, *, other_release: bool = False) -> Counts:
    """Map and save every open rejected record of the run's account again; count an attempt for each that fails.

    A payload counts as read when it was last seen, so an old one never wins over what came after it. `other_release`
    takes only what this release has not tried yet. Counts are of records: rejected means rejected again.
    """
    counts, after = Counts(), ""
    while batch := await rejects.open_rejects(database, run.lease.account, after=after, other_release=other_release):
        for kept in batch:
            mapped = map_record(decode_record(kept.payload), kept.last_seen_at)
            if isinstance(mapped, Row):
                saved = await store(database, run, Mapped(rows=[mapped]))
            else:
                saved = Counts(rejected=1)
            if saved.rejected:
                await rejects.failed_again(
                    database, run.lease, kept.key, mapped if isinstance(mapped, RejectedRecord) else None
                )
            else:
                await rejects.no_longer_needed(database, run.lease, kept.key)
            counts += saved
        after = batch[-1].key
    return counts
