"""Ends a server when nobody uses it any more, however its users went: `kill -9` leaves nothing running.

    supervise.py USER GROUP LOCK USERS SUPERVISED PORT PROGRAM ARGUMENT...

Each process that uses the server holds a shared lock on the file USERS; to get it alone means that none is left. The
supervisor then has it until the server has stopped, so that the next process starts another. Clients that are not ours,
psql and dashboards, hold no lock: their connections to PORT are looked for (with 0 they are not), and while there are
any, the supervisor holds the shared lock for them.

The server runs as USER and GROUP (-1: as we are) and keeps the descriptor LOCK open; SUPERVISED is locked for as long
as the supervisor lives. `worker.embedded.server` runs this file as a script of the standard library alone, in a session
of its own, so that Ctrl-C reaches the users only and the server outlives their last queries.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

FAST_SHUTDOWN_SECONDS = 5.0
LINGER_SECONDS = 30.0
"""How long the server waits for a first client after somebody asked for its address."""

_LOOK_SECONDS = 1.0
_CLOSING_SECONDS = 0.2
"""A process that was killed loses its lock a moment before its connections."""

_PR_SET_PDEATHSIG = 1
_ESTABLISHED = "01"


def main(arguments: list[str]) -> int:
    """Run the server until it ends or nobody uses it; return its exit status."""
    user, group, lock, users, _supervised, port = (int(number) for number in arguments[:6])
    # A handler of our own, not SIG_IGN: the server would inherit that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(  # noqa: S603 - what our own process asked for, no shell
        arguments[6:],
        stdin=subprocess.DEVNULL,
        pass_fds=[lock],
        user=None if user < 0 else user,
        group=None if group < 0 else group,
        extra_groups=None if user < 0 else [],
        preexec_fn=_end_with_supervisor(),  # noqa: PLW1509 - there is no other thread yet
    )
    threading.Thread(target=_end_when_unused, args=(server, users, port), daemon=True).start()
    return server.wait()


def _end_with_supervisor() -> Callable[[], None] | None:
    """Return what the server does before it starts: Linux then shuts it down should the supervisor be killed.

    Elsewhere a server without its supervisor is found by whoever uses it next (`worker.embedded.users`).
    """
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # noqa: PLC0415 - not every Python has it

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    supervisor = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != supervisor:
            os._exit(1)  # killed before the arrangement stood

    return arrange


def _end_when_unused(server: subprocess.Popen[bytes], users: int, port: int) -> None:
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)
        if not _wanted(port):
            break
        time.sleep(_CLOSING_SECONDS)
        if not _wanted(port):
            break
        fcntl.flock(users, fcntl.LOCK_SH)
        absent = 0
        while absent < 2:  # noqa: PLR2004 - two looks: psql leaves and comes back for another database
            time.sleep(_LOOK_SECONDS)
            absent = 0 if _wanted(port) else absent + 1
    server.send_signal(signal.SIGINT)
    try:
        server.wait(FAST_SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)  # at once, without a checkpoint: the next start replays the log


def _wanted(port: int) -> bool:
    """Return whether a client is connected, or expected since somebody asked for the address."""
    if not port:
        return False
    with suppress(OSError):
        if 0 <= time.time() - os.stat("linger").st_mtime < LINGER_SECONDS:  # noqa: PTH116 - pathlib is slow to load
            return True
    return has_clients(port, connections())


def connections() -> str:
    """Return the TCP connections of this machine as the system lists them, nothing where it cannot be asked."""
    if sys.platform != "linux":
        command = ["/usr/sbin/netstat", "-anp", "tcp"]
        try:
            return subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout  # noqa: S603 - a constant
        except (OSError, subprocess.SubprocessError):
            return ""
    listed = ""
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to load
            listed += file.read()
    return listed


def has_clients(port: int, listed: str) -> bool:
    """Return whether a list of connections, Linux's or netstat's, has one whose client still holds the other end."""
    for line in listed.splitlines():
        fields = line.split()
        if len(fields) < 6:  # noqa: PLR2004 - netstat's columns, and fewer than Linux's
            continue
        if fields[1].endswith(f":{port:04X}") and fields[3] == _ESTABLISHED:
            return True
        if fields[3].endswith(f".{port}") and fields[5] == "ESTABLISHED":
            return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
