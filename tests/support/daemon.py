"""The daemon as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.support.command import WORKER


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def daemon(environment: dict[str, str], folder: Path, **variables: str) -> AsyncIterator[Daemon]:
    port = free_port()
    settings = {
        "REFERRAL_SYNC_HTTP__LISTEN": f"127.0.0.1:{port}",
        "REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "1s",
        "REFERRAL_SYNC_LOG__FORMAT": "json",
    }
    log = folder / f"daemon-{port}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*WORKER, "run"],
            cwd=folder,
            env=environment | settings | variables,
            stderr=output,
            stdout=output,
        ) as process,
    ):
        try:
            yield Daemon(process, f"http://127.0.0.1:{port}", log)
        finally:
            if process.poll() is None:
                process.kill()


class Daemon:
    def __init__(self, process: subprocess.Popen[bytes], origin: str, log: Path) -> None:
        self.process = process
        self.origin = origin
        self._log = log

    async def status(self, path: str, token: str = "") -> int:
        """The HTTP status of a path, 0 when nobody answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with aiohttp.ClientSession() as session, session.get(self.origin + path, headers=headers) as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log lines of one event so far."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in found if event["event"] == name]

    def output(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(encoding="utf-8")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait; proxies and servers of the test go on meanwhile."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 15)
