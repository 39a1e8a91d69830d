"""Partner Center, simulated: `start` it inside a test, or `run` it as `referral-sync simulate` does.

The API is under `/v1.0/engagements/referrals`, the sign-in service under `/{tenant}/oauth2/`, the controls under
`/_control/` (`worker.demo.control` is their client). The access token and the refresh token are both `simulator`.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvloop
from aiohttp import web

from worker.demo.api import SIMULATOR, add_api, front
from worker.demo.behaviour import Behaviour, changed
from worker.demo.data import make_referrals
from worker.demo.steering import add_controls
from worker.demo.world import Simulator
from worker.errors import SyncError

__all__ = ["Behaviour", "Simulator", "run", "start"]

TOKENS = ("simulator",)
_UPLOAD = 1 << 30


async def start(
    referrals: Iterable[Mapping[str, Any]],
    behaviour: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Sequence[str] = TOKENS,
    tls: tuple[str, str] | None = None,
) -> Simulator:
    """Start a server in the running loop; stop it with `await simulator.stop()`.

    `port` 0 takes a free one. `tokens` are good as access and as refresh tokens. `tls` names the files of a certificate
    chain and of its key. SyncError where the address cannot be had.
    """
    simulator = Simulator(referrals, behaviour or Behaviour(), tokens)
    app = web.Application(middlewares=[front], client_max_size=_UPLOAD)
    app[SIMULATOR] = simulator
    add_api(app)
    add_controls(app)
    context: ssl.SSLContext | None = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
    simulator.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await simulator.runner.setup()
    site = web.TCPSite(simulator.runner, host, port, ssl_context=context)
    try:
        await site.start()
    except OSError as fault:
        await simulator.stop()
        raise SyncError(
            f"The simulator cannot listen on {host}:{port}: {fault.strerror}.", "Choose another port, or 0 for any."
        ) from fault
    bound = simulator.runner.addresses[0][1]
    simulator.origin = f"{'https' if tls else 'http'}://{host}:{bound}"
    return simulator


def _set(behaviour: Behaviour, settings: Iterable[str]) -> Behaviour:
    """Apply `name=value` settings; a value that is no JSON is a text."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            changes[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            changes[name] = value
    return changed(behaviour, changes)


def run(
    behaviour: Behaviour,
    settings: Iterable[str],
    count: int,
    seed: int,
    *,
    host: str,
    port: int,
    tls: tuple[str, str] | None = None,
    until_stdin_ends: bool = False,
) -> int:
    """Serve `count` made-up referrals until SIGTERM or SIGINT: print the origin when ready, return the exit code.

    `settings` (`name=value`) are applied to the behaviour. With `until_stdin_ends` also the end of standard input stops
    it: whoever holds its other end has exited, however that went.
    """

    async def serve(behaviour: Behaviour) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        if until_stdin_ends:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
        simulator = await start(
            make_referrals(count, seed, datetime.now(UTC)), behaviour, host=host, port=port, tls=tls
        )
        sys.stdout.write(f"{simulator.origin}\n")
        sys.stdout.flush()
        await stopped.wait()
        await simulator.stop()

    try:
        uvloop.run(serve(_set(behaviour, settings)))
    except ValueError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    except SyncError as fault:
        sys.stderr.write(f"{fault}\n{fault.hint}\n")
        return fault.exit_code
    return 0
