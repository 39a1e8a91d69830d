"""What people are told survives kills, outages and floods: the daemon, real receivers, and counts of messages."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import Command
from tests.support.conditions import rows, until
from tests.support.daemon import Daemon, daemon
from tests.support.receiver import Receiver, receiver
from tests.support.referrals import incoming
from tests.support.steps import TALLY, crash
from worker.demo.control import Control
from worker.embedded import server as embedded
from worker.store import migrate

Condition = Callable[[], Awaitable[bool]]


@pytest.fixture
def taking(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


@pytest.fixture
def notifying(environment: dict[str, str], taking: Receiver) -> dict[str, str]:
    """Variables of a worker that tells a webhook and a mailbox."""
    return environment | {
        "REFERRAL_SYNC_NOTIFY__CHANNELS__HOOK__URL": taking.url,
        "REFERRAL_SYNC_NOTIFY__CHANNELS__MAIL__URL": taking.mail,
        "REFERRAL_SYNC_NOTIFY__CHANNELS__MAIL__EVENTS": "new,closed,stale",
    }


def arrived(taking: Receiver, number: int) -> Condition:
    """So many messages, repeats not counted."""

    async def reached() -> bool:
        return len({one["key"] for one in taking.messages() if one["status"] < 300}) >= number

    return reached


def told_of_all(db: asyncpg.Connection, number: int) -> Condition:
    """All new referrals are told to both channels."""

    async def reached() -> bool:
        sent = await db.fetchval(
            "SELECT count(*) FROM sync.deliveries d JOIN sync.messages m ON m.id = d.message_id AND m.state = 'sent'"
            " JOIN sync.events e ON e.id = d.event_id AND e.kind = 'new'"
        )
        return bool(sent == 2 * number)

    return reached


def ready(running: Daemon) -> Condition:
    async def answers() -> bool:
        return await running.status("/readyz") == 200

    return answers


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_killed_at_any_moment_nothing_is_lost_and_little_repeated(
    notifying: dict[str, str], simulator: Control, db: asyncpg.Connection, taking: Receiver, tmp_path: Path, rounds: int
) -> None:
    """Each kill may repeat one message of each channel, and each repeat carries the key of the first."""
    await simulator.reset(20)
    async with daemon(notifying, tmp_path):
        await until(arrived(taking, 2), "introduced")
    dice, kills, created = random.Random(1), 0, 0
    for _ in range(3 * rounds):
        async with daemon(notifying, tmp_path) as running:
            await until(ready(running), "ready")
            await simulator.create([incoming(12, name=f"Deal {created + number}") for number in range(3)])
            created += 3
            before = len(taking.messages())

            async def some(before: int = before) -> bool:
                return len(taking.messages()) > before + dice.randrange(4)

            await until(some, "some of them taken")
            os.kill(running.process.pid, signal.SIGKILL)
            running.process.wait()
            kills += 1
        # Whoever was killed holds its leases for a while, and its messages wait for their pause.
        await db.execute("UPDATE sync.leases SET expires_at = now()")
        await db.execute("UPDATE sync.messages SET next_at = now() WHERE state = 'waiting'")
        await db.execute("UPDATE sync.messages SET created_at = created_at - interval '11 minutes'")  # no burst
    async with daemon(notifying, tmp_path):
        # apprise sends a mail every five seconds at most
        await until(told_of_all(db, created), "everything sent", patience=90 + 10 * created)
    assert await db.fetchval("SELECT count(*) FROM sync.events WHERE kind = 'new'") == created
    for how in ("http", "smtp"):
        taken = Counter(one["key"] for one in taking.messages(how))
        repeats = sum(taken.values()) - len(taken)
        TALLY["messages taken"] += sum(taken.values())
        TALLY["messages repeated"] += repeats
        assert repeats <= kills, f"{repeats} repeats after {kills} kills"
        names = " ".join(one["text"] for one in taking.messages(how))
        assert [number for number in range(created) if f"Deal {number}" not in names] == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_flood_is_one_summary(
    notifying: dict[str, str],
    simulator: Control,
    db: asyncpg.Connection,
    taking: Receiver,
    tmp_path: Path,
    command: Command,
) -> None:
    """20,000 referrals are loaded, read again and restarted: one message to each channel."""
    await simulator.reset(20_000)
    await simulator.behaviour(page_size=1_000)
    async with daemon(notifying, tmp_path):
        await until(rows(db, 20_000), "loaded", patience=300)
        await until(arrived(taking, 2), "the summaries")
    assert command("sync", "--since", "2020-01-01").returncode == 0
    assert command("backfill", "--restart").returncode == 0
    async with daemon(notifying, tmp_path):
        await simulator.create([incoming(12, name="The one that is new")])
        await until(arrived(taking, 4), "told of the one")
    titles = Counter((one["how"], one["title"].partition(":")[0]) for one in taking.messages())
    assert titles == {
        ("http", "Referrals"): 1, ("smtp", "Referrals"): 1, ("http", "New referral"): 1, ("smtp", "New referral"): 1,
    }  # fmt: skip
    TALLY["messages of a flood"] += len(taking.messages())


@pytest.mark.long
async def test_a_dead_channel_holds_up_no_sync_and_no_other_channel(
    notifying: dict[str, str], simulator: Control, db: asyncpg.Connection, taking: Receiver, tmp_path: Path
) -> None:
    await simulator.reset(10)
    with receiver(folder_of(tmp_path, "dead")) as dead:
        await dead.behave(delay=600)
        variables = notifying | {"REFERRAL_SYNC_NOTIFY__CHANNELS__DEAD__URL": dead.url}
        async with daemon(variables, tmp_path) as running:
            await until(arrived(taking, 2), "the others introduced")
            await simulator.create([incoming(12)])
            await until(rows(db, 11), "followed")
            await until(arrived(taking, 4), "told to the others")
            assert await db.fetchval("SELECT sent FROM sync.channels WHERE channel = 'dead'") == 0
            assert await running.stop() == 0


@pytest.mark.long
async def test_an_outage_of_the_database_loses_nothing(
    notifying: dict[str, str], simulator: Control, taking: Receiver, tmp_path: Path, server_folder: Path
) -> None:
    """PostgreSQL is killed while messages are under way, and comes back."""
    await simulator.reset(10)
    folder = folder_of(server_folder, f"notify-{os.getpid()}")
    created = 5
    try:
        async with embedded.server(folder) as url:
            await migrate.upgrade(url)
            variables = notifying | {"REFERRAL_SYNC_DATABASE__URL": url}
            async with daemon(variables, tmp_path):
                await until(arrived(taking, 2), "introduced")
                await simulator.create([incoming(12, name=f"Deal {number}") for number in range(created)])
                await until(arrived(taking, 3), "one of them taken")
                await crash(folder)
        async with embedded.server(folder) as url:
            variables = notifying | {"REFERRAL_SYNC_DATABASE__URL": url}
            connection = await asyncpg.connect(url)
            await connection.execute("UPDATE sync.messages SET next_at = now() WHERE state = 'waiting'")
            await connection.execute("UPDATE sync.leases SET expires_at = now()")
            async with daemon(variables, tmp_path):
                await until(arrived(taking, 2 + 2 * created), "all of them told")
            await connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for how in ("http", "smtp"):
        taken = Counter(one["key"] for one in taking.messages(how))
        assert sum(taken.values()) - len(taken) <= 1
        names = " ".join(one["title"] for one in taking.messages(how))
        assert [number for number in range(created) if f"Deal {number}" not in names] == []


async def test_no_url_shows(notifying: dict[str, str], simulator: Control, command: Command, taking: Receiver) -> None:
    """Whatever a command prints, at debug level and with a channel that fails, no address of a channel is in it."""
    await simulator.reset(5)
    await taking.behave(status=500)
    variables = {name: value for name, value in notifying.items() if "NOTIFY" in name}
    variables["REFERRAL_SYNC_LOG__LEVEL"] = "debug"
    printed = ""
    for arguments in (
        ("sync",),
        ("config",),
        ("check",),
        ("notify", "test"),
        ("notify", "preview"),
        ("notify", "log"),
        ("status",),
    ):
        ended = command(*arguments, **variables)
        assert "Traceback" not in ended.stderr
        printed += ended.stdout + ended.stderr
    assert "Channel hook: the service answered HTTP 500." in printed
    assert "1 messages would be sent now" in printed
    for secret in ("very-secret-path", str(taking.http), f":{taking.smtp}"):
        assert secret not in printed


def folder_of(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made
