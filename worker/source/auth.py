"""Access tokens: where a request's bearer token comes from.

A token source is a callable; `renew=True` says that the last one was refused. Tokens are handed to the client only,
and never logged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from worker.errors import SignInError, SourceUnavailable


class TokenSource(Protocol):
    """Gives bearer tokens."""

    async def __call__(self, renew: bool, claims: str = "") -> str:
        """Return a token; `renew` says that the last one was refused, `claims` what the API asked for, as JSON."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What the service gave: lifetimes are in seconds from now, None where it did not say."""

    access_token: str = field(repr=False)
    expires_in: float
    refresh_token: str | None = field(repr=False, default=None)
    refresh_expires_in: float | None = None


COMMAND_SECONDS = 60


def static_token(token: str, key: str) -> TokenSource:
    """A token that a person put into the configuration under `key`; it cannot be renewed."""

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
    """A token that a program prints; the program runs again when the token is refused, one at a time."""
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
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise SignInError(f"The program of `{key}` cannot be started: {error.strerror}.", hint) from error
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise SourceUnavailable(f"The program of `{key}` gave no token within {COMMAND_SECONDS} s.", hint) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    token = output.decode("ascii", "replace").strip()
    if process.returncode != 0:
        raise SignInError(f"The program of `{key}` ended with exit code {process.returncode}.", hint)
    if not token or not token.isprintable() or " " in token or "\N{REPLACEMENT CHARACTER}" in token:
        raise SignInError(f"The program of `{key}` printed no usable token.", hint)
    return token
