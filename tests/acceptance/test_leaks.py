"""Everything at debug level, with good answers and bad ones: no secret and nobody's data in any output."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from tests.support.command import SYSTEM, run_command
from tests.support.conditions import until
from tests.support.daemon import daemon
from tests.support.referrals import personal
from tests.support.secure import SECRET, Secure, environment
from worker.demo.control import Control

COMMANDS = (
    ("migrate",), ("check",), ("sync",), ("reconcile",), ("rejects", "--replay"), ("status",), ("config",),
    ("refresh", "ID"), ("report", "--out", "report.html"),
)  # fmt: skip
FAULTS = (
    {"kind": "not_json"},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "redirect"},
)


@pytest.mark.long
async def test_nothing_leaks(database_url: str, secure: Secure, service: Control, tmp_path: Path) -> None:
    key, http_token, configured = Fernet.generate_key().decode(), secrets.token_hex(16), secrets.token_hex(16)
    (tmp_path / "keys").touch(mode=0o600)
    (tmp_path / "keys").write_text(key)
    await service.reset(60)
    await service.tokens(add_refresh=[configured])
    variables = (
        SYSTEM
        | environment(database_url, secure, tmp_path / "keys", REFRESH_TOKEN=configured)
        | {
            "REFERRAL_SYNC_LOG__LEVEL": "debug",
            "REFERRAL_SYNC_HTTP__TOKEN": http_token,
        }
    )
    await service.raw(
        "bad", json.dumps({"id": "bad", "isSpam": "?", "details": {"notes": "very secret words"}}).encode()
    )
    records = (await service.state(full=True))["records"]
    known = min(records)
    output = ""
    for arguments in COMMANDS:
        output += run(variables, tmp_path, *(known if word == "ID" else word for word in arguments))
    for fault in FAULTS:
        await service.faults({"times": 2} | fault)
        output += run(variables, tmp_path, "sync")
        await service.clear_faults()
    await service.faults({"kind": "not_json", "path": "oauth2/v2.0/token", "times": -1})
    output += run(variables, tmp_path, "sync")
    await service.clear_faults()
    async with daemon(variables, tmp_path) as running:

        async def synced() -> bool:
            return bool(running.events("run_finished"))

        await until(synced, "a sync")
        assert await running.stop() == 0
        output += running.output()
    assert '"request"' in output or "request " in output, "it was at debug level"
    assert "token_redeemed" in output

    issued = await access_tokens(service)
    assert len(issued) > 5
    password = urlsplit(database_url).password
    assert password
    for secret in (SECRET, key, http_token, configured, password, *issued):
        assert secret not in output
    people = personal({name: record for name, record in records.items() if isinstance(record, dict)})
    assert len(people) > 30
    assert [one for one in people | {"very secret words"} if one in output] == []


async def access_tokens(service: Control) -> list[str]:
    tokens: dict[str, Any] = await service.tokens()
    return [*tokens["access"], *tokens["refresh"]]


def run(variables: dict[str, str], folder: Path, *arguments: str) -> str:
    ended = run_command(variables, folder, *arguments)
    assert "Traceback" not in ended.stdout + ended.stderr, arguments
    return ended.stdout + ended.stderr
