"""One referral by its id: the answer that surely carries the eTag, and that wins because it was asked for."""

from __future__ import annotations

from worker.model.counts import Counts
from worker.model.mapping import map_pages
from worker.model.record import Page, spelled
from worker.store.spelling import stored_ids
from worker.sync.pipeline import Pipeline
from worker.sync.run import Run, store


async def fetch_as_known(pipeline: Pipeline, referral_id: str) -> Page | None:
    """Ask for a referral as it is stored, and else as it was given, or in lower case."""
    stored = await stored_ids(pipeline.database, pipeline.account, referral_id)
    for spelling in dict.fromkeys((*stored, referral_id, referral_id.lower())):
        if (page := await pipeline.client.fetch(spelling)) is not None:
            return spelled(page, stored[0]) if len(stored) == 1 else page
    return None


async def refresh(pipeline: Pipeline, run: Run, ids: list[str]) -> tuple[Counts, list[str]]:
    """Fetch and store referrals by id; returns the counts, and the ids that the source does not show."""
    counts, unknown = Counts(), []
    for referral_id in ids:
        page = await fetch_as_known(pipeline, referral_id)
        if page is None:
            unknown.append(referral_id)
            continue
        counts += await store(pipeline.database, run, map_pages([page]), pages=1, force=True)
    return counts, unknown
