"""What a value of the configuration may be: its form, checked, and what is wrong with it in a sentence."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


MAX_LABEL = 80


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Cron:
    """A five-field cron line."""

    line: str


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d{1,9})\s*([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a duration such as "90s", "5m", "1h" or "1d" is needed')
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _schedule(value: Any) -> Any:
    if not isinstance(value, str) or len(value.split()) != 5:  # noqa: PLR2004 - the fields of a cron line
        interval = _duration(value)
        if interval < timedelta(seconds=1):
            raise ValueError("an interval is at least 1s")
        return interval
    from worker.config.cron import cron_trigger  # noqa: PLC0415 - slow, and needed for cron lines only

    try:
        cron_trigger(value)
    except ValueError as error:
        raise ValueError(f"not a cron line: {error}") from None
    return Cron(value)


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("an origin such as https://api.partner.microsoft.com is needed, without a path")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an origin has no user, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("https is needed: a token must not travel in clear; http is for a loopback address only")
    return f"{parts.scheme}://{parts.netloc}"


DOCKER_SECRETS = Path("/run/secrets")
"""Where Docker and Compose mount secrets into a container of their own, with the mode that the host's file has."""


def exposed(path: Path, mode: int) -> str:
    """Say what is wrong with the permissions of a file of keys, nothing where they are good.

    Its group may read it, as Kubernetes mounts secrets; nobody else may, but for `DOCKER_SECRETS`, and nobody but its
    owner may write.
    """
    if not mode & (0o022 if path.is_relative_to(DOCKER_SECRETS) else 0o027):
        return ""
    return (
        f"others may read or change the file (mode {mode & 0o777:04o}): `chmod 600` it, or 440 where its group reads it"
    )


def _private(value: Path | None) -> Path | None:
    try:
        fault = exposed(value, value.stat().st_mode) if value is not None else ""
    except OSError:
        fault = ""  # what is missing is said by what needs it
    if fault:
        raise ValueError(fault)
    return value


def _certificates(value: Path | None) -> Path | None:
    """Refuse a file of certificates that could not be used: each request would fail for it."""
    if value is None:
        return None
    import ssl  # noqa: PLC0415 - slow, and needed where a file is named only

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except ssl.SSLError:
        raise ValueError(f"{value} holds no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from None
    return value


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its own loopback name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != "embedded" and text.partition("://")[0] not in ("postgresql", "postgres"):
        raise ValueError('"embedded" or an address such as postgresql://user:password@host:5432/name is needed')
    if text != "embedded" and not is_address(text):
        raise ValueError("/ ? # [ ] @ in a user or password must be percent-encoded: %2F %3F %23 %5B %5D %40")
    return value


_HOST = r"(?:[\w.%~-]*|\[[\w:.%]+\])(?::\d{1,5})?"


ADDRESS = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^:/?#\[\]@]*)(?P<password>:[^/?#\[\]]*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?P<name>/[^/?#@]*)?(?:\?(?P<query>[^#@]*))?"
)
"""The address of a database, of which each part can be distinguished."""


def is_address(address: str) -> bool:
    """Return whether an address reads as it was meant, so that nothing of a password can stand in another part."""
    found = ADDRESS.fullmatch(address)
    ports = re.findall(r":(\d+)(?=,|$)", found["hosts"]) if found is not None else ["0"]
    return all(0 < int(port) <= 65_535 for port in ports)  # noqa: PLR2004 - the largest port


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the largest port
        raise ValueError("host and port are needed, such as 127.0.0.1:8080")
    return value


def _zone(value: str) -> str:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - reads files, and is needed here only

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone such as UTC or Europe/Berlin is needed") from None
    return value


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError("a GUID or a domain name is needed")
    return value


def _https_origin(value: str) -> str:
    origin = _origin(value)
    if not origin.startswith("https://"):
        raise ValueError("https is needed: a sign-in must not travel in clear")
    return origin


def _redirect(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~/-]*)?", value):
        raise ValueError(
            "the address as registered is needed, such as http://localhost, without user, query or fragment"
        )
    return value


def _label(value: str) -> str:
    if not value.isprintable() or len(value) > MAX_LABEL:
        raise ValueError(f"at most {MAX_LABEL} printable characters on one line are needed")
    return value.strip()


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("must not be empty")
    return value


def plain_names(value: dict[str, Any], what: str) -> dict[str, Any]:
    """Refuse names of accounts or channels that are no plain ones."""
    for name in value:
        if not ACCOUNT_NAME.fullmatch(name):
            raise ValueError(f"the {what} name {name!r} may hold a-z, 0-9, - and _ only")
    return value


def _channel_url(value: SecretStr) -> SecretStr:
    if not re.match(r"[a-zA-Z][a-zA-Z0-9]*://", value.get_secret_value()):
        raise ValueError("a URL in the notation of apprise is needed, such as mailto://user:password@example.com")
    return value


def items(value: Any) -> Any:
    """Take a text for a list, with commas between its items, as it stands in a variable; there 7 is a number."""
    if isinstance(value, int):
        return [str(value)]
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


def _digest(value: Any) -> Any:
    if value in ("", None):
        return None
    found = _schedule(value)
    if not isinstance(found, Cron):
        raise ValueError("a cron line is needed, such as 0 8 * * 1-5, or nothing to send at once")
    return found


def _link(value: str) -> str:
    if not value:
        return value
    try:
        value.format(id="", engagement_id="")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ValueError("may hold {id} and {engagement_id}, and no other braces") from None
    if not value.startswith("https://") or re.search(r"[\s<>\"]", value):
        raise ValueError("an address such as https://partner.microsoft.com/... is needed")
    return value


def plain_duration(value: timedelta) -> str:
    """Write a duration in its largest whole unit."""
    seconds = int(value.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_duration)]
When = Annotated[timedelta | Cron, BeforeValidator(_schedule)]
Origin = Annotated[str, AfterValidator(_origin)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
HttpsOrigin = Annotated[str, AfterValidator(_https_origin)]
Certificates = Annotated[Path | None, BeforeValidator(lambda value: value or None), AfterValidator(_certificates)]
PrivateFile = Annotated[Path | None, BeforeValidator(lambda value: value or None), AfterValidator(_private)]
Listen = Annotated[str, AfterValidator(_listen)]
Zone = Annotated[str, AfterValidator(_zone)]
Identifier = Annotated[str, AfterValidator(_identifier)]
RedirectUri = Annotated[str, AfterValidator(_redirect)]
Label = Annotated[str, AfterValidator(_label)]
NotEmpty = Annotated[SecretStr, AfterValidator(_not_empty)]
ChannelUrl = Annotated[SecretStr, AfterValidator(_channel_url)]
Words = Annotated[list[str], BeforeValidator(items)]
Digest = Annotated[Cron | None, BeforeValidator(_digest)]
Link = Annotated[str, AfterValidator(_link)]
