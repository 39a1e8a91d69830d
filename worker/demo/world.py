"""Everything one simulated Partner Center holds, and the ways to change it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any
from zlib import crc32

from aiohttp import web

from worker.demo import ticks
from worker.demo.behaviour import Behaviour, changed
from worker.demo.data import make_referral, make_referrals
from worker.demo.faults import Fault, FaultQueue
from worker.demo.listing import Listing
from worker.demo.odata import CREATED, UPDATED
from worker.demo.rows import Row, full
from worker.demo.signin import SignIn

_LOGGED = 200_000


class Simulator:
    """A running simulated Partner Center: its data, its behaviour, and what was asked of it.

    `origin` is where it listens, for example `http://127.0.0.1:1234`; stop it with `stop`. Every method that changes
    something does what the control endpoint of the same name does. Records go in and out as decoded JSON.
    """

    def __init__(self, referrals: Iterable[Mapping[str, Any]], behaviour: Behaviour, tokens: Sequence[str]) -> None:
        self.origin = ""
        self.behaviour = behaviour
        self.faults = FaultQueue()
        self.cut_answers = 0
        self.signin = SignIn(access=dict.fromkeys(tokens), refresh=set(tokens))
        self.requests: deque[dict[str, Any]] = deque(maxlen=_LOGGED)
        self.clock_offset = 0.0
        self.active = 0
        self.seen_ids: set[str] = set()
        self.closing = asyncio.Event()
        self.runner: web.AppRunner | None = None
        self.rng = Random(0)
        self._pending: dict[str, tuple[Row, float | None]] = {}
        self._stamped = 0
        self._made = 0
        self.listing = Listing((_row(record) for record in referrals), self._visible)
        self._render()

    async def stop(self) -> None:
        """Close the server; answers that were being delayed are sent."""
        self.closing.set()
        if self.runner is not None:
            await self.runner.cleanup()

    def stamp(self) -> int:
        """Return the time of a write in ticks: the real one, but never the same twice."""
        self._stamped = max(ticks.now(), self._stamped + 1)
        return self._stamped

    def create(self, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add referrals: each a made-up new one with the given members laid over it. Returns them whole."""
        return [self._create(record) for record in records]

    def update(
        self, row_id: str, changes: Mapping[str, Any], *, silent: bool = False, remove: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Lay `changes` over a referral (arrays are replaced) and take away the members at the paths `remove` (`a/b`).

        `updatedDateTime` moves to now unless it is among the changes or the edit is `silent`. Returns the record;
        KeyError where there is none.
        """
        row = self.current(row_id)
        if row.raw is not None:
            raise ValueError(f"The referral '{row_id}' holds raw bytes: replace or delete it.")
        record = _merged(row.record, changes)
        for path in remove:
            _take_away(record, path.split("/"))
        if not silent and UPDATED not in changes:
            record[UPDATED] = ticks.render(self.stamp())
        record.pop("eTag", None)
        return full(self._write(_row({**record, "id": row_id}, row.writes + 1)))

    def delete(self, row_id: str) -> None:
        """Take a referral away at once; KeyError where there is none."""
        self.current(row_id)
        self._pending.pop(row_id, None)
        self.listing.remove(row_id)

    def store_raw(self, row_id: str, raw: bytes, *, created: str | None = None, updated: str | None = None) -> None:
        """Store bytes to be sent as a record whatever they are; the times are only sorted and filtered by."""
        known = self._pending.get(row_id, (self.listing.rows.get(row_id), None))[0]
        now = ticks.render(self.stamp())
        keys = {"id": row_id, CREATED: created or now, UPDATED: updated or now}
        self._write(Row(row_id, keys, known.writes + 1 if known else 0, raw))

    def behave(self, **changes: Any) -> Behaviour:
        """Change options of the behaviour; ValueError where one is unknown or of the wrong type."""
        self.behaviour = changed(self.behaviour, changes)
        if {"visible_fraction", "visible_ids"} & set(changes):
            self.listing.show(self._visible)
        return self.behaviour

    def fail(self, *faults: Fault) -> None:
        """Order faults for the requests to come."""
        self.faults.add(faults)

    def reveal(self, *, due_only: bool = False) -> int:
        """Let late rows appear, all or those whose time has come; returns how many."""
        if not self._pending:
            return 0
        now = time.monotonic()
        ready = [
            row_id for row_id, (_, due) in self._pending.items() if not due_only or (due is not None and due <= now)
        ]
        for row_id in ready:
            self.listing.put(self._pending.pop(row_id)[0])
        return len(ready)

    def current(self, row_id: str) -> Row:
        """Return the newest version of a row, shown yet or not; KeyError where there is none."""
        pending = self._pending.get(row_id)
        return pending[0] if pending else self.listing.rows[row_id]

    def found(self, row_id: str) -> Row | None:
        """Return the row that a request by id finds."""
        return self.listing.rows.get(row_id) if self._visible(row_id) else None

    def state(self, *, whole: bool = False) -> dict[str, Any]:
        """Return what the source holds, hidden by a lost role or not, without the late rows.

        `referrals` maps ids to `updatedDateTime`; `raw` and `pending` list the ids of raw rows and of late ones;
        `records`, with `whole`, maps ids to records (raw ones left out).
        """
        self.reveal(due_only=True)
        rows = self.listing.rows
        answer: dict[str, Any] = {
            "count": len(rows),
            "referrals": {row_id: row.record.get(UPDATED) for row_id, row in rows.items()},
            "raw": [row_id for row_id, row in rows.items() if row.raw is not None],
            "pending": list(self._pending),
        }
        if whole:
            answer["records"] = {row_id: full(row) for row_id, row in rows.items() if row.raw is None}
        return answer

    def reset(self, count: int, seed: int = 1, newest: datetime | None = None) -> None:
        """Replace all data by fresh referrals; faults and the log are cleared, behaviour and tokens stay."""
        records = make_referrals(count, seed, newest or datetime.now(UTC))
        self._pending.clear()
        self._made = 0
        self.rng = Random(0)
        self.faults.waiting.clear()
        self.requests.clear()
        self.listing = Listing(map(_row, records), self._visible)
        self._render()

    def _create(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._made += 1
        moment = self.stamp()
        if CREATED not in given and UPDATED in given:
            moment = min(moment, ticks.parse(given[UPDATED]) or moment)
        fresh = make_referral(self._made, moment)
        fresh[UPDATED] = given.get(CREATED, fresh[CREATED])
        return full(self._write(_row(_merged(fresh, given))))

    def _write(self, row: Row) -> Row:
        delay = self.behaviour.reveal_delay
        if delay == 0:
            self._pending.pop(row.id, None)
            self.listing.put(row)
        else:
            self._pending[row.id] = row, None if delay is None else time.monotonic() + delay
        return row

    def _visible(self, row_id: str) -> bool:
        wanted = self.behaviour.visible_ids
        if wanted is not None and row_id not in wanted:
            return False
        return crc32(row_id.encode()) < self.behaviour.visible_fraction * (1 << 32)

    def _render(self) -> None:
        """Render every record now rather than within the first listing."""
        for row in self.listing.rows.values():
            row.listed(etag=self.behaviour.list_etag, thin=self.behaviour.thin_list)


def _row(record: Mapping[str, Any], writes: int = 0) -> Row:
    return Row(str(record["id"]), dict(record), writes)


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the old members with the changes laid over them, objects member by member."""
    merged = dict(old)
    for name, value in changes.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return merged


def _take_away(record: dict[str, Any], path: list[str]) -> None:
    """Remove the member at a path, copying the objects on the way: they may be shared with an older version."""
    name, *rest = path
    if not rest:
        record.pop(name, None)
    elif isinstance(record.get(name), dict):
        record[name] = dict(record[name])
        _take_away(record[name], rest)
