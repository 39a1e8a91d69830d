"""The one way to the terminal: whatever is printed passes here, and nothing in it steers the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from worker.model.escape import block


class Outlet(Console):
    """A console that shows texts as they are: no mark-up, no emoji, no control characters but the end of a line."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print texts, or what rich can draw, whose texts are made harmless by who draws it."""
        super().print(*(block(one) if isinstance(one, str) else one for one in objects), **settings)


def tell(what: str, *, end: str = "\n") -> None:
    """Print a text on standard output."""
    Outlet().print(what, end=end)


def warn(what: str) -> None:
    """Print a text on standard error."""
    Outlet(stderr=True).print(what)


def ask(what: str) -> str:
    """Print a text and read a line."""
    tell(what)
    return sys.stdin.readline()
