"""Signing in by hand on a terminal, and what the commands say when the sign-in is no longer good."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest
from cryptography.fernet import Fernet

from tests.support.command import PIPE, SYSTEM, open_command, run_command
from tests.support.secure import Secure, browse, environment
from worker.demo.control import Control


@pytest.fixture
def variables(database_url: str, secure: Secure, service: Control, tmp_path: Path) -> dict[str, str]:
    del service  # reset for this test
    key_file = tmp_path / "keys"
    key_file.touch(mode=0o600)
    key_file.write_bytes(Fernet.generate_key())
    return SYSTEM | environment(database_url, secure, key_file, REFRESH_TOKEN="")


async def test_a_sign_in_by_browser_and_then_the_work(
    variables: dict[str, str], secure: Secure, service: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    before = run_command(variables, tmp_path, "sync")
    assert before.returncode == 3
    assert "referral-sync login --account contoso" in before.stderr
    unbuffered = variables | {"PYTHONUNBUFFERED": "1"}
    arguments = ("login", "--account", "contoso")
    with open_command(unbuffered, tmp_path, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE) as login:
        assert login.stdout is not None
        assert login.stdin is not None
        while not (line := login.stdout.readline().strip()).startswith("https://"):
            assert login.poll() is None, login.stderr and login.stderr.read()
        login.stdin.write(await browse(secure, line) + "\n")
        login.stdin.close()
        output = login.stdout.read()
        assert login.wait(timeout=30) == 0
    assert "contoso is signed in" in output
    assert run_command(variables, tmp_path, "sync").stdout.startswith("contoso: 30 inserted")
    status = run_command(variables, tmp_path, "status")
    assert re.search(r"sign-in +lapses in 90 days", status.stdout)
    assert await db.fetchval("SELECT count(*) FROM sync.tokens") == 1

    await service.tokens(revoke="all", revoke_refresh="all")
    refused = run_command(variables, tmp_path, "sync")
    assert refused.returncode == 3
    assert "AADSTS700082" in refused.stderr
    assert "Traceback" not in refused.stderr
    status = run_command(variables, tmp_path, "status")
    assert status.returncode == 1
    assert "action required" in status.stdout
    assert "refused" in status.stdout


def test_what_is_pasted_wrongly_is_said(variables: dict[str, str], tmp_path: Path) -> None:
    for pasted, message in (
        ("no address at all\n", "no authorization code"),
        ("http://localhost/?code=x&state=another\n", "did not begin here"),
        ("", "no authorization code"),
    ):
        ended = run_command(variables, tmp_path, "login", "--account", "contoso", typed=pasted)
        assert ended.returncode == 3
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr


async def test_a_sign_in_on_another_device(
    variables: dict[str, str], service: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await service.behaviour(client_secret="", device_polls=1)
    account = "REFERRAL_SYNC_ACCOUNTS__CONTOSO__"
    variables = {name: value for name, value in variables.items() if not name.startswith(f"{account}CLIENT_SECRET")}
    variables |= {f"{account}AUTH": "device_code"}
    login = run_command(variables, tmp_path, "login", "--account", "contoso")
    assert login.returncode == 0, login.stderr
    assert "enter the code SIMULATE" in login.stdout
    assert await db.fetchval("SELECT count(*) FROM sync.tokens WHERE sealed IS NOT NULL") == 1
    assert run_command(variables, tmp_path, "sync").returncode == 0


def test_other_sign_ins_need_no_login_and_a_key_is_needed(variables: dict[str, str], tmp_path: Path) -> None:
    without = {name: value for name, value in variables.items() if "KEY_FILE" not in name}
    ended = run_command(without, tmp_path, "status")
    assert ended.returncode == 2
    assert "security.key_file" in ended.stderr
    account = "REFERRAL_SYNC_ACCOUNTS__CONTOSO__"
    command = {name: value for name, value in variables.items() if not name.startswith(account)}
    command |= {f"{account}AUTH": "command", f"{account}COMMAND": '["true"]'}
    ended = run_command(command, tmp_path, "login", "--account", "contoso")
    assert ended.returncode == 2
    assert run_command(command, tmp_path, "login", "--account", "other").returncode == 2
