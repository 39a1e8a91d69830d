"""Access tokens: where a request's bearer token comes from.

A token source is a callable; `renew=True` says that the last one was refused. Tokens are handed to the client only,
and never logged.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.errors import SignInError, SourceUnavailable

if TYPE_CHECKING:
    from worker.source.client import TokenSource


@dataclass(frozen=True, slots=True)
class Granted:
    """What the service gave: lifetimes are in seconds from now, None where it did not say."""

    access_token: str = field(repr=False)
    expires_in: float
    refresh_token: str | None = field(repr=False, default=None)
    refresh_expires_in: float | None = None


def mfa_of(token: str) -> bool | None:
    """Return whether a token says that its sign-in was with MFA; None where it does not say, or cannot be read.

    Advice only: nobody but the API may rely on what is in a token.
    """
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return None
    amr = claims.get("amr") if isinstance(claims, dict) else None
    return "mfa" in amr if isinstance(amr, list) else None


COMMAND_SECONDS = 60
_LOOK_SECONDS = 0.05
MAX_OUTPUT_BYTES = 65_536


def static_token(token: str, key: str) -> TokenSource:
    """Give a token that a person put into the configuration under `key`; it cannot be renewed."""

    async def current(renew: bool, claims: str = "") -> str:
        del claims  # whoever makes the token has to see to them
        if renew:
            raise SignInError(
                "The API refused the configured access token: it has expired, or was issued for another origin.",
                f"Put a new token into `{key}`.",
            )
        return token

    return current


def command_token(command: list[str], key: str) -> TokenSource:
    """Give a token that a program prints; the program runs again when the token is refused, one at a time."""
    lock = asyncio.Lock()
    cached: str | None = None

    async def current(renew: bool, claims: str = "") -> str:
        nonlocal cached
        del claims  # whoever makes the token has to see to them
        refused = cached
        async with lock:
            if cached is None or (renew and cached == refused):
                cached = await _run(command, key)
            return cached

    return current


async def _run(command: list[str], key: str) -> str:
    hint = f"Run the program of `{key}` by hand as the worker's user; it must print one token and exit with 0."
    cancelled = threading.Event()
    try:
        code, output = await asyncio.to_thread(_printed, command, cancelled)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise SourceUnavailable(f"The program of `{key}` gave no token within {COMMAND_SECONDS} s.", hint) from None
        raise SignInError(f"The program of `{key}` cannot be started: {error.strerror}.", hint) from error
    finally:
        cancelled.set()
    token = output.decode("ascii", "replace").strip()
    if code not in (0, None):
        raise SignInError(f"The program of `{key}` ended with exit code {code}.", hint)
    if code is None or not token or not token.isprintable() or " " in token or "\N{REPLACEMENT CHARACTER}" in token:
        raise SignInError(f"The program of `{key}` printed no usable token.", hint)
    return token


def _printed(command: list[str], cancelled: threading.Event) -> tuple[int | None, bytes]:
    """Run a program; returns its exit code, None where it printed more than a token can be, and what it printed.

    Whatever it started ends with it: what holds its output open is not waited for. Raises OSError, and TimeoutError.
    """
    deadline = time.monotonic() + COMMAND_SECONDS
    with (
        subprocess.Popen(  # noqa: S603 - the configured program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        selector.register(process.stdout, selectors.EVENT_READ)
        output, closed = b"", False
        try:
            while len(output) < MAX_OUTPUT_BYTES:
                ended = process.poll() is not None
                if not closed and selector.select(0 if ended else _LOOK_SECONDS):
                    chunk = os.read(process.stdout.fileno(), MAX_OUTPUT_BYTES)
                    output, closed = output + chunk, not chunk
                elif ended:
                    return process.returncode, output
                elif time.monotonic() > deadline or cancelled.is_set():
                    raise TimeoutError
                elif closed:
                    time.sleep(_LOOK_SECONDS)
                if not closed and time.monotonic() > deadline:
                    raise TimeoutError
            return None, output
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
