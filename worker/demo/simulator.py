"""Partner Center, simulated: `start` it inside a test, `serve` it as a process of its own.

    python -m worker.demo.simulator --count 5000 --port 8090 --page-size 100

The API is under `/v1.0/engagements/referrals`, the sign-in service under `/{tenant}/oauth2/`, the controls under
`/_control/` (`worker.demo.control` is their client). The access token and the refresh token are both `simulator`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
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

__all__ = ["Behaviour", "Simulator", "main", "run", "serve", "start"]

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


def serve(
    count: int,
    seed: int,
    *,
    host: str,
    port: int,
    behaviour: Behaviour,
    announce: Callable[[str], None],
    newest: datetime | None = None,
    tokens: Sequence[str] = TOKENS,
    tls: tuple[str, str] | None = None,
    until_stdin_ends: bool = False,
) -> None:
    """Serve `count` made-up referrals until SIGTERM or SIGINT; `announce` is told the origin once it is ready.

    `newest` (aware) is the time of the newest referral, now if not given. With `until_stdin_ends` also the end of
    standard input stops it: whoever holds its other end has exited, however that went.
    """

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        if until_stdin_ends:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
        referrals = make_referrals(count, seed, newest or datetime.now(UTC))
        simulator = await start(referrals, behaviour, host=host, port=port, tokens=tokens, tls=tls)
        announce(simulator.origin)
        await stopped.wait()
        await simulator.stop()

    uvloop.run(run())


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


def run(behaviour: Behaviour, settings: Iterable[str], count: int, seed: int, **given: Any) -> int:
    """Serve as a command, with `settings` (`name=value`) applied: print the origin when ready, return the exit code."""

    def announce(origin: str) -> None:
        sys.stdout.write(f"{origin}\n")
        sys.stdout.flush()

    try:
        serve(count, seed, behaviour=_set(behaviour, settings), announce=announce, **given)
    except ValueError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    except SyncError as fault:
        sys.stderr.write(f"{fault}\n{fault.hint}\n")
        return fault.exit_code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command: print one line, the origin, when ready."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo.simulator", description="Simulates Partner Center.")
    parser.add_argument("--count", type=int, default=1000, help="referrals to make up")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--newest", type=datetime.fromisoformat, help="time of the newest referral, with its zone")
    parser.add_argument("--page-size", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for each answer")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any option of Behaviour")
    parser.add_argument("--token", action="append", default=[], help="accepted as access and as refresh token")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="serve https")
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop with whoever holds standard input")
    given = parser.parse_args(arguments)
    return run(
        Behaviour(page_size=given.page_size, latency=given.latency),
        given.set,
        given.count,
        given.seed,
        host=given.host,
        port=given.port,
        newest=given.newest,
        tokens=given.token or TOKENS,
        tls=tuple(given.tls) if given.tls else None,
        until_stdin_ends=given.until_stdin_ends,
    )


if __name__ == "__main__":
    raise SystemExit(main())
