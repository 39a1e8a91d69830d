"""What dashboards read of history, kept beside it: the stages of referrals, and the pipeline of each day.

The stages of referrals whose history changed are replaced. Of a referral that has its first version alone nothing is
kept: what `bi` shows of it is worked out from its row. The pipeline is added up anew, and what differs is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.store.database import STATEMENT_SECONDS, Database

AT_ONCE = 50_000
"""Referrals whose stages one transaction replaces."""

LOCK_STAGES = "LOCK TABLE sync.stages IN SHARE ROW EXCLUSIVE MODE"
"""Waits for a refresh that is under way, and lets none begin; readers of `bi` and savers are not held up."""

_IN_MEMORY = "SET LOCAL work_mem = '64MB'; SET LOCAL hash_mem_multiplier = 8; SET LOCAL jit = off"
"""How the pipeline is added up: 3 s for a million versions, in 40 MB.

PostgreSQL expects thirty times the days that there are, so with less it sorts all of history on disk, for 16 s; and
compiling takes as long as all the rest.
"""

_STALE = """
SELECT coalesce(array_agg(referral_key), '{}')
FROM (SELECT DISTINCT referral_key FROM sync.stale_stages ORDER BY 1 LIMIT $1) stale
"""

_REPLACE = (
    "DELETE FROM sync.stale_stages WHERE referral_key = ANY($1::bigint[])",
    "DELETE FROM sync.stages WHERE referral_key = ANY($1::bigint[])",
    "DELETE FROM sync.estimated_stages WHERE referral_key = ANY($1::bigint[])",
    """
    INSERT INTO sync.estimated_stages (account, referral_id, referral_key, direction, type, category, is_spam, currency,
        deal_value, status, substatus, from_at, to_at, goes_on)
    SELECT account, referral_id, referral_key, direction, type, category, is_spam, currency,
        deal_value, status, substatus, from_at, to_at, goes_on
    FROM sync.estimates WHERE referral_key = ANY($1::bigint[])
    """,
    """
    INSERT INTO sync.stages (referral_key, step, account, referral_id, status, substatus, entered_at, left_at,
        is_estimated)
    SELECT referral_key, step, account, referral_id, status, substatus, entered_at, left_at, is_estimated
    FROM sync.stages_of WHERE referral_key = ANY($1::bigint[])
    """,
)


class Work:
    """How long a refresh has worked, without what it waited for its turn."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of what is done inside, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - began


async def refresh_stages(database: Database, work: Work) -> None:
    """Replace the stages of every referral whose history changed since they were derived."""
    while await _refresh_some(database, work) == AT_ONCE:
        pass


async def _refresh_some(database: Database, work: Work) -> int:
    """Replace the stages of some referrals; returns of how many.

    One refresh at a time, and all of it in one snapshot: the lock, which is no query, comes before that is taken. What
    commits later stays noted.
    """
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute(LOCK_STAGES)
        with work.timed():
            stale: list[int] = await connection.fetchval(_STALE, AT_ONCE)
            for statement in _REPLACE if stale else ():
                await connection.execute(statement, stale)
    return len(stale)


_GROUP = "currency, is_estimated, status, direction, category, type, is_spam, account"
_KEY = f"{_GROUP}, from_day"

# In the order of the index, to which rows are then added at its end: in half the time.
_REPLACE_SPANS = f"""
WITH due AS MATERIALIZED (
    SELECT * FROM sync.pipeline_spans_of
),
ended AS (
    DELETE FROM sync.pipeline_spans
    WHERE ({_KEY}) IN (SELECT {_KEY} FROM sync.pipeline_spans EXCEPT ALL SELECT {_KEY} FROM due)
)
INSERT INTO sync.pipeline_spans AS s ({_KEY}, to_day, deals, deal_value)
SELECT {_KEY}, d.to_day, d.deals, d.deal_value FROM due d LEFT JOIN sync.pipeline_spans p USING ({_KEY})
WHERE p.deals IS NULL OR (p.to_day, p.deals, p.deal_value) IS DISTINCT FROM (d.to_day, d.deals, d.deal_value)
ORDER BY from_day, {_GROUP}
ON CONFLICT ({_KEY}) DO UPDATE SET to_day = excluded.to_day, deals = excluded.deals, deal_value = excluded.deal_value
"""  # noqa: S608 - constants


async def refresh_spans(database: Database, work: Work) -> None:
    """Add up the pipeline of each day anew, and write what differs; one at a time."""
    async with database.transaction(seconds=STATEMENT_SECONDS) as connection:
        await connection.execute(LOCK_STAGES)
        with work.timed():
            await connection.execute(_IN_MEMORY)
            await connection.execute(_REPLACE_SPANS)
