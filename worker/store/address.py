"""Addresses as PostgreSQL's own clients take them: what the driver would hand to the server as a setting is its own."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

_CLIENT_ONLY = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    }
)
"""Parameters of libpq that say how the client connects; ours has limits of its own for the same."""


POSTGRESQL_PORT = 5432
_SIGN_IN = frozenset({"user", "password", "passfile", "sslcert", "sslkey", "sslpassword"})


def without_sign_in(url: str) -> str:
    """Return the address without whom it signs in as, for somebody who signs in as another."""
    parts = urlsplit(url)
    kept = [one for one in parts.query.split("&") if one.partition("=")[0] not in _SIGN_IN]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(kept)).geturl()


def place(url: str) -> str:
    """Return the host and port of an address, as an error may show them; empty where it names none."""
    parts = urlsplit(url)
    try:
        return f"{parts.hostname}:{parts.port or POSTGRESQL_PORT}" if parts.hostname else ""
    except ValueError:
        return ""


def driver_address(url: str) -> tuple[str, dict[str, Any]]:
    """Return the address as the driver reads it, and what is handed to it besides.

    `sslrootcert=system` verifies with the system's certificate authorities.
    """
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in given if name not in _CLIENT_ONLY]
    if ("sslrootcert", "system") not in kept:
        return (url if kept == given else parts._replace(query=urlencode(kept)).geturl()), {}
    kept = [(name, value) for name, value in kept if name not in ("sslrootcert", "sslmode")]
    return parts._replace(query=urlencode(kept)).geturl(), {"ssl": ssl.create_default_context()}
