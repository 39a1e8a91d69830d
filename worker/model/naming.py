"""Names of members that no document has: which of them may be shown and stored.

A source may put anything in place of a name, also an address or a phone number, as where an array became an object that
is keyed by it. So a name is shown only where it looks like one.
"""

from __future__ import annotations

import re

WITHHELD = "(withheld)"
"""What is shown in place of a name that does not look like one."""

_NAME = re.compile(r"@?[A-Za-z_$][A-Za-z0-9_$-]{0,79}(?:[@.](?:odata|microsoft)\.[A-Za-z0-9_.]{1,80})?", re.ASCII)
_ANNOTATION = re.compile(r"@?(?:odata|microsoft)\.[A-Za-z0-9_.]{1,80}", re.ASCII)
_LONG_NUMBER = re.compile(r"\d{5}")


def is_name(member: str) -> bool:
    """Return whether this looks like the name of a member: letters, digits, few signs; no address, no long number."""
    return bool(_NAME.fullmatch(member) or _ANNOTATION.fullmatch(member)) and not _LONG_NUMBER.search(member)


def shown(member: str) -> str:
    """Return a name as it may be logged and stored beside the data."""
    return member if is_name(member) else WITHHELD
