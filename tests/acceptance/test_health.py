"""`referral-sync health`: what the container's health check asks, of a real daemon."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.command import Command
from tests.support.conditions import until
from tests.support.daemon import Daemon, daemon, free_port
from worker.daemon.health import ask_health
from worker.demo.control import Control
from worker.errors import ConfigError, SyncError

pytestmark = pytest.mark.long


async def alive(running: Daemon) -> None:
    async def answers() -> bool:
        return await running.status("/healthz") == 200

    await until(answers, "alive")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"])  # noqa: S104 - a test of it
async def test_it_asks_where_the_daemon_listens(
    host: str, command: Command, environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(0)
    port = free_port()
    dead = f"http://127.0.0.1:{free_port()}"
    variables = {
        "REFERRAL_SYNC_HTTP__LISTEN": f"{host}:{port}",
        "REFERRAL_SYNC_HTTP__TOKEN": "a-long-secret",
        "http_proxy": dead,
    }
    async with daemon(environment, tmp_path, **variables, no_proxy="127.0.0.1") as running:
        running.origin = f"http://{'[::1]' if ':' in host else '127.0.0.1'}:{port}"
        await alive(running)
        ended = command("health", **variables)
        assert (ended.returncode, ended.stdout) == (0, "ok\n"), ended.stderr
        assert await running.stop() == 0
    ended = command("health", **variables)
    assert ended.returncode == 1
    assert f"The daemon does not answer at {host}:{port}: Connection refused." in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_daemon_that_hangs_is_not_healthy(
    command: Command, environment: dict[str, str], simulator: Control, tmp_path: Path
) -> None:
    await simulator.reset(0)
    async with daemon(environment, tmp_path) as running:
        await alive(running)
        running.process.send_signal(signal.SIGSTOP)
        try:
            ended = command("health", REFERRAL_SYNC_HTTP__LISTEN=running.origin.removeprefix("http://"))
        finally:
            running.process.send_signal(signal.SIGCONT)
        assert ended.returncode == 1
        assert "timed out" in ended.stderr
        assert await running.stop() == 0


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Run an HTTP server with one answer to everything; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            del format, args

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b'{"status": "the scheduler stands still"}', "is not healthy: the scheduler stands still"),
        (404, b"<html>", "is not healthy: HTTP 404"),
        (500, b"[]", "is not healthy: HTTP 500"),
    ],
)
def test_a_bad_answer_is_said(status: int, body: bytes, message: str) -> None:
    with answering(status, body) as listen, pytest.raises(SyncError, match=message):
        ask_health(listen)


def test_what_is_no_daemon_of_ours() -> None:
    with answering(200, b"another server") as listen, pytest.raises(SyncError, match="Another program"):
        ask_health(listen)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_not_http, args=(server,), daemon=True).start()
        with pytest.raises(SyncError, match="does not answer"):
            ask_health(f"127.0.0.1:{server.getsockname()[1]}")


def _not_http(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        client.sendall(b"220 mail\r\n")


def test_a_port_that_nobody_knows(command: Command) -> None:
    with pytest.raises(ConfigError):
        ask_health("127.0.0.1:0")
    ended = command("health")  # the environment of tests listens at port 0
    assert ended.returncode == 2
    assert "http.listen" in ended.stderr
