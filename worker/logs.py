"""Log lines: JSON for machines, aligned text on a terminal; always on standard error.

Events carry counts, times and request ids. Tokens, contacts and payloads are never given to a logger.
"""

from __future__ import annotations

import io
import logging
import os
import select
import stat
import sys
from typing import Any, TextIO

import structlog

WRITE_SECONDS = 1.0
"""So long a line waits for whoever reads the log; then it is dropped, and the work goes on."""


class Unhindered(io.TextIOBase):
    """A stream to write log lines to that neither fails nor waits for long: a log is no reason to stop the work.

    Lines are dropped while the pipe behind it is full or its reader is gone, and while the disk is full.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write a text if that can be done soon."""
        try:
            if self._takes():
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):
            pass
        return len(text)

    def isatty(self) -> bool:
        """Say whether a person looks on."""
        return self._stream.isatty()

    def _takes(self) -> bool:
        if not stat.S_ISFIFO(os.fstat(self._stream.fileno()).st_mode):
            return True
        return bool(select.select([], [self._stream], [], WRITE_SECONDS)[1])


def configure(level: str, form: str) -> None:
    """Set up logging; `form` is json, console, or auto: console on a terminal, json elsewhere."""
    lines: Any = Unhindered(sys.stderr)
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(lines),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard library; only what they warn of matters here.
    logging.basicConfig(level=logging.WARNING, stream=lines, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # What ends its loop is logged where that begins again; what it could not write in an outage it writes later.
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL + 1)
    # They quote whole answers of the identity service that they cannot read; our errors say what those come to.
    for quoting in ("msal", "urllib3"):
        logging.getLogger(quoting).setLevel(logging.CRITICAL + 1)
