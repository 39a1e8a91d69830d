"""Log lines: JSON for machines, aligned text on a terminal; always on standard error.

Events carry counts, times and request ids. Tokens, contacts and payloads are never given to a logger. An error that is
not ours may quote any of them, so of it only the kind is logged, and where it was raised.
"""

from __future__ import annotations

import io
import logging
import os
import select
import stat
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, TextIO

import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from worker.errors import SyncError
from worker.model.counts import FIGURES
from worker.model.escape import block, json_text, line

WRITE_SECONDS = 1.0
"""So long a line waits for whoever reads the log; then it is dropped, and the work goes on."""


WORK = ("account", "kind", "run_id")
"""Keys of every line that is logged during work; `run_id` once the run has begun."""

_FIGURES = " ".join(figure.logged for figure in FIGURES if figure.logged)
EVENTS: dict[str, tuple[str, str]] = {
    "backfill_helper_failed": ("process code", "A process that helped with a backfill ended badly; the others go on."),
    "backfill_helper_started": ("account kind process", "Another process reads windows of a backfill."),
    "command_crashed": ("exception", "An unexpected error ended a command; logged at `debug` only."),
    "configuration_diverged": ("why hint", "Another worker on this database has other accounts or schedules."),
    "configured_token_refused": ("account error", "The refresh token of the configuration was refused."),
    "database_unreachable": ("error hint retry_seconds", "PostgreSQL does not answer; it is tried again."),
    "embedded_database_died": ("data_dir", "The embedded server was killed; it is started again."),
    "history_refresh_failed": ("error hint", "`bi.pipeline_daily` could not be refreshed; it is tried again."),
    "http_exposed": ("listen hint", "The HTTP endpoint has no token on an address that others reach."),
    "job_dropped": ("why", "A job is of an account that no worker here has in its configuration."),
    "job_rejected": ("kind job error", "A job in the queue cannot be read."),
    "jobs_dropped": ("count why", "Jobs of a kind that no release here knows were deleted."),
    "lease_waiting": (
        "error holder at_most_seconds retry_seconds",
        "Another process has the lease; this one waits, or tries again.",
    ),
    "message_failed": ("channel message attempts error", "A channel did not take a message; it is tried again."),
    "message_given_up": ("channel message attempts error", "A channel did not take a message within a day."),
    "message_sent": ("channel message message_kind events", "A channel took a message."),
    "overlap_exceeded": (
        "lag_seconds missed",
        "The replication lag comes near to `sync.overlap`, or exceeds it.",
    ),
    "paging_downgraded": ("account field paging why", "The API contradicted itself; the next paging strategy is used."),
    "partial_list_found": ("account only_by_id", "Lists lack members that a record has by id; changes are hydrated."),
    "port_changed": ("port why", "Another program has the port of the embedded database."),
    "privacy_applied": ("table changed", "Stored rows were rewritten to a stricter `privacy.contacts`."),
    "queue_unreachable": ("lane error", "The queue cannot be read; it is tried again."),
    "request_finished": (
        "path status seconds client_request_id request_id",
        "One request to the API; logged at `debug` only.",
    ),
    "retry_scheduled": ("attempt retry_seconds error", "An attempt failed and is repeated."),
    "run_crashed": ("exception", "An unexpected error ended a run: a bug."),
    "run_deferred": ("account retry_seconds", "The API asked for a longer pause than a run waits; backing off."),
    "run_failed": ("account kind error hint", "A run failed."),
    "run_finished": (
        f"account kind run_id seconds {_FIGURES}",
        "A run succeeded.",
    ),
    "run_progressed": ("account kind records windows left", "How far a command is, every few seconds."),
    "run_stopped": ("", "A run was asked to stop; the next one goes on from its checkpoint."),
    "token_redeemed": ("account rotated stored", "A refresh token was redeemed."),
    "token_rotation_failed": ("account error", "A token chain could not be rotated ahead of time; it is tried again."),
    "unknown_fields_found": ("fields", "The API has members that no column holds; they are in `payload`."),
    "verification_failed": ("account kind run_id why", "A reconcile could not verify that the copy is complete."),
    "version_reverted": ("referral", "The source went back to an earlier version of a referral."),
    "worker_started": ("release listen", "A worker is up."),
    "worker_stopped": ("", "A worker ended as asked."),
}
"""Every event, its keys beside those of the work at hand (`WORK`), and what it means."""


class NonBlockingStream(io.TextIOBase):
    """A stream to write log lines to that neither fails nor waits for long: a log is no reason to stop the work.

    Lines are dropped while the pipe behind it is full or its reader has exited, and while the disk is full.
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
        """Return whether a person looks on."""
        return self._stream.isatty()

    def _takes(self) -> bool:
        if not stat.S_ISFIFO(os.fstat(self._stream.fileno()).st_mode):
            return True
        return bool(select.select([], [self._stream], [], WRITE_SECONDS)[1])


def traced(error: BaseException) -> str:
    """Write where an error and what it came from were raised, without messages: they may quote secrets and data."""
    blocks = []
    for one in reversed(list(_chain(error))):
        frames = traceback.StackSummary.extract(traceback.walk_tb(one.__traceback__), lookup_lines=True)
        kind = f"{type(one).__module__}.{type(one).__qualname__}"
        blocks.append(f"{''.join(frames.format())}{kind}: {_harmless_part(one)}")
    return block("\n\nwhich led to\n\n".join(blocks))


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


def _log_retry(details: RetryDetails) -> None:
    """Log an attempt that failed and is repeated, in place of the library's line, which may quote anything."""
    error = details.caused_by
    text = str(error) if isinstance(error, SyncError) else f"{type(error).__qualname__}: {_harmless_part(error)}"
    structlog.get_logger().warning(
        "retry_scheduled", attempt=details.retry_num, retry_seconds=round(details.wait_for, 2), error=text
    )


class LibraryFormatter(logging.Formatter):
    """Formats what libraries log: the first line only, for others quote what was at work, and no messages of errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and where an error was raised."""
        text = line(f"{record.levelname} {record.name} {record.getMessage().partition(chr(10))[0]}")
        error = record.exc_info[1] if record.exc_info else None
        return f"{text}\n{traced(error)}" if error is not None else text


def configure(level: str, form: str) -> None:
    """Set up logging; `form` is json, console, or auto: console on a terminal, json elsewhere."""
    lines: Any = NonBlockingStream(sys.stderr)
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        if console
        else structlog.processors.JSONRenderer(json_text)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
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
    set_on_retry_hooks([_log_retry])
    # Libraries log through the standard library; only what they warn of matters here.
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LibraryFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # What ends its loop is logged where that begins again; what it could not write in an outage it writes later.
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL + 1)
    # They quote whole answers of the identity service that they cannot read; our errors say what those come to.
    for quoting in ("msal", "urllib3"):
        logging.getLogger(quoting).setLevel(logging.CRITICAL + 1)
