r"""What strangers wrote, made harmless to whoever looks at it: a terminal, a log, a page.

Escape sequences steer a terminal, C1 codes do so too, and bidirectional controls make a text read as another. They are
shown as Python writes them: `\x1b`, `\x9b`, `\u202e`.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Format characters that scripts and emoji need, and that turn nothing round."""


def line(text: str) -> str:
    """Return a text as one line that shows everything and steers nothing."""
    return text if text.isprintable() else "".join(map(_shown, text))


def block(text: str) -> str:
    """Do the same with a text of several lines, which stay lines."""
    return "\n".join(map(line, text.split("\n")))


def json_text(value: Any, **settings: Any) -> str:
    """Write a value as JSON, times in ISO 8601, whatever else is none of JSON as text; DEL is escaped too.

    `settings` are those of `json.dumps`.
    """
    return json.dumps(value, **{"default": _plain, **settings}).replace("\x7f", "\\u007f")


def _plain(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _shown(sign: str) -> str:
    if sign.isprintable() or sign in _JOINERS or unicodedata.category(sign) == "Zs":
        return sign
    return sign.encode("unicode_escape").decode()
