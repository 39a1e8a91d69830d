"""What acceptance tests share: the real command line in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.steps import MEASURED
from worker.demo.control import Control

ROOT = Path(__file__).parent.parent.parent
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(database_url: str, simulator: Control, simulator_origin: str, tmp_path: Path) -> dict[str, str]:
    """Give the variables of a worker with one account, from the simulator to the test's database."""
    del simulator  # reset for this test
    return MEASURED | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "REFERRAL_SYNC_DATABASE__URL": database_url,
        "REFERRAL_SYNC_API__BASE_URL": simulator_origin,
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "simulator",
        "REFERRAL_SYNC_HTTP__LISTEN": "127.0.0.1:0",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Command:
    """Run a command to its end; keyword arguments are further variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run
