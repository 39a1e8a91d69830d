"""`python -m tests.support.recorder`: record what this worker sends, before a new revision is added.

Writes `tests/integration/writers/REVISION.json` for the newest revision that there is. The next one then has an earlier
worker to be upgraded under (`test_upgrade.py`).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import asyncpg
from asyncpg.connection import LoggedQuery

from tests.support.pages import page, referral
from tests.support.runs import leased
from tests.support.steps import ACCOUNT
from worker.embedded import server as embedded
from worker.model.counts import WatermarkCheckpoint
from worker.model.mapping import map_pages
from worker.store import migrate
from worker.store.database import Database, open_database
from worker.store.save import mark_deleted, save

WRITERS = Path(__file__).parents[1] / "integration" / "writers"
TURNS = 12
COPY = "COPY"
"""How a call begins that copies rows: its arguments are schema, table, columns, and rows in its text form."""


class Recorder:
    """Statements by number, and the calls of them."""

    def __init__(self) -> None:
        self.statements: dict[str, int] = {}
        self.calls: list[Any] = []

    def note(self, query: LoggedQuery) -> None:
        """Take in a statement with its arguments."""
        self.add(query.query, query.args or ())

    def add(self, statement: str, arguments: Any) -> None:
        """Take in a call."""
        number = self.statements.setdefault(statement, len(self.statements))
        self.calls.append([number, [_json(one) for one in arguments]])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear every connection that is opened, and what it copies, which is no statement to its loggers.

        `copy_to_table` is what `store/write.py` calls; a copy by another method would go unseen.
        """
        copy, initialise = asyncpg.Connection.copy_to_table, asyncpg.Connection.__init__

        def opened(connection: asyncpg.Connection, *arguments: Any, **named: Any) -> None:
            initialise(connection, *arguments, **named)
            connection.add_query_logger(self.note)

        async def copied(connection: asyncpg.Connection, table: str, **named: Any) -> str:
            sent = [piece async for piece in named.pop("source")]
            outcome = await copy(connection, table, source=_pieces(sent), **named)
            call = (named.get("schema_name"), table, list(named["columns"]), b"".join(sent).decode())
            asyncio.get_running_loop().call_soon(self.add, COPY, call)  # as its loggers are called
            return outcome

        with (
            mock.patch.object(asyncpg.Connection, "__init__", opened),
            mock.patch.object(asyncpg.Connection, "copy_to_table", copied),
        ):
            yield


async def _pieces(sent: list[bytes]) -> AsyncIterator[bytes]:
    for piece in sent:
        yield piece


def _json(value: Any) -> Any:
    match value:
        case datetime():
            return {"time": value.isoformat()}
        case timedelta():
            return {"seconds": value.total_seconds()}
        case bytes():
            return {"bytes": value.hex()}
        case UUID():
            return {"uuid": str(value)}
        case list() | tuple():
            return [_json(one) for one in value]
        case None | bool() | int() | float() | str():
            return value
    return {"number": str(value)}


def _detailed(number: int, turn: int = 0) -> dict[str, Any]:
    return referral(
        number, turn, status="Active" if turn else "New", details={"dealValue": 100 + turn},
        team=[{"email": "seller@example.com"}],
    )  # fmt: skip


async def work(database: Database, recorder: Recorder) -> tuple[list[Any], list[Any]]:
    """Do a first page, then syncs with changes, new referrals, rejected records and one deleted referral."""
    first: list[Any] = []
    for turn in range(TURNS + 1):
        trees = [_detailed(number) for number in range(TURNS)]
        if turn:
            closed = {"status": "Closed", "substatus": "Won"} if turn == TURNS else {}
            trees = [_detailed(turn % TURNS, turn) | closed, _detailed(100 + turn, turn)]
        odd = [{"id": f"odd{turn}", "updatedDateTime": "soon"}] if turn % 4 == 3 else []
        mapped = map_pages([page(*trees, *odd, seconds=turn)])
        async with leased(database, ACCOUNT, "incremental") as run:
            newest = max(row.version for row in mapped.rows)
            await save(database, run, mapped, pages=1, checkpoints=[WatermarkCheckpoint(newest)])
            if turn == TURNS:
                await mark_deleted(database, run, ["r0"])
        await asyncio.sleep(0)  # lets the loggers hear the last of it
        if not turn:
            first, recorder.calls = recorder.calls, []
    return first, recorder.calls


async def main() -> None:
    """Record the newest revision's worker."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        async with embedded.server(Path(folder)) as url:
            await migrate.upgrade(url)
            with recorder.listening():
                async with open_database(url, connections=2, owner="former:1:00000000") as database:
                    first, then = await work(database, recorder)
    recording = {"statements": list(recorder.statements), "first": first, "then": then}
    text = ",\n".join(
        f'"{key}": [\n' + ",\n".join(json.dumps(one) for one in lines) + "\n]" for key, lines in recording.items()
    )
    (WRITERS / f"{migrate.newest()}.json").write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
