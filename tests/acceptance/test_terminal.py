"""Whatever the source or the database has in it, no command's output steers a terminal or reads as another text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import Command
from worker.demo.control import Control

STEERING = "\x1b]0;owned\x07\x9b31m\u202eevil\u2066\u200f\x7f"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.timeout(300)  # a dozen processes
async def test_no_command_lets_a_stranger_steer_the_terminal(
    command: Command, simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(5)
    synced = command("sync")
    assert synced.returncode == 0
    known = min((await simulator.state())["referrals"])
    await simulator.create([{"id": STEERING, "name": STEERING, "status": STEERING}])
    await simulator.update(known, {"name": STEERING, "status": STEERING, STEERING: 1})
    await simulator.raw("broken", json.dumps({"id": f"b{STEERING}", "x": STEERING}).encode()[:-1] + b',"y":1e200000}')
    printed = dict[tuple[str, ...], str]()
    for words in (
        ("sync", "--dry-run"), ("reconcile", "--dry-run"), ("sync",), ("check",), ("explain", known), ("rejects",),
        ("refresh", known), ("reconcile",), ("status",), ("status", "--json"), ("config",), ("rejects", "--replay"),
    ):  # fmt: skip
        ended = command(*words, REFERRAL_SYNC_LOG__FORMAT="console", REFERRAL_SYNC_LOG__LEVEL="debug")
        assert FORBIDDEN.findall(ended.stdout + ended.stderr) == [], (words, ended.stdout, ended.stderr)
        printed[words] = ended.stdout
    shown = r"\x1b]0;owned\x07\x9b31m\u202eevil\u2066\u200f\x7f"
    for words in (("sync", "--dry-run"), ("reconcile", "--dry-run"), ("explain", known), ("rejects",)):
        assert shown in printed[words], words
    await db.execute("UPDATE sync.runs SET outcome = 'failed', error = $1", f"first\nsecond {STEERING}")
    for words in (("status",), ("status", "--json")):
        ended = command(*words)
        assert FORBIDDEN.findall(ended.stdout) == []
    assert rf"first\nsecond {shown}" in command("status").stdout
    document = json.loads(command("status", "--json").stdout)
    assert document["accounts"][0]["last_error"] == f"first\nsecond {STEERING}"
    await db.execute("UPDATE partner_center.referrals SET status = 'New', direction = 'Incoming', name = $1", STEERING)
    drawn = command("report", "--out", str(tmp_path / "report.html"))
    assert drawn.returncode == 0, drawn.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert FORBIDDEN.findall(page) == []


def test_what_was_typed_cannot_steer_it_either(command: Command) -> None:
    for words in (("sync", "--account"), ("sync", "--since"), ("refresh",), ("forget",), ("sync",), ("nonsense",)):
        ended = command(*words, STEERING)
        assert ended.returncode == 2
        assert FORBIDDEN.findall(ended.stdout + ended.stderr) == [], words
