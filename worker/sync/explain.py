"""Everything known of one referral, here and at the source."""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import PermissionRefused, SyncError
from worker.model.decide import Verdict
from worker.model.mapping import Row, map_pages
from worker.store import rejects
from worker.store.history import History, history
from worker.store.rejects import Kept
from worker.store.save import judge
from worker.store.spelling import stored_ids
from worker.sync.by_id import fetch_as_known
from worker.sync.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Explained:
    """What the copy has of a referral, its rejected records, and how that compares with the source now.

    `source` is the source's answer mapped, None where it shows none; `verdict` what saving that answer would do;
    `failure` why the source could not be asked.
    """

    history: History
    rejects: list[Kept]
    source: Row | None
    verdict: Verdict | None
    failure: SyncError | None

    @property
    def known(self) -> bool:
        """Whether anything at all is known of it."""
        return bool(self.history.row or self.history.versions or self.rejects or self.source)


async def explain(pipeline: Pipeline, referral_id: str) -> Explained:
    """Collect all that is known of a referral; writes nothing. An API that fails is part of the answer."""
    referral_id = next(iter(await stored_ids(pipeline.database, pipeline.account, referral_id)), referral_id)
    stored = await history(pipeline.database, pipeline.account, referral_id)
    kept = await rejects.rejects_of(pipeline.database, pipeline.account, referral_id)
    source, verdict, failure = None, None, None
    try:
        page = await fetch_as_known(pipeline, referral_id)
    except PermissionRefused:
        page = None
    except SyncError as error:
        page, failure = None, error
    if page is not None:
        mapped = map_pages([page])
        if mapped.rows:
            source = mapped.rows[0]
            verdict = (await judge(pipeline.database, pipeline.account, mapped.rows, pipeline.privacy))[0][1]
        else:
            failure = SyncError(f"The source's answer cannot be stored: {mapped.rejects[0].reason}.")
    return Explained(stored, kept, source, verdict, failure)
