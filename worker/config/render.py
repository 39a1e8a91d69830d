"""The effective configuration as TOML; what is not known to be harmless is masked."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import (
    SecretStr,
)

from worker.config.models import Settings, Where
from worker.config.values import ADDRESS, Cron, is_address, plain_duration

_MASK = "********"


_SHOWN_PARAMETER = re.compile(
    r"(?:sslmode|sslrootcert|target_session_attrs|channel_binding|connect_timeout|gssencmode)=[\w./-]*", re.ASCII
)


def render(settings: Settings) -> str:
    """Write the effective configuration as TOML, secrets masked."""
    lines: list[str] = []
    for section in Settings.model_fields:
        value = getattr(settings, section)
        tables = (
            {f"accounts.{name}": account for name, account in value.items()}
            if section == "accounts"
            else {section: value}
        )
        if section == "notify":
            tables |= {f"notify.channels.{name}": channel for name, channel in value.channels.items()}
        for title, table in tables.items():
            named = [key for key in type(table).model_fields if key != "channels"]
            lines += ["", f"[{title}]", *(f"{key} = {_toml(getattr(table, key), key)}" for key in named)]
    return "\n".join(lines[1:]) + "\n"


def _toml(value: Any, key: str = "") -> str:
    """Write a value; of a secret, and of a text that is not known to be harmless, only that there is one."""
    match value:
        case SecretStr():
            text = value.get_secret_value()
            return json.dumps(text if text in ("", "embedded") else _masked_url(text))
        case timedelta():
            return json.dumps(plain_duration(value))
        case Cron(line):
            return json.dumps(line)
        case None:
            return '""'
        case Where():
            named = {key: value for key, value in value.model_dump().items() if value}
            return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in named.items()) + " }" if named else "{}"
        case bool() | int() | float():
            return json.dumps(value)
        case list() | tuple() if key != "command":
            return f"[{', '.join(_toml(one) for one in value)}]"
        case [program, *arguments]:
            return json.dumps([_plain_or_masked(program), *([_MASK] * len(arguments))])
        case Path():
            return json.dumps(str(value))
        case _:
            return json.dumps(_plain_or_masked(str(value)))


def _plain_or_masked(text: str) -> str:
    return text if re.fullmatch(r"[\w .:/\[\]*,+-]*", text) else _MASK


def _masked_url(text: str) -> str:
    """Keep of a database address what is known to be harmless; nothing of any other secret."""
    found = ADDRESS.fullmatch(text)
    if found is None or not is_address(text):
        return _MASK
    user = "" if found["user"] is None else f"{found['user']}{f':{_MASK}' if found['password'] else ''}@"
    shown = "&".join(one for one in (found["query"] or "").split("&") if _SHOWN_PARAMETER.fullmatch(one))
    return f"{found['scheme']}://{user}{found['hosts']}{found['name'] or ''}{f'?{shown}' if shown else ''}"
