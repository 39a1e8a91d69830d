"""Signing in by hand on a terminal, and what the commands say when the sign-in is no longer good."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from cryptography.fernet import Fernet

from tests.secure import SECRET, Secure, environment, secure_simulator
from tests.steps import MEASURED
from worker.demo.behaviour import Behaviour
from worker.demo.control import Control

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with secure_simulator(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
async def service(secure: Secure) -> AsyncIterator[Control]:
    async with secure.control() as control:
        await control.reset(30)
        await control.behaviour(**asdict(Behaviour(client_secret=SECRET)))
        await control.tokens(revoke="all", revoke_refresh="all")
        yield control


@pytest.fixture
def variables(database_url: str, secure: Secure, service: Control, tmp_path: Path) -> dict[str, str]:
    del service  # reset for this test
    key_file = tmp_path / "keys"
    key_file.touch(mode=0o600)
    key_file.write_bytes(Fernet.generate_key())
    given = environment(database_url, secure, key_file, REFRESH_TOKEN="")
    return given | MEASURED | {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def run(variables: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False)


async def browse(secure: Secure, address: str) -> str:
    """Do what the browser of a person does who is signed in already; return where it ends."""
    tls = ssl.create_default_context(cafile=str(secure.ca_file))
    async with aiohttp.ClientSession() as session, session.get(address, ssl=tls, allow_redirects=False) as answer:
        return answer.headers["Location"]


async def test_a_sign_in_by_browser_and_then_the_work(
    variables: dict[str, str], secure: Secure, service: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    before = run(variables, tmp_path, "sync")
    assert before.returncode == 3
    assert "referral-sync login --account contoso" in before.stderr
    command = [sys.executable, "-m", "worker", "login", "--account", "contoso"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=variables | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as login:
        assert login.stdout is not None
        assert login.stdin is not None
        while not (line := login.stdout.readline().strip()).startswith("https://"):
            assert login.poll() is None, login.stderr and login.stderr.read()
        login.stdin.write(await browse(secure, line) + "\n")
        login.stdin.close()
        told = login.stdout.read()
        assert login.wait(timeout=30) == 0
    assert "contoso is signed in" in told
    assert run(variables, tmp_path, "sync").stdout.startswith("contoso: 30 inserted")
    status = run(variables, tmp_path, "status")
    assert re.search(r"sign-in +lapses in 90 days", status.stdout)
    assert await db.fetchval("SELECT count(*) FROM sync.tokens") == 1

    await service.tokens(revoke="all", revoke_refresh="all")
    refused = run(variables, tmp_path, "sync")
    assert refused.returncode == 3
    assert "AADSTS700082" in refused.stderr
    assert "Traceback" not in refused.stderr
    status = run(variables, tmp_path, "status")
    assert status.returncode == 1
    assert "action required" in status.stdout
    assert "refused" in status.stdout


def test_what_is_pasted_wrongly_is_said(variables: dict[str, str], tmp_path: Path) -> None:
    for pasted, told in (
        ("no address at all\n", "no authorization code"),
        ("http://localhost/?code=x&state=another\n", "did not begin here"),
        ("", "no authorization code"),
    ):
        command = [sys.executable, "-m", "worker", "login", "--account", "contoso"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=variables, input=pasted, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 3
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr


async def test_a_sign_in_on_another_device(
    variables: dict[str, str], service: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await service.behaviour(client_secret="", device_polls=1)
    account = "REFERRAL_SYNC_ACCOUNTS__CONTOSO__"
    variables = {name: value for name, value in variables.items() if not name.startswith(f"{account}CLIENT_SECRET")}
    variables |= {f"{account}AUTH": "device_code"}
    login = run(variables, tmp_path, "login", "--account", "contoso")
    assert login.returncode == 0, login.stderr
    assert "enter the code SIMULATE" in login.stdout
    assert await db.fetchval("SELECT count(*) FROM sync.tokens WHERE sealed IS NOT NULL") == 1
    assert run(variables, tmp_path, "sync").returncode == 0


def test_other_sign_ins_need_no_login_and_a_key_is_needed(variables: dict[str, str], tmp_path: Path) -> None:
    without = {name: value for name, value in variables.items() if "KEY_FILE" not in name}
    ended = run(without, tmp_path, "status")
    assert ended.returncode == 2
    assert "security.key_file" in ended.stderr
    account = "REFERRAL_SYNC_ACCOUNTS__CONTOSO__"
    command = {name: value for name, value in variables.items() if not name.startswith(account)}
    command |= {f"{account}AUTH": "command", f"{account}COMMAND": '["true"]'}
    ended = run(command, tmp_path, "login", "--account", "contoso")
    assert ended.returncode == 2
    assert run(command, tmp_path, "login", "--account", "other").returncode == 2
