"""The simulator as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.command import PIPE, ROOT, SYSTEM, open_command


@contextmanager
def running_simulator(*options: str) -> Iterator[str]:
    """Run a simulator with options of `simulate`, at a free port; its origin."""
    with open_command(SYSTEM, ROOT, "simulate", "--port", "0", *options, stdout=PIPE, stderr=None) as process:
        try:
            assert process.stdout is not None
            origin = process.stdout.readline().strip()
            assert origin, f"the simulator did not start: exit status {process.wait()}"
            yield origin
        finally:
            process.terminate()
