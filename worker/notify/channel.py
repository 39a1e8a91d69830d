"""Our side of the process that sends: a channel that is open takes one message after the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from worker.config.models import PREFIX
from worker.errors import SyncError
from worker.notify.messages import MessagePage

OPEN_SECONDS = 30.0
"""To import apprise, on a busy machine."""

SEND_SECONDS = 25.0
"""Less than a lease lasts, so that nobody else sends the same meanwhile."""

_LINE = 1 << 20


class ChannelError(SyncError):
    """A channel did not take a message, or its URL is wrong."""


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel that is ready, and what its service takes: characters of a text, and of a title (0: none)."""

    process: asyncio.subprocess.Process
    name: str
    service: str
    longest: int
    title: int

    async def send(self, page: MessagePage, key: str) -> None:
        """Send a message; raises ChannelError when the service did not take it."""
        title = page.title[: self.title - 1] if self.title else page.title
        room = self.longest - (0 if self.title else len(title) + 8)
        message = {"title": title, "text": page.text(room), "html": page.html(), "key": key}
        answer = await _ask(self.process, message, SEND_SECONDS)
        if not answer["ok"]:
            raise ChannelError(_sentence(self.name, answer["why"]), _HINT.format(self.name))


_HINT = "`referral-sync notify test --channel {}` tries it; its URL is `notify.channels`."


@asynccontextmanager
async def open_channel(name: str, url: str) -> AsyncIterator[OpenChannel]:
    """Start a process that sends to a channel; raises ChannelError where the URL is wrong."""
    surroundings = {key: value for key, value in os.environ.items() if not key.upper().startswith(PREFIX)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker.notify.sender",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE,
        env=surroundings,
        start_new_session=True,
    )
    try:
        ready = await _ask(process, {"url": url}, OPEN_SECONDS)
        if not ready["ok"]:
            raise ChannelError(_sentence(name, ready["why"]), f"Correct `notify.channels.{name}.url`.")
        yield OpenChannel(process, name, ready["service"], ready["longest"], ready["title"])
    finally:
        await asyncio.shield(_end(process))


async def _ask(process: asyncio.subprocess.Process, what: dict[str, Any], seconds: float) -> dict[str, Any]:
    assert process.stdin is not None  # noqa: S101 - both were asked for
    assert process.stdout is not None  # noqa: S101
    try:
        async with asyncio.timeout(seconds):
            process.stdin.write(json.dumps(what).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
    except TimeoutError:
        return {"ok": False, "why": f"it did not end within {seconds:.0f} seconds"}
    except (OSError, ValueError):
        line = b""
    if not line:
        return {"ok": False, "why": "the process that sends ended; an answer may have been too large"}
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _sentence(name: str, why: str) -> str:
    return f"Channel {name}: {why}."
