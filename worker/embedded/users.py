"""Who uses an embedded server: locks that processes hold, and that end with their processes, however those end.

::

    users        shared: each process that uses the server; alone: the supervisor, while it ends the server
    starting     the process that starts the server, or looks whether it runs: one after another
    lock         each process of the server itself, so that whoever gets it knows that none is left
    supervised   the supervisor
    linger       no lock: its time says when somebody last asked for the address, to connect in a moment
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from worker.embedded import cluster
from worker.embedded.cluster import Home
from worker.errors import StoreError, StoreUnavailable

HANDOVER_SECONDS = 15.0
"""For a server that is ending; it has five to do so in order."""
STARTING_SECONDS = 660.0
"""For another process that starts the server, which may have to replay its log."""
STOP_SECONDS = 6.0
"""A little more than the supervisor gives the server."""

_POLL_SECONDS = 0.02


async def use(home: Home) -> BinaryIO:
    """Become a user: the server does not end before `leave`, or the end of this process. Waits for one that ends."""
    place = home.open("users")
    try:
        await _wait_for(lambda: locked(place, fcntl.LOCK_SH), HANDOVER_SECONDS, _still_ending(home))
    except BaseException:
        place.close()
        raise
    return place


@asynccontextmanager
async def turn(home: Home) -> AsyncIterator[None]:
    """Be the only one that starts the server or looks whether it runs."""
    with home.open("starting") as file:
        error = StoreUnavailable(
            f"Another process has been starting the embedded PostgreSQL for {STARTING_SECONDS:.0f} s.",
            f"See {home.log}, then try again.",
        )
        await _wait_for(lambda: locked(file), STARTING_SECONDS, error)
        yield


async def until_stopped(home: Home) -> None:
    """Wait for a server that is ending."""
    await _wait_for(lambda: has_stopped(home), HANDOVER_SECONDS, _still_ending(home))


async def _wait_for(reached: Callable[[], bool], seconds: float, error: StoreError) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise error
        await asyncio.sleep(_POLL_SECONDS)


def _still_ending(home: Home) -> StoreError:
    return StoreUnavailable(
        f"The PostgreSQL server (process {cluster.postmaster(home) or 'unknown'}) on {home.path} has been ending "
        f"for {HANDOVER_SECONDS:.0f} s.",
        "Try again; if that stays so, end the process.",
    )


def locked(file: BinaryIO, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file if that is possible at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def no_server(home: Home) -> BinaryIO | None:
    """Return the lock that a server leaves only with its last process, None while there is one."""
    file = home.open("lock")
    if locked(file):
        return file
    file.close()
    return None


def has_stopped(home: Home) -> bool:
    """Return whether no process of a server is left."""
    lock = no_server(home)
    if lock is None:
        return False
    lock.close()
    return True


def end_unsupervised(home: Home) -> bool:
    """Ask a server to end whose supervisor has exited, which nobody would end; tell whether there was one."""
    with home.open("supervised") as file:
        pid = cluster.postmaster(home)
        if not locked(file) or pid is None or has_stopped(home) or str(home.cluster) not in _command_line(pid):
            return False
    # As the server's user: it is they who write the file that the number comes from.
    with suppress(ProcessLookupError, PermissionError):
        if home.user is None:
            os.kill(pid, signal.SIGINT)
        else:
            command = ["/bin/sh", "-c", 'kill -INT "$1"', "sh", str(pid)]
            subprocess.run(  # noqa: S603 - a constant and a number
                command, check=False, capture_output=True, user=home.user, group=home.group, extra_groups=[]
            )
    return True


def _command_line(pid: int) -> str:
    """Return how a process was started: its number may be another's, as in another container."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        return ""
    command = ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace").stdout  # noqa: S603 - a constant and a number


def linger(home: Home) -> None:
    """Let the server wait a little for a first client after its last user left."""
    with home.open("linger") as file:
        os.utime(file.fileno())


def leave(home: Home, place: BinaryIO) -> None:
    """Stop being a user. The last one waits until the server has stopped, but no longer than a stop may take."""
    fcntl.flock(place, fcntl.LOCK_UN)
    deadline = time.monotonic() + STOP_SECONDS
    with place:
        while time.monotonic() < deadline and not _is_used(place) and not has_stopped(home):
            time.sleep(_POLL_SECONDS)


def _is_used(place: BinaryIO) -> bool:
    """Return whether others hold the shared lock; the supervisor holds it for clients that are not ours."""
    used = not locked(place) and locked(place, fcntl.LOCK_SH)
    fcntl.flock(place, fcntl.LOCK_UN)
    return used
