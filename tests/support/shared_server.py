"""The embedded server as its users leave it: whether anything of it still runs."""

from __future__ import annotations

import fcntl
from pathlib import Path

from tests.support.conditions import wait_for


def is_free(lock: Path) -> bool:
    """Return whether a lock can be had, and let it go again."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def has_stopped(data_dir: Path) -> bool:
    """Return whether no process of a server is left: each of them holds the lock."""
    return is_free(data_dir / "lock")


def until_stopped(data_dir: Path) -> None:
    """Wait until no process of a server is left, where there was one."""
    if (data_dir / "lock").exists():
        wait_for(lambda: has_stopped(data_dir), "the server outlived its last user")


def postmaster(data_dir: Path) -> int:
    """Return the process of the server."""
    return int((data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
