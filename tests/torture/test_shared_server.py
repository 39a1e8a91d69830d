"""Many processes share one embedded server and are killed at any moment, and so are the server and its supervisor."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.support.shared_server import postmaster, until_stopped
from tests.support.steps import TALLY

CHECKOUT = Path(__file__).parent.parent.parent
AT_ONCE = 3
PATIENCE = 100.0

USER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from worker.embedded import server as embedded

BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

async def main():
    async with embedded.server(Path(sys.argv[1]), lasting=True, settings={"fsync": "off"}) as url:
        ends = asyncio.get_running_loop().time() + float(sys.argv[2])
        try:
            connection = await asyncpg.connect(url)
            while asyncio.get_running_loop().time() < ends:
                await connection.fetchval("SELECT 1")
                await asyncio.sleep(0.05)
            await connection.close()
        except BROKEN:
            pass  # the server was killed
    print("left in order")

asyncio.run(main())
"""


def test_whoever_is_killed_everybody_else_gets_a_server_and_none_is_left(data_dir: Path, rounds: int) -> None:
    dice = random.Random()
    over = threading.Event()
    with ThreadPoolExecutor(AT_ONCE + 1) as threads:
        killer = threads.submit(kill_servers, data_dir, over)
        users = [threads.submit(use, data_dir, random.Random(dice.random())) for _ in range(20 * rounds)]
        try:
            failures = [failure for user in users if (failure := user.result())]
        finally:
            over.set()
        killer.result()
    assert failures == []
    until_stopped(data_dir)


def use(data_dir: Path, dice: random.Random) -> str:
    """Use the server for a while, or until something ends it; what went wrong."""
    command = [sys.executable, "-c", USER, str(data_dir), str(dice.uniform(0, 1.5))]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as user:
        end = dice.choice([None, signal.SIGKILL, signal.SIGTERM])
        if end is not None:
            time.sleep(dice.uniform(0, 2.5))
            user.send_signal(end)
        out, error = user.communicate(timeout=PATIENCE)
    TALLY["users of a shared server"] += 1
    return error if end is not None or (user.returncode == 0 and "left in order" in out) else error or "it said nothing"


def kill_servers(data_dir: Path, over: threading.Event) -> None:
    """Kill the server or its supervisor every now and then."""
    dice = random.Random()
    while not over.wait(dice.uniform(1, 4)):
        with suppress(OSError, LookupError, ValueError, subprocess.CalledProcessError):
            server = postmaster(data_dir)
            fields = shown(server)
            if str(data_dir) not in fields[1]:
                continue  # its number is another's now
            supervisor = int(fields[0])
            victim = supervisor if dice.random() < 0.5 and "supervise.py" in shown(supervisor)[1] else server
            os.kill(victim, signal.SIGKILL)
            TALLY["servers and supervisors killed"] += 1


def shown(pid: int) -> list[str]:
    """Ask `ps` for a process's parent and command line."""
    command = ["ps", "-ww", "-o", "ppid=,args=", "-p", str(pid)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(maxsplit=1)
