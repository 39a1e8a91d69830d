"""Commands that look at one thing and fix it: explain, rejects, forget, account remove, and the doctor's questions."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal

import asyncpg
import pytest

from tests.support.command import Command
from tests.support.runs import leased
from worker.demo.control import Control
from worker.model.codec import encode
from worker.source.client import ATTEMPTS
from worker.store.database import open_database

UNKNOWNS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
NOBODY = "00000000-0000-0000-0000-000000000000"


async def one(simulator: Control) -> str:
    keys: list[str] = sorted((await simulator.state())["referrals"])
    return keys[0]


async def test_explain_tells_all_of_one_referral(command: Command, simulator: Control) -> None:
    await simulator.reset(20)
    key = await one(simulator)
    command("sync")
    await simulator.update(key, {"status": "Closed", "substatus": "Won", "name": "\x1b[31mred\x1b[0m"})
    behind = command("explain", key)
    assert behind.returncode == 0, behind.stderr
    assert f"referral-sync refresh {key}" in behind.stdout
    command("sync")
    level = command("explain", key)
    assert "the same as in the copy" in level.stdout
    assert "first" in level.stdout
    assert "changed: " in level.stdout
    assert "run " in level.stdout
    assert "\x1b" not in level.stdout, "what strangers wrote cannot steer a terminal"
    assert "\\x1b[31mred" in level.stdout
    await simulator.delete(key)
    assert "not shown, but in the copy" in command("explain", key).stdout
    command("reconcile")
    assert "not shown, nor in the copy" in command("explain", key).stdout
    unknown = command("explain", NOBODY)
    assert unknown.returncode == 1
    assert "knows nothing" in unknown.stdout


async def test_explain_without_the_api(command: Command, simulator: Control) -> None:
    await simulator.reset(20)
    command("sync")
    result = command("explain", await one(simulator), REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN="expired")
    assert result.returncode == 0
    assert "at the source: cannot be said" in result.stdout
    assert "expired" not in result.stdout.replace("has expired", "")


async def test_rejected_records_are_listed_without_their_contents_and_replayed(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(20)
    key = await one(simulator)
    record = (await simulator.state(full=True))["records"][key]
    await simulator.raw(key, encode(record | {"notes": "very private", "anything": Decimal("1e200000")}))
    synced = command("sync")
    assert synced.returncode == 0, "rejects alone are no failure"
    assert "1 rejected" in synced.stdout
    listed = command("rejects")
    assert listed.returncode == 0
    assert key in listed.stdout
    assert "refused by PostgreSQL" in listed.stdout
    assert "private" not in listed.stdout
    assert "1 open" in command("status").stdout
    replayed = command("rejects", "--replay")
    assert "0 inserted, 0 updated, 0 unchanged, 1 rejected" in replayed.stdout
    assert "tried 2 times" in replayed.stdout
    await simulator.delete(key)
    await simulator.create([{"id": key}])
    command("sync")
    assert "0 open" in command("rejects").stdout


async def test_forget_leaves_nothing(command: Command, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(20)
    key = await one(simulator)
    command("sync")
    await simulator.update(key, {"status": "Closed"})
    command("sync")
    later = {"id": key, "updatedDateTime": "2999-01-01T00:00:00Z", "anything": Decimal("1e200000")}
    await simulator.raw(key, encode(later))
    await simulator.raw("broken", b'{"id": 7, "note": "about ' + key.encode() + b'"}')
    command("sync")
    assert await db.fetchval("SELECT count(*) FROM sync.rejected_records") == 2
    await simulator.delete(key)
    assert command("explain", "{" + key.upper() + "}").returncode == 0, "a GUID is one whatever its case"
    for nobody in ("", "  ", "e" * 300, "e\x1b"):
        assert command("forget", nobody).returncode == 2
    assert command("forget", "e").returncode == 1
    assert await db.fetchval("SELECT count(*) FROM sync.rejected_records") == 2, "records that merely have an e in them"
    result = command("forget", f" {key.upper()} ")
    assert result.returncode == 0
    for table, column in (
        ("partner_center.referrals", "id"),
        ("partner_center.referral_history", "referral_id"),
    ):
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = $1", key) == 0  # noqa: S608
    orphans = "SELECT count(*) FROM partner_center.referral_team_members WHERE referral_key NOT IN ({})"
    assert await db.fetchval(orphans.format("SELECT referral_key FROM partner_center.referrals")) == 0
    nameless = await db.fetchval("SELECT key FROM sync.rejected_records")
    assert nameless is not None, "that its text names another referral is no reason to erase it"
    assert command("forget", nameless).returncode == 0
    assert await db.fetchval("SELECT count(*) FROM sync.rejected_records") == 0
    again = command("forget", key)
    assert again.returncode == 1
    assert "nothing is stored" in again.stdout


async def test_an_account_that_is_not_configured_is_named_and_can_be_removed(
    command: Command, simulator: Control, db: asyncpg.Connection, environment: dict[str, str]
) -> None:
    await simulator.reset(20)
    command("sync")
    renamed = {key.replace("CONTOSO", "FABRIKAM"): value for key, value in environment.items() if "ACCOUNTS" in key}
    for key in [key for key in environment if "CONTOSO" in key]:
        del environment[key]
    command("sync", **renamed)
    result = command("status", **renamed)
    assert "account remove contoso" in result.stdout
    removed = command("account", "remove", "contoso", **renamed)
    assert removed.returncode == 0, removed.stderr
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE account = 'contoso'") == 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE account = 'fabrikam'") == 20
    assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE account = 'contoso'") == 0
    assert "contoso" not in command("status", **renamed).stdout
    assert command("account", "remove", "contoso", **renamed).returncode == 1


@pytest.mark.long
async def test_an_account_at_work_is_not_removed(
    command: Command, simulator: Control, database_url: str, db: asyncpg.Connection
) -> None:
    await simulator.reset(5)
    command("sync")
    async with open_database(database_url, connections=2) as database, leased(database, "contoso", "reconcile"):
        result = await asyncio.to_thread(command, "account", "remove", "contoso")
    assert result.returncode == 1
    assert database.owner in result.stderr
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals") == 5


@pytest.mark.parametrize("count", [0, 300])
async def test_the_doctor_answers_every_unknown(count: int, command: Command, simulator: Control) -> None:
    await simulator.reset(count)
    result = command("check")
    assert result.returncode == 0, result.stdout
    numbers = [int(one) for one in re.findall(r"contoso: \((\d+)\) ", result.stdout)]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(UNKNOWNS)
    assert result.stdout.count("In force: ") >= len(UNKNOWNS) - 1


@pytest.mark.parametrize(("status", "times", "code"), [(403, 1, 3), (500, ATTEMPTS, 1)])
async def test_what_fails_late_is_said_of_its_account_and_the_others_are_looked_at(
    status: int, times: int, code: int, command: Command, simulator: Control
) -> None:
    """The first account signs in and sees a page; then the API refuses to sort, or is broken for as long as it asks."""
    await simulator.reset(30)
    await simulator.faults({"kind": "status", "status": status, "times": times, "path": "orderby"})
    result = command(
        "check",
        REFERRAL_SYNC_ACCOUNTS__ADATUM__AUTH="static_token",
        REFERRAL_SYNC_ACCOUNTS__ADATUM__ACCESS_TOKEN="simulator",
    )
    assert result.returncode == code, result.stdout
    assert "ok    adatum: sign-in and API" in result.stdout
    assert "FAIL  adatum: what the API does" in result.stdout
    assert result.stdout.count("FAIL") == 1
    assert "ok    database" in result.stdout
    assert "ok    contoso: (1) filter on updatedDateTime" in result.stdout


async def test_the_doctor_sees_what_the_server_does(command: Command, simulator: Control) -> None:
    await simulator.reset(300)
    await simulator.behaviour(thin_list=True, filter_updated="reject", count="total", link="relative")
    output = command("check").stdout
    assert "changed records are fetched by id" in output
    assert "(1) filter on updatedDateTime: updatedDateTime ge" in output
    assert "read by scan" in output
    assert "300, with 100 rows on the page" in output
    assert "relative" in output
