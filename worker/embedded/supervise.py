"""Ends a server when its owner is gone, however the owner went: `kill -9` leaves nothing running.

    supervise.py USER GROUP LOCK PROGRAM ARGUMENT...

The owner holds the other end of stdin and writes nothing; the end of that file means that the owner is gone. The server
runs as USER and GROUP (-1: as we are) and keeps the descriptor LOCK open. `worker.embedded.server` runs this file as a
script of the standard library alone, in a session of its own, so that Ctrl-C reaches the owner only and the server
outlives the owner's last query.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

FAST_SHUTDOWN_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Run the server until it ends or the owner is gone; return its exit status."""
    user, group, lock = (int(number) for number in arguments[:3])
    # A handler of our own, not SIG_IGN: the server would inherit that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(  # noqa: S603 - what our own process asked for, no shell
        arguments[3:],
        stdin=subprocess.DEVNULL,
        pass_fds=[lock],
        user=None if user < 0 else user,
        group=None if group < 0 else group,
        extra_groups=None if user < 0 else [],
    )
    threading.Thread(target=_end_with_owner, args=(server,), daemon=True).start()
    return server.wait()


def _end_with_owner(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    server.send_signal(signal.SIGINT)
    try:
        server.wait(FAST_SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)  # at once, without a checkpoint: the next start replays the log


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
