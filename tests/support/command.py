"""The real command line in processes of their own: to its end, awaited, or beside the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path

from tests.support.steps import MEASURED

ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, "-m", "worker")
DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a command to its end; keyword arguments are further variables."""

SYSTEM = MEASURED | {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
"""The variables that every process of the worker needs here."""


def run_command(
    environment: dict[str, str], folder: Path, *arguments: str, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `typed` is its standard input."""
    return subprocess.run(
        [*WORKER, *arguments],
        cwd=folder, env=environment, input=typed, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def open_command(
    environment: dict[str, str],
    folder: Path,
    *arguments: str,
    stdin: int | None = None,
    stdout: int = DEVNULL,
    stderr: int | None = DEVNULL,
) -> subprocess.Popen[str]:
    """Start a command whose lines are read as they come; a context manager, which waits for its end."""
    return subprocess.Popen(
        [*WORKER, *arguments], cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, text=True
    )


async def start_command(
    environment: dict[str, str],
    folder: Path,
    *arguments: str,
    stdin: int | None = None,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
) -> Process:
    """Start a command and go on at once; its bytes can be awaited where they are piped."""
    return await asyncio.create_subprocess_exec(
        *WORKER, *arguments, cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr
    )
