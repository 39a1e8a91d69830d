"""Backup and restore as the runbook says: its own commands, against a real server, with the source moving meanwhile."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.command import Command
from tests.support.steps import assert_chain, assert_same_as_source
from worker.demo.control import Control
from worker.embedded import cluster

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent


def documented() -> list[str]:
    """The commands of the runbook's section, in their order."""
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = runbook.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def in_the_database(line: str, url: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run what the runbook runs beside the database: same options, with this server's user and database."""
    parts = urlsplit(url)
    name = parts.path[1:]
    words = shlex.split(line.removeprefix("docker compose exec -T db "))
    with ExitStack() as files:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        if words[-2] in ("<", ">"):
            *words, sign, file = words
            stream, mode = ("stdin", "rb") if sign == "<" else ("stdout", "wb")
            streams[stream] = files.enter_context((folder / file).open(mode))
        own = {"--username=referral_sync": f"--username={parts.username}", "--dbname=referrals": f"--dbname={name}"}
        environ = {"PATH": os.environ["PATH"], "PGPASSWORD": parts.password or ""}
        environ |= {"PGHOST": str(parts.hostname), "PGPORT": str(parts.port)}
        return subprocess.run(
            [
                cluster.find_binaries(None) / words[0],
                *(own.get(word, name if word == "referrals" else word) for word in words[1:]),
            ],
            env=environ, **streams, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip


async def test_a_dump_is_all_of_the_copy(
    command: Command, simulator: Control, database_url: str, tmp_path: Path
) -> None:
    await simulator.reset(60)
    assert command("backfill").returncode == 0
    first, second, third = list((await simulator.state())["referrals"])[:3]
    await simulator.update(first, {"name": "before the dump"})
    assert command("sync").returncode == 0
    before = await _rows(database_url)
    dump, *restore = documented()
    output = in_the_database(dump, database_url, tmp_path)
    assert output.returncode == 0, output.stderr
    await simulator.update(second, {"name": "after the dump"})
    await simulator.create([{}])
    await simulator.delete(third)
    assert command("sync").returncode == 0

    restored = False
    for line in restore:
        if line.startswith("docker compose exec -T db "):
            output = in_the_database(line, database_url, tmp_path)
            assert output.returncode == 0, f"{line}: {output.stderr.decode()}"
        elif line.startswith("docker compose run --rm worker "):
            if not restored:
                assert await _rows(database_url) == before
                restored = True
            ended = command(*shlex.split(line.removeprefix("docker compose run --rm worker ")))
            assert ended.returncode == 0, ended.stderr
        else:
            assert line in ("docker compose stop worker", "docker compose start worker")
    assert restored
    db = await asyncpg.connect(database_url)
    try:
        await assert_same_as_source(db, simulator)
        await assert_chain(db)
        assert await db.fetchval("SELECT has_table_privilege('bi_reader', 'bi.referrals', 'SELECT')")
    finally:
        await db.close()


async def _rows(url: str) -> list[asyncpg.Record]:
    db = await asyncpg.connect(url)
    try:
        return list(
            await db.fetch(
                "SELECT r.*, (SELECT count(*) FROM partner_center.referral_history), (SELECT count(*) FROM sync.runs)"
                " FROM partner_center.referrals AS r ORDER BY id"
            )
        )
    finally:
        await db.close()
