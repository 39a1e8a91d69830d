"""A copy called verified is the source: `backfill`, `sync` and `reconcile` against what public trackers report of APIs.

Each prints how many rows the source has, how many the copy, and what `status` said of it.
"""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from tests.support.command import Command
from tests.support.steps import assert_chain, assert_same_as_source
from worker.demo.control import Control

OLD = "2020-01-01T00:00:00.0000000Z"
PAGE = r"^/v1\.0/engagements/referrals\?"


async def brought_over(command: Command, simulator: Control, db: asyncpg.Connection) -> dict[str, Any]:
    """Load, sync and reconcile; returns what `status` says."""
    for name in ("backfill", "sync", "reconcile"):
        result = command(name)
        assert result.returncode == 0, result.stderr
    (account,) = json.loads(command("status", "--json").stdout)["accounts"]
    source = len((await simulator.state())["referrals"])
    copy = await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NULL")
    print(f"source {source}, copy {copy}, verified by {account['verified_by']}, not: {account['not_verified']}")  # noqa: T201
    assert account["verified_through"] is not None
    await assert_same_as_source(db, simulator)
    await assert_chain(db)
    return dict(account)


@pytest.mark.parametrize(
    ("count", "behaviour"),
    [
        (350, {"link_omitted": "always"}),
        (350, {"link_name": "@odata.nextlink"}),
        (350, {"link_name": "nextLink"}),
        (350, {"end_link": "empty"}),
        (350, {"end_link": "null"}),
        (2500, {"link_omitted": "every_fifth"}),
        (600, {"short_pages": True}),
    ],
    ids=str,
)
async def test_that_no_link_came_is_not_taken_for_the_end(
    count: int, behaviour: dict[str, Any], command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(count)
    await simulator.behaviour(page_size=100, **behaviour)
    await brought_over(command, simulator, db)


async def test_a_listing_without_links_or_filters_is_never_called_verified(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    """Nothing can be asked a second way: what was shown is stored, and said to be no more than that."""
    await simulator.reset(80)
    await simulator.behaviour(order="ignore", skip=False, filter_updated="reject", filter_created="reject")
    assert command("backfill").returncode == 0
    result = command("reconcile")
    assert result.returncode == 0, result.stderr
    assert "Not verified" in result.stdout
    (account,) = json.loads(command("status", "--json").stdout)["accounts"]
    assert account["verified_through"] is None
    assert "one query only" in account["not_verified"]
    await simulator.behaviour(link_omitted="always", page_size=30)
    assert command("reconcile").returncode == 1, "a listing that is cut off is a failure"
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL") == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["error_inside", "second_document", "html_behind"])
async def test_an_error_inside_a_200_is_retried(
    kind: str, command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(1200)
    await simulator.faults(*({"kind": kind, "path": PAGE, "skip": 11 if n == 0 else 2} for n in range(4)))
    await brought_over(command, simulator, db)


@pytest.mark.parametrize("untimed", ["first", "hidden"])
async def test_records_without_a_creation_time_are_loaded_and_verified(
    untimed: str, command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(300)
    await simulator.behaviour(untimed=untimed)
    keys = sorted((await simulator.state())["referrals"])
    for key, value in zip(keys[:3], (None, "", "soon"), strict=True):
        await simulator.update(key, {"createdDateTime": value, "updatedDateTime": OLD})
    await brought_over(command, simulator, db)
    assert command("reconcile", "--dry-run").stdout.count(" 0 would change") == 1, "nothing is left to say"
    await simulator.delete(keys[0])
    assert "1 deleted at the source" in command("reconcile").stdout


async def test_a_first_backfill_passes_no_record_that_an_ordered_listing_hides(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(300)
    await simulator.behaviour(untimed="hidden")
    hidden = min((await simulator.state())["referrals"])
    await simulator.update(hidden, {"createdDateTime": None})
    await simulator.update(max((await simulator.state())["referrals"]), {"salesStage": "newer"})
    assert command("backfill").returncode == 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE id = $1", hidden) == 1


async def test_a_version_that_goes_back_is_taken_by_the_reconcile(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    """An edit dated far ahead and corrected, records restored from a backup, a row made again with an earlier time."""
    await simulator.reset(60)
    keys = sorted((await simulator.state())["referrals"])
    before = (await simulator.state(full=True))["records"]
    command("backfill")
    await simulator.update(keys[0], {"salesStage": "ahead", "updatedDateTime": "2099-01-01T00:00:00Z"})
    for key in keys[1:11]:
        await simulator.update(key, {"salesStage": "edited"})
    await simulator.delete(keys[11])
    command("sync")
    assert "1 deleted at the source" in command("reconcile").stdout
    await simulator.update(keys[0], {"salesStage": "corrected"})
    for key in keys[1:11]:
        await simulator.delete(key)
        await simulator.create([before[key]])
    await simulator.create([{"id": keys[11], "updatedDateTime": OLD, "salesStage": "again"}])
    assert command("sync").returncode == 0
    assert "older than the copy" in command("explain", keys[1]).stdout
    foretold = [line for line in command("reconcile", "--dry-run").stdout.splitlines() if line.startswith("update")]
    stale = {keys.index(line.split()[1]) for line in foretold}
    assert stale - {11} == set(range(11)), "the one that was marked as deleted may have come back with the sync"
    account = await brought_over(command, simulator, db)
    assert account["health"] == "ok"
    assert await db.fetchval("SELECT drift FROM sync.status") == len(stale), "dry run and reconcile agree"
    assert "the same as in the copy" in command("explain", keys[1]).stdout


async def test_one_raw_control_character_costs_nothing(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(50)
    key = "00000000-0000-0000-0000-000000000001"
    await simulator.raw(key, b'{"id":"%s","details":{"notes":"one\ttab"}}' % key.encode())
    result = command("sync")
    assert "51 inserted" in result.stdout, result.stderr
    row = await db.fetchrow("SELECT notes, repaired FROM partner_center.referrals WHERE id = $1", key)
    assert row is not None
    assert tuple(row) == ("one\ttab", True)
