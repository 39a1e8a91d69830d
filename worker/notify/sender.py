"""Sends messages by apprise, as a process of its own: `python -m worker.notify.sender`.

What a service answers, and how long it takes, is its own affair: a process can be ended, and what apprise logs, which
quotes addresses and answers, ends with it. Lines of JSON come in and go out. The first names the channel's URL; each
further one is a message, and the next is read when that one is sent. When the worker dies, so does this process.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from typing import Any

_MEMORY = 1 << 30
"""Bytes; an answer that is larger ends the process, which is a failed attempt."""

_READ_SECONDS = 15.0
_SECONDS = 60
"""Nobody waits for a message any longer; this process ends then by itself, should the worker have exited."""

_STATUS = re.compile(r"error=(\d{3})\b")


class _AppriseLog(logging.Handler):
    """Keeps of what apprise warns of only what it comes to: addresses and answers are not repeated."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the HTTP status, or that no connection came about."""
        text = record.getMessage()
        if found := _STATUS.search(text):
            self.reason = f"the service answered HTTP {found[1]}"
        elif "onnection" in text or "ocket" in text:
            self.reason = "the service cannot be reached, or refused the sign-in"


def main() -> None:
    """Send what comes in until it ends."""
    _bound_memory()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer of ours

    def answer(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    lines = sys.stdin
    url: str = json.loads(lines.readline())["url"]
    try:
        import apprise  # noqa: PLC0415 - an extra, and slow
    except ImportError:
        answer(ok=False, why="apprise is not installed: install referral-sync[notify]")
        return
    log = _AppriseLog()
    logging.getLogger("apprise").addHandler(log)
    schema = url.partition("://")[0].lower()
    service: Any = apprise.Apprise.instantiate(
        url, asset=apprise.AppriseAsset(app_id="referral-sync", secure_logging=True)
    )
    if service is None:
        known = schema in _schemas(apprise)
        answer(
            ok=False,
            why=f"its URL is not as {schema}:// needs it" if known else f"apprise knows no service {schema}://",
        )
        return
    service.socket_read_timeout = max(float(service.socket_read_timeout), _READ_SECONDS)
    is_mail = schema in ("mailto", "mailtos")
    # As text, apprise would escape signs of Markdown where there are none, and addresses with them.
    is_markdown = service.notify_format in (apprise.NotifyFormat.MARKDOWN, (apprise.NotifyFormat.MARKDOWN,))
    longest = int(service.body_maxlen) * (4 if is_markdown else 5) // 5
    answer(ok=True, service=str(service.service_name), longest=longest, title=int(service.title_maxlen))
    for line in lines:
        message = json.loads(line)
        signal.alarm(_SECONDS)
        log.reason = ""
        headers = getattr(service, "headers", None)
        if isinstance(headers, dict):
            headers["Idempotency-Key"] = message["key"]
        many = apprise.Apprise()
        many.add(service)
        body, form = message["text"], apprise.NotifyFormat.TEXT
        if is_mail:
            body, form = message["html"], apprise.NotifyFormat.HTML
        elif is_markdown:
            body, form = re.sub(r"\n+", "\n\n", body), apprise.NotifyFormat.MARKDOWN
        sent = bool(many.notify(title=message["title"], body=body, body_format=form))
        signal.alarm(0)
        answer(ok=sent, why="" if sent else log.reason or "the service did not take it")


def _schemas(apprise: Any) -> set[str]:
    """Name what a URL may begin with."""
    services = apprise.Apprise().details()["schemas"]
    return {one for service in services for key in ("protocols", "secure_protocols") for one in service.get(key) or ()}


def _bound_memory() -> None:
    try:
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # a system without such limits has the one on time


if __name__ == "__main__":
    main()
