"""Access tokens: where a request's bearer token comes from.

A token source is a callable; `renew=True` says that the last one was refused. Tokens are handed to the client only,
and never logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.errors import SignInError, SourceUnavailable

TokenSource = Callable[[bool], Awaitable[str]]
"""Called with whether the previous token was refused; returns a bearer token."""

COMMAND_SECONDS = 60


def static_token(token: str, key: str) -> TokenSource:
    """A token that a person put into the configuration under `key`; it cannot be renewed."""

    async def current(renew: bool) -> str:
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

    async def current(renew: bool) -> str:
        nonlocal cached
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
