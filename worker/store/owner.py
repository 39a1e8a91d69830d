"""Who holds a lease: a process, named so that another of the same machine can tell whether it still lives."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


def owner_name() -> str:
    """Return a new name for this process, `host:pid:machine.term`.

    The term is random: host and number alone would let a successor take itself for its predecessor.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_machine()}.{secrets.token_hex(4)}"


def has_exited(owner: str) -> bool:
    """Return whether an owner is a process of this machine that is no more; False wherever that cannot be known.

    A number that another process has by now is not known: then the lease ends by itself.
    """
    _, _, rest = owner.partition(":")
    pid, _, term = rest.rpartition(":")
    machine, _, _ = term.rpartition(".")
    if not machine or machine != _machine() or not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@cache
def _machine() -> str:
    """Name this machine since it was started, and what of its processes this one sees; empty where that is not known.

    Two containers may share a host's name, and count their processes each from 1.
    """
    with suppress(OSError):
        booted = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        processes = Path("/proc/self/ns/pid").readlink()
        return hashlib.sha256(f"{booted} {processes}".encode()).hexdigest()[:8]
    return ""
