"""Which of two answers about one referral is kept.

The newest version wins, whatever the order of arrival; at an equal version the answer whose request started later. The
decision is made here, on rows that the caller has locked, so that no SQL has to repeat it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from worker.model.instant import Instant

if TYPE_CHECKING:
    from worker.model.mapping import Row


class Verdict(StrEnum):
    """What an answer means for the stored row."""

    INSERT = "insert"
    UPDATE = "update"
    RETURN = "return"  # the stored content stands, and the row is no longer marked as deleted
    ETAG = "etag"  # the content stands, and the entity tag is now known
    OLDER = "older"  # the source shows an older version: kept, unless a reconcile finds that it is the present state
    KEEP = "keep"

    @property
    def changes(self) -> bool:
        """Whether saving the answer writes anything."""
        return self not in (Verdict.OLDER, Verdict.KEEP)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the copy holds of a referral, as far as deciding needs it."""

    version: Instant
    content_hash: UUID
    etag: str | None
    observed_at: datetime
    deleted_at: datetime | None


def newest_of_each(rows: Iterable[Row]) -> list[Row]:
    """Keep the newest row of each id, sorted by id: two savers that lock in one order cannot deadlock."""
    newest: dict[str, Row] = {}
    for row in rows:
        other = newest.get(row.id)
        if other is None or (row.version, row.observed_at) >= (other.version, other.observed_at):
            newest[row.id] = row
    return [newest[key] for key in sorted(newest)]


def decide(row: Row, stored: Stored | None, *, force: bool = False) -> Verdict:
    """Compare an answer with the copy.

    `force`: it was asked for by id, or a listing and an answer by id agree on it; so what the source
    says now wins even when it looks older. A row that was marked as deleted at the source takes what an answer to a
    later request shows, whatever its version: the mark already said that the source had none.
    """
    if stored is None:
        return Verdict.INSERT
    same = row.content_hash == stored.content_hash and row.version == stored.version
    back = stored.deleted_at is not None and row.observed_at > stored.deleted_at
    newer = row.version > stored.version or (row.version == stored.version and row.observed_at > stored.observed_at)
    if not same and (newer or force or back):
        return Verdict.UPDATE
    if back:
        return Verdict.RETURN
    if row.version < stored.version and stored.deleted_at is None:
        return Verdict.OLDER
    tag_is_news = row.etag is not None and row.etag != stored.etag and (row.by_id or stored.etag is None)
    return Verdict.ETAG if same and tag_is_news else Verdict.KEEP
