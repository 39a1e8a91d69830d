"""Log lines: JSON for machines, aligned text on a terminal; always on standard error.

Events carry counts, times and request ids. Tokens, contacts and payloads are never given to a logger. An error that is
not ours may quote any of them, so of it only the kind is told, and where it was raised.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import stat
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, TextIO

import structlog

from worker.errors import SyncError
from worker.model.escape import block, line

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


def traced(error: BaseException) -> str:
    """Write where an error and what it came from were raised, without messages: they may quote secrets and data."""
    told = []
    for one in reversed(list(_chain(error))):
        frames = traceback.StackSummary.extract(traceback.walk_tb(one.__traceback__), lookup_lines=True)
        kind = f"{type(one).__module__}.{type(one).__qualname__}"
        told.append(f"{''.join(frames.format())}{kind}: {_harmless_part(one)}")
    return block("\n\nwhich led to\n\n".join(told))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting.append(one.__cause__ or (None if one.__suppress_context__ else one.__context__))
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def _harmless_part(error: BaseException) -> str:
    if isinstance(error, SyncError):
        return str(error)
    state, number = getattr(error, "sqlstate", None), getattr(error, "errno", None)
    known = f"SQLSTATE {state}, " * bool(state) + f"errno {number}, " * isinstance(number, int)
    return f"{known}its message is withheld"


def _with_trace(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given is True else None
    if isinstance(given, tuple):
        error = given[1]
    if error is not None:
        event["exception"] = traced(error)
    return event


def _on_one_line(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = line(value)
    return event


def _json(event: Any, **settings: Any) -> str:
    return json.dumps(event, **settings).replace("\x7f", "\\u007f")  # the one control that JSON leaves as it is


class LibraryLines(logging.Formatter):
    """Formats what libraries log: the first line only, for others quote what was at work, and no messages of errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and where an error was raised."""
        told = line(f"{record.levelname} {record.name} {record.getMessage().partition(chr(10))[0]}")
        error = record.exc_info[1] if record.exc_info else None
        return f"{told}\n{traced(error)}" if error is not None else told


def configure(level: str, form: str) -> None:
    """Set up logging; `form` is json, console, or auto: console on a terminal, json elsewhere."""
    lines: Any = Unhindered(sys.stderr)
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        if console
        else structlog.processors.JSONRenderer(_json)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            *([_on_one_line] if console else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(lines),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard library; only what they warn of matters here.
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LibraryLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # What ends its loop is logged where that begins again; what it could not write in an outage it writes later.
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL + 1)
    # They quote whole answers of the identity service that they cannot read; our errors say what those come to.
    for quoting in ("msal", "urllib3"):
        logging.getLogger(quoting).setLevel(logging.CRITICAL + 1)
