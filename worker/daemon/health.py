"""Whether the daemon of this configuration is alive: what a container's health check asks."""

from __future__ import annotations

import json
from http.client import OK, HTTPConnection, HTTPException

from worker.errors import ConfigError, SyncError

TIMEOUT_SECONDS = 4.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to translate, not one to listen at


def ask_health(listen: str) -> str:
    """Ask `/healthz` at `http.listen` and return its answer; raises SyncError when there is none, or a bad one.

    It is asked directly, whatever proxy the environment names, and without `http.token`, which does not guard it.
    """
    host, _, port = listen.rpartition(":")
    if port == "0":
        raise ConfigError(["http.listen: port 0 is another one at each start, which nobody else can know"])
    host = host.strip("[]")
    connection = HTTPConnection(_EVERYWHERE.get(host, host), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        body = answer.read(1_000)
    except (OSError, HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SyncError(
            f"The daemon does not answer at {listen}: {why}.", "Start it with `referral-sync run`, or see its log."
        ) from error
    finally:
        connection.close()
    status = _status(body)
    if answer.status != OK:
        raise SyncError(
            f"The daemon at {listen} is not healthy: {status or f'HTTP {answer.status}'}.",
            "Restart it, and see its log.",
        )
    if not status:
        raise SyncError(f"Another program answers at {listen}.", "Change `http.listen`, or stop the other one.")
    return status


def _status(body: bytes) -> str:
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return ""
