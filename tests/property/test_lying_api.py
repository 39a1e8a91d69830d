"""A lying API, a restless source and a worker stopped anywhere: the copy equals the source all the same.

Hypothesis plays any order of edits, faults, changes of what the server does, syncs, backfills, reconciles and stops.
Two things must hold: at no moment has the watermark passed a record that the source showed and that is neither stored
nor rejected; and after one good run and one reconcile the copy is the source, with an unbroken history.

The server also ends listings early: links that are missing, always or now and then, pages cut short, errors inside a
200; it holds records without a time, and versions that go back. While it does, a reconcile that verifies must be right;
it may refuse. Left out is a 200 that leaves out rows which no answer ever shows: no reader could notice that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import asyncpg
import stamina
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.databases import new_database
from tests.support.steps import TALLY, assert_chain, assert_same_as_source, backfill_all, reconcile_once, sync_once
from worker.auth.tokens import static_token
from worker.demo.behaviour import Behaviour
from worker.demo.control import Control
from worker.demo.simulator import TOKENS
from worker.errors import SyncError
from worker.model import instant
from worker.source.client import open_client
from worker.store import checkpoints
from worker.store.database import open_database
from worker.sync.pipeline import Pipeline

OPTION = st.sampled_from(("honour", "ignore", "reject"))
FIXED = st.fixed_dictionaries(
    {
        "order": st.sampled_from(("honour", "honour", "ignore", "reject")),
        "literal_rounding": st.sampled_from(("none", "second", "string")),
        "date_literal": st.sampled_from(("unquoted", "quoted", "both")),
        "thin_list": st.booleans(),
        "token_carries_query": st.booleans(),
    }
)


def provable(options: dict[str, Any]) -> dict[str, Any]:
    """A server that goes on behind a key, and lays equal times out anew for each page, hides rows without a trace."""
    if options.get("ties") == "random":
        return options | {"paging": "offset"}
    return options | ({"ties": "by_id"} if options.get("paging") == "keyset" else {})


HONEST = {"link_omitted": "never", "short_pages": False, "skip": True, "untimed": "first"}
"""What the server does again when everything has settled."""

CHANGING = st.fixed_dictionaries(
    {},
    optional={
        "page_size": st.integers(1, 9),
        "paging": st.sampled_from(("offset", "keyset")),
        "ties": st.sampled_from(("by_id", "random")),
        "link": st.sampled_from(("documented", "relative", "full")),
        "link_name": st.sampled_from(("@odata.nextLink", "@odata.nextlink", "odata.nextLink", "nextLink")),
        "link_omitted": st.sampled_from(("never", "always", "every_fifth")),
        "end_link": st.sampled_from(("absent", "null", "empty")),
        "short_pages": st.booleans(),
        "untimed": st.sampled_from(("first", "hidden")),
        "skip": st.booleans(),
        "filter_updated": OPTION,
        "filter_created": OPTION,
    },
).map(provable)
FAULT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            (
                "status",
                "truncate",
                "reset",
                "not_json",
                "empty",
                "duplicate_rows",
                "repeat_link",
                "garbage_link",
                "no_value",
                "no_link",
                "error_inside",
                "second_document",
                "html_behind",
            )
        ),
        "status": st.sampled_from((400, 401, 403, 404, 429, 500, 503)),
        "times": st.integers(1, 3),
        "skip": st.integers(0, 6),
    }
)
SOON = st.none() | st.floats(0.001, 0.12)
"""After how many seconds a run is stopped, wherever it is; None: it is let run."""


class LyingApi(RuleBasedStateMachine):
    """The world that Hypothesis plays with; its surroundings are set by `test_the_copy_is_the_source`."""

    postgres_url = ""
    template = ""
    origin = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.open = AsyncExitStack()
        self.hidden = set[str]()  # created, and not shown yet or shown below the watermark
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        url = await self.open.enter_async_context(new_database(self.postgres_url, self.template))
        self.control = await self.open.enter_async_context(Control(self.origin))
        await self.control.reset(0)
        await self.control.clear_faults()
        await self.control.behaviour(**asdict(Behaviour()))
        await self.control.tokens(add=TOKENS)
        database = await self.open.enter_async_context(open_database(url, connections=10))
        client = await self.open.enter_async_context(
            open_client(
                base_url=self.origin,
                token=static_token("simulator", "test"),
                clock=await database.clock(),
                ca_file=None,
                max_page_bytes=1 << 24,
            )
        )
        self.db = await asyncpg.connect(url)
        self.pipeline = Pipeline("contoso", database, client, timedelta(minutes=10), max_vanished_percent=100)

    def teardown(self) -> None:
        try:
            self.do(self._settle())
        finally:
            self.do(self._close())
            self.runner.close()

    async def _settle(self) -> None:
        """Let everything be shown, run once well, reconcile once, and compare; then again with an honest server."""
        await self.control.clear_faults()
        await self.control.reveal()
        try:
            await self._sync()
            result = await reconcile_once(self.pipeline)
        except SyncError as refusal:
            note(f"refused: {refusal}")
        else:
            note(f"verified: {not result.unverified} {result.unverified}")
            if not result.unverified:
                TALLY["verified while the server lied"] += 1
                await assert_same_as_source(self.db, self.control)
        await self.control.behaviour(**HONEST)
        await self._sync()
        try:
            assert not (await reconcile_once(self.pipeline)).unverified
        except SyncError as refusal:  # equal times laid out anew for each request: no two passes need to agree
            if "reconcile again at a quieter hour" not in refusal.hint:
                raise
            await self.control.behaviour(ties="by_id")
            assert not (await reconcile_once(self.pipeline)).unverified
        for row in await self.db.fetch("SELECT field, paging, evidence FROM sync.capabilities"):
            note(f"{row['field']} was read by {row['paging']}: {row['evidence']}")
        await assert_same_as_source(self.db, self.control)
        await assert_chain(self.db)
        before = await self.db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id")
        counts = await sync_once(self.pipeline)
        assert (counts.inserted, counts.updated) == (0, 0)
        assert await self.db.fetch("SELECT id, xmin::text FROM partner_center.referrals ORDER BY id") == before

    async def _close(self) -> None:
        await self.db.close()
        await self.open.aclose()

    async def _known(self) -> list[str]:
        return sorted((await self.control.state())["referrals"])

    # -- the source ------------------------------------------------------------------------------------------------

    @initialize(
        count=st.integers(0, 30),
        together=st.booleans(),
        fixed=FIXED,
        first=CHANGING,
        overlap=st.sampled_from((0, 600)),
    )
    def begin(self, count: int, together: bool, fixed: dict[str, Any], first: dict[str, Any], overlap: int) -> None:
        """Records created `together` lie in one window of a backfill, which then has many pages."""
        self.do(self.control.reset(count, seed=count))
        if together:
            self.do(self._create_together())
        self.do(self.control.behaviour(**fixed, **first))
        self.pipeline = Pipeline(
            "contoso",
            self.pipeline.database,
            self.pipeline.client,
            timedelta(seconds=overlap),
            max_vanished_percent=100,
        )

    async def _create_together(self) -> None:
        for second, key in enumerate((await self._known())[1:]):
            created = f"2026-06-01T00:00:{second:02}Z"
            await self.control.update(key, {"createdDateTime": created}, silent=True)

    @rule(count=st.integers(1, 12), tied=st.booleans())
    def create(self, count: int, tied: bool) -> None:
        async def work() -> None:
            made = await self.control.create([{} for _ in range(count)])
            if tied:
                for record in made:
                    await self.control.update(record["id"], {"updatedDateTime": made[-1]["updatedDateTime"]})

        self.do(work())

    @rule(pick=st.integers(0, 99), stage=st.integers())
    def update(self, pick: int, stage: int) -> None:
        async def work() -> None:
            if known := await self._known():
                await self.control.update(known[pick % len(known)], {"salesStage": str(stage)})

        self.do(work())

    @rule(pick=st.integers(0, 99), stage=st.integers())
    def edit_in_silence(self, pick: int, stage: int) -> None:
        async def work() -> None:
            if known := await self._known():
                await self.control.update(known[pick % len(known)], {"campaignId": str(stage)}, silent=True)

        self.do(work())

    @rule(pick=st.integers(0, 99))
    def delete(self, pick: int) -> None:
        async def work() -> None:
            if known := await self._known():
                await self.control.delete(known[pick % len(known)])

        self.do(work())

    @rule(pick=st.integers(0, 99), how=st.sampled_from((None, "", "soon", "0001-01-01T00:00:00Z")))
    def lose_its_creation(self, pick: int, how: str | None) -> None:
        async def work() -> None:
            if known := await self._known():
                await self.control.update(known[pick % len(known)], {"createdDateTime": how})

        self.do(work())

    @rule(
        pick=st.integers(0, 99),
        stage=st.integers(),
        when=st.sampled_from(("2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z")),
    )
    def date_it_otherwise(self, pick: int, stage: int, when: str) -> None:
        """An edit dated far ahead, a record restored from a backup."""

        async def work() -> None:
            if known := await self._known():
                key = known[pick % len(known)]
                self.hidden.add(key)
                await self.control.update(key, {"salesStage": f"back {stage}", "updatedDateTime": when})

        self.do(work())

    @rule(pick=st.integers(0, 99))
    def make_it_again(self, pick: int) -> None:
        """Deleted, and there again with an earlier time and other values."""

        async def work() -> None:
            if known := await self._known():
                key = known[pick % len(known)]
                self.hidden.add(key)
                await self.control.delete(key)
                await self.control.create([{"id": key, "updatedDateTime": "2021-01-01T00:00:00Z"}])

        self.do(work())

    @rule()
    def create_unseen(self) -> None:
        async def work() -> None:
            await self.control.behaviour(reveal_delay=None)
            self.hidden |= {record["id"] for record in await self.control.create([{}])}
            await self.control.behaviour(reveal_delay=0.0)

        self.do(work())

    @rule()
    def reveal(self) -> None:
        self.do(self.control.reveal())

    @rule(options=CHANGING)
    def behave(self, options: dict[str, Any]) -> None:
        self.do(self.control.behaviour(**options))

    @rule(fault=FAULT)
    def fail(self, fault: dict[str, Any]) -> None:
        TALLY["faults ordered"] += fault["times"]
        self.do(self.control.faults(fault))

    @rule()
    def calm(self) -> None:
        self.do(self.control.clear_faults())

    # -- the worker ------------------------------------------------------------------------------------------------

    async def _run(self, work: Coroutine[Any, Any, Any], stop_after: float | None) -> None:
        """Run to the end, to an error that a person could read, or to a stop."""
        task = asyncio.create_task(work)
        await asyncio.wait({task}, timeout=stop_after)
        TALLY["runs"] += 1
        if not task.done():
            TALLY["runs stopped somewhere"] += 1
            task.cancel()
        try:
            await task
        except (SyncError, asyncio.CancelledError):
            pass
        # A stop may come just when a lease was taken; it ends by itself, after a time that is not waited for here.
        await self.db.execute("UPDATE sync.leases SET expires_at = now()")

    async def _sync(self) -> None:
        loaded = await checkpoints.watermark(self.pipeline.database, "contoso") is not None
        await (sync_once(self.pipeline) if loaded else backfill_all(self.pipeline))

    @rule(stop_after=SOON)
    def sync(self, stop_after: float | None) -> None:
        self.do(self._run(self._sync(), stop_after))

    @rule(stop_after=SOON, days=st.none() | st.integers(0, 900))
    def backfill(self, stop_after: float | None, days: int | None) -> None:
        since = None if days is None else instant.shift(instant.parse("2026-11-01T00:00:00Z"), -timedelta(days=days))
        self.do(self._run(backfill_all(self.pipeline, since), stop_after))

    @rule(stop_after=SOON)
    def reconcile(self, stop_after: float | None) -> None:
        async def work() -> None:
            if await checkpoints.watermark(self.pipeline.database, "contoso") is not None:
                await reconcile_once(self.pipeline)

        self.do(self._run(work(), stop_after))

    @rule(stop_after=SOON, edits=st.integers(0, 5))
    def all_at_once(self, stop_after: float | None, edits: int) -> None:
        async def edit() -> None:
            for number in range(edits):
                if known := await self._known():
                    await self.control.update(known[number * 7 % len(known)], {"salesStage": f"edit {number}"})
                await self.control.create([{}])

        async def work() -> None:
            runs = (self._sync(), backfill_all(self.pipeline), edit())
            for outcome in await asyncio.gather(*runs, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, SyncError | asyncio.CancelledError):
                    raise outcome

        self.do(self._run(work(), stop_after))

    # -- what holds ------------------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "db"))
    @invariant()
    def the_watermark_passed_nothing(self) -> None:
        self.do(self._passed_nothing())

    async def _passed_nothing(self) -> None:
        watermark = await checkpoints.watermark(self.pipeline.database, "contoso")
        if watermark is None:
            return
        rows = await self.db.fetch("SELECT id, version FROM partner_center.referrals")
        rejected = await self.db.fetch("SELECT referral_id FROM sync.rejected_records")
        stored = {row["id"]: row["version"] for row in rows}
        for key, text in (await self.control.state())["referrals"].items():
            updated = instant.parse(text)
            if updated < watermark and key not in self.hidden and stored.get(key, -1) < updated:
                assert key in {row["referral_id"] for row in rejected}, f"{key} of {text} was passed"


def test_the_copy_is_the_source(postgres_url: str, template_database: str, simulator_origin: str, rounds: int) -> None:
    LyingApi.postgres_url, LyingApi.template, LyingApi.origin = postgres_url, template_database, simulator_origin
    with stamina.set_testing(True, attempts=3):  # as often as it takes to meet a fault again, without the waits
        run_state_machine_as_test(
            LyingApi,
            settings=settings(
                max_examples=12 * rounds,
                stateful_step_count=25,
                derandomize=rounds == 1,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
