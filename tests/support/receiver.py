"""A service that takes messages, as a process of its own: HTTP and SMTP at loopback ports.

What it takes it appends to a file, a line of JSON each; `POST /_behave` says how it answers from then on.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Receiver:
    """A receiver that runs: its ports, and the file of what it took."""

    http: int
    smtp: int
    file: Path

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.http}/hook/very-secret-path"

    @property
    def mail(self) -> str:
        return f"mailto://127.0.0.1:{self.smtp}?from=sync@example.com&to=sales@example.com&mode=insecure"

    def messages(self, how: str = "") -> list[dict[str, Any]]:
        """What it took so far, each with the key of its message."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in found if not how or one["how"] == how]

    async def behave(self, **how: Any) -> None:
        """Answer with a `status`, a body of `size` bytes, after `delay` seconds; `swallow`: take it and break off."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self.http}/_behave", json=how) as response,
        ):
            assert response.status == 200


@contextmanager
def receiver(folder: Path) -> Iterator[Receiver]:
    """Run one until the end of the block."""
    file = folder / "received.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.receiver", str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            http, smtp = map(int, process.stdout.readline().split())
            yield Receiver(http, smtp, file)
        finally:
            process.kill()


class _Taking:
    def __init__(self, file: Path) -> None:
        self.file, self.how = file, dict[str, Any]()

    def keep(self, **what: Any) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(what) + "\n")

    async def hook(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        status = int(self.how.get("status", 200))
        await asyncio.sleep(float(self.how.get("delay", 0)))
        key = request.headers.get("Idempotency-Key", "")
        self.keep(how="http", status=status, key=key, title=body["title"], text=body["message"])
        if self.how.get("swallow"):
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status, body=b"x" * int(self.how.get("size", 2)))

    async def behave(self, request: web.Request) -> web.Response:
        self.how = await request.json()
        return web.json_response({})

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name there
        raw = envelope.content
        assert isinstance(raw, bytes)
        message = email.message_from_bytes(raw, policy=email.policy.default)
        parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        status = int(self.how.get("status", 250))
        self.keep(
            how="smtp", status=status, key=str(message["Idempotency-Key"]), title=str(message["Subject"]),
            text=parts.get("text/plain", ""), html=parts.get("text/html", ""), to=envelope.rcpt_tos,
        )  # fmt: skip
        return "250 OK" if status < 300 else "451 try later"


async def main(file: Path) -> None:
    """Listen until it is killed."""
    taking = _Taking(file)
    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.post("/_behave", taking.behave), web.post("/{path:.*}", taking.hook)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(taking), "127.0.0.1", 0)
    sys.stdout.write(f"{runner.addresses[0][1]} {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
