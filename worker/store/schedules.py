"""When work is due: one row for each account and kind, which all workers look at.

Whoever finds one due moves it on and puts the job into the queue, in one transaction. So a due sync becomes exactly one
job, however many workers there are, and one that was missed for long is one job, not many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from worker.store.database import Database
from worker.store.runs import ASK_FOR_HISTORY

BATCH = 100
HISTORY = "history"
HISTORY_SECONDS = 60
"""What is refreshed as a whole is refreshed so often at most, however many runs change something."""

HISTORY_RESTS, LONGEST_REST = 10, 900
"""A refresh is followed by so many times as long without one, so that it takes a tenth of a core; by so many seconds at
most."""

AGAIN = timedelta(seconds=5)
_DUE = "greatest(due_at, not_before)"

ALIVE = "seen_at > now() - interval '30 seconds'"
"""Which workers are alive: each says so every ten seconds."""


@dataclass(frozen=True, slots=True)
class WorkKind:
    """A kind of scheduled work.

    `spec` says in words when it is due, `next_due` when after a moment, given the phase of its row in [0, 1). One that
    is `asked` for is due only when somebody says so.
    """

    name: str
    spec: str
    next_due: Callable[[datetime, float], datetime] | None
    priority: int
    at_once: bool = False

    @property
    def asked(self) -> bool:
        """Whether nothing but a request makes it due."""
        return self.next_due is None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a look at the schedules came to: jobs that were put into the queue, and seconds until the next is due."""

    jobs: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Due:
    """Work that is due: its account and kind, and since when."""

    account: str
    kind: str
    due_at: datetime


Put = Callable[[PoolConnectionProxy, list[Due]], Awaitable[list[bool]]]
"""Puts what is due into the queue, in the connection's transaction; says of each whether it was taken in."""


async def ensure(database: Database, accounts: Sequence[str], kinds: Mapping[str, WorkKind], *, of_all: bool) -> None:
    """Make the rows of these accounts (`of_all`: of work of the whole database), and take over a changed schedule.

    A new row that is `at_once` is due now, and so is one whose account's last run went wrong: somebody may have
    started the worker again because of just that.
    """
    async with database.transaction() as connection:
        for kind in kinds.values():
            rows = await connection.fetch(
                """
                WITH wanted AS (SELECT unnest($1::text[]) AS account),
                made AS (
                    INSERT INTO sync.schedules (account, kind, spec, due_at)
                    SELECT account, $2, '', 'infinity' FROM wanted ORDER BY account
                    ON CONFLICT DO NOTHING RETURNING account, id, spec
                )
                SELECT account, id, spec, now() AS now FROM made
                UNION ALL
                SELECT s.account, s.id, s.spec, now() FROM sync.schedules s JOIN wanted w ON w.account = s.account
                WHERE s.kind = $2 AND s.spec <> $3
                """,
                [""] if of_all else list(accounts),
                kind.name,
                kind.spec,
            )
            await connection.execute(
                """
                UPDATE sync.schedules s SET due_at = CASE WHEN $5 THEN s.due_at ELSE u.due_at END, spec = $4
                FROM unnest($1::text[], $2::timestamptz[]) AS u(account, due_at)
                WHERE s.account = u.account AND s.kind = $3
                """,
                [row["account"] for row in rows],
                [_first(kind, row) for row in rows],
                kind.name,
                kind.spec,
                kind.asked,
            )
            if kind.at_once:
                await connection.execute(
                    """
                    UPDATE sync.schedules s SET due_at = now()
                    FROM sync.summaries f JOIN sync.runs r ON r.id = f.finished_run
                    WHERE s.account = f.account AND s.account = ANY($1::text[]) AND s.kind = $2 AND s.due_at > now()
                        AND r.outcome <> 'done'
                    """,
                    list(accounts),
                    kind.name,
                )


async def move_due(database: Database, accounts: Sequence[str], kinds: Mapping[str, WorkKind], put: Put) -> Moved:
    """Move what is due on, and put it into the queue."""
    names = ["", *accounts]
    async with database.transaction() as connection:
        due = await connection.fetch(
            f"""
            SELECT account, kind, id, due_at, now() AS now FROM sync.schedules
            WHERE {_DUE} <= now() AND account = ANY($1::text[]) AND kind = ANY($2::text[])
            ORDER BY {_DUE} LIMIT {BATCH} FOR UPDATE SKIP LOCKED
            """,  # noqa: S608 - constants
            names,
            list(kinds),
        )
        taken: list[bool] = []
        if due:
            taken = await put(connection, [Due(row["account"], row["kind"], row["due_at"]) for row in due])
            await connection.execute(
                """
                UPDATE sync.schedules s SET due_at = coalesce(u.due_at, 'infinity'),
                    not_before = CASE WHEN u.due_at IS NULL THEN now() + make_interval(secs => $4) END,
                    because = CASE WHEN u.due_at IS NULL THEN 'done so often at most' END
                FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(account, kind, due_at)
                WHERE s.account = u.account AND s.kind = u.kind
                """,
                [row["account"] for row in due],
                [row["kind"] for row in due],
                [_next(kinds[row["kind"]], row, new) for row, new in zip(due, taken, strict=True)],
                float(HISTORY_SECONDS),
            )
        seconds = await connection.fetchval(
            f"""
            SELECT extract(epoch FROM min({_DUE}) - now())::float8 FROM sync.schedules
            WHERE due_at < 'infinity' AND account = ANY($1::text[]) AND kind = ANY($2::text[])
            """,  # noqa: S608 - constants
            names,
            list(kinds),
        )
    return Moved(sum(taken), seconds)


async def upcoming(database: Database, accounts: Sequence[str]) -> list[tuple[str, str, datetime]]:
    """Return account, kind and time of what is due next, the soonest first."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            f"""
            SELECT account, kind, {_DUE} AS due_at FROM sync.schedules
            WHERE account = ANY($1::text[]) AND due_at < 'infinity' ORDER BY 3
            """,  # noqa: S608 - a constant
            list(accounts),
        )
    return [(row["account"], row["kind"], row["due_at"]) for row in found]


async def ask_for_history(database: Database) -> None:
    """Say that what is refreshed as a whole has to be."""
    async with database.transaction() as connection:
        await connection.execute(ASK_FOR_HISTORY)


async def take_history(database: Database, *, force: bool = False) -> bool:
    """Take the refresh upon oneself where one is asked for; says whether it is.

    Sooner than a minute after the last: nobody else may come. But while it rests for longer than that it is left to the
    daemon, where one is alive, unless by `force`.
    """
    async with database.transaction() as connection:
        taken = await connection.fetchval(
            f"""
            UPDATE sync.schedules SET due_at = 'infinity', not_before = now() + make_interval(secs => $1),
                because = 'done so often at most'
            WHERE account = '' AND kind = 'history' AND due_at < 'infinity'
                AND ($2 OR not_before IS NULL OR not_before <= now() + make_interval(secs => $1)
                    OR NOT EXISTS (SELECT FROM sync.workers WHERE {ALIVE}))
            RETURNING true
            """,  # noqa: S608 - a constant
            float(HISTORY_SECONDS),
            force,
        )
    return bool(taken)


async def rest_after_history(database: Database, seconds: float) -> None:
    """Let the next refresh wait in proportion to the seconds that the last one took, where that is over a minute."""
    rest = min(seconds * HISTORY_RESTS, LONGEST_REST)
    if rest <= HISTORY_SECONDS:
        return
    async with database.transaction() as connection:
        await connection.execute(
            """
            UPDATE sync.schedules SET not_before = greatest(not_before, now() + make_interval(secs => $1)),
                because = 'takes long'
            WHERE account = '' AND kind = 'history'
            """,
            rest,
        )


async def put_backoff(database: Database, account: str, seconds: float, why: str) -> None:
    """Record until when the API asked to back off, for every process that works on the account.

    Also where no daemon has made its rows yet: `ensure` then finds one without a schedule, and sets it.
    """
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.schedules (account, kind, spec, due_at) VALUES ($1, 'incremental', '', 'infinity')
            ON CONFLICT DO NOTHING
            """,
            account,
        )
        await connection.execute(
            """
            UPDATE sync.schedules SET not_before = now() + make_interval(secs => $2), because = $3 WHERE account = $1
            """,
            account,
            seconds,
            why,
        )


async def backing_off(database: Database, account: str) -> float:
    """Return for how many seconds more an account backs off; 0 where it does not."""
    async with database.transaction() as connection:
        seconds: float | None = await connection.fetchval(
            "SELECT extract(epoch FROM max(not_before) - now())::float8 FROM sync.schedules WHERE account = $1", account
        )
    return max(0.0, seconds or 0.0)


async def seen(database: Database, owner: str, release: str, configuration: str) -> set[str]:
    """Record that a worker is alive; returns the other configurations that living workers have."""
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.workers (owner, release, configuration) VALUES ($1, $2, $3)
            ON CONFLICT (owner) DO UPDATE SET seen_at = now()
            """,
            owner,
            release,
            configuration,
        )
        found = await connection.fetch(
            f"SELECT DISTINCT configuration FROM sync.workers WHERE {ALIVE} AND configuration <> $1",  # noqa: S608 - a constant
            configuration,
        )
    return {row["configuration"] for row in found}


async def leave(database: Database, owner: str) -> None:
    """Record that a worker has ended."""
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM sync.workers WHERE owner = $1", owner)


async def delete_dead_workers(database: Database) -> None:
    """Forget workers that were not seen for an hour, and daily lags that are older than a week."""
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM sync.workers WHERE seen_at < now() - interval '1 hour'")
        await connection.execute("DELETE FROM sync.daily_lag WHERE day < (now() AT TIME ZONE 'UTC')::date - 7")


def phase_of(number: int) -> float:
    """Return the phase of a row in [0, 1): multiples of the golden ratio spread evenly, however many there are."""
    return number * 0.618_033_988_749_894_9 % 1


def _first(kind: WorkKind, row: asyncpg.Record) -> datetime:
    now: datetime = row["now"]
    if kind.next_due is None or (kind.at_once and row["spec"] == ""):
        return now
    return kind.next_due(now, phase_of(row["id"]))


def _next(kind: WorkKind, row: asyncpg.Record, taken: bool) -> datetime | None:
    """Return when a row is due again; one that is only asked for is so only when somebody asks again.

    Where it was not taken in because its last job is still in hand, that one may have begun before the change which
    asks for it: so it is tried again soon.
    """
    if kind.next_due is not None:
        return kind.next_due(row["now"], phase_of(row["id"]))
    return None if taken else row["now"] + AGAIN
