"""What strangers wrote, made safe to show: templates escape it for HTML, this makes visible what would not be seen."""

from __future__ import annotations

import unicodedata
from typing import Any

from markupsafe import Markup

_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Format characters that scripts and emoji need, and that turn nothing round."""

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def visible(value: Any) -> Any:
    """Spell out control and format characters, such as those that turn the direction of text round."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in _UNSEEN and sign not in _JOINERS
        else sign
        for sign in value
    )
