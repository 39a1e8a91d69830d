"""A proxy that breaks connections on purpose: between the worker and the API, or between the worker and PostgreSQL."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
"""PostgreSQL's wire message for the end of a transaction, as asyncpg sends it."""

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The server's word that the transaction stands."""


def place(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


class Proxy:
    """Forwards TCP to the server of a URL; an async context manager. Its switches may be set at any moment.

    target        where new connections go
    delay         seconds that each chunk of the target's waits
    cut_after     bytes of the target's, counted over a connection, after which that connection is reset
    flowing       while this event is clear nothing is forwarded and nothing is closed: a half-open line
    at_commit     called with the number of each COMMIT of the client, and "before" it is forwarded or "after" the
                  server has answered, which the client has not seen then; true resets that connection
    """

    def __init__(self, url: str) -> None:
        self.target = place(url)
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._writers = set[asyncio.StreamWriter]()
        self.delay = 0.0
        self.cut_after: int | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.at_commit: Callable[[int, str], bool] | None = None
        self.commits = 0
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url_of(self, target: str) -> str:
        """Return a URL with this proxy in the place of its port."""
        parts = urlsplit(target)
        return parts._replace(netloc=parts.netloc.replace(str(parts.port), str(self.port))).geturl()

    def reset_all(self) -> None:
        """Cut every connection with RST."""
        for writer in list(self._writers):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, upstream_writer}
        pumps = [
            asyncio.create_task(self._up(reader, upstream_writer, writer)),
            asyncio.create_task(self._down(upstream_reader, writer)),
        ]
        self._tasks |= {*pumps}
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for one in (writer, upstream_writer):
            self._writers.discard(one)
            one.close()
        self._tasks -= {*pumps}

    async def _up(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await _read(reader):
            await self.flowing.wait()
            if COMMIT in data and self.at_commit is not None:
                self.commits += 1
                if self.at_commit(self.commits, "before"):
                    _reset(client)
                    return
            upstream.write(data)
            await upstream.drain()

    async def _down(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await _read(reader):
            await asyncio.sleep(self.delay)
            await self.flowing.wait()
            if COMMITTED in data and self.at_commit is not None and self.at_commit(self.commits, "after"):
                _reset(client)
                return
            if self.cut_after is not None and passed + len(data) > self.cut_after:
                client.write(data[: max(0, self.cut_after - passed)])
                _reset(client)
                return
            passed += len(data)
            client.write(data)
            try:
                await client.drain()
            except OSError:
                return


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except OSError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    wire = writer.get_extra_info("socket")
    if wire is not None and wire.fileno() >= 0:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
