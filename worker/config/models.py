"""What there is to set: each section, its keys, types and defaults."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "REFERRAL_SYNC_"
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


Duration = Annotated[timedelta, BeforeValidator(_duration)]


When = Annotated[timedelta | Cron, BeforeValidator(_schedule)]


Origin = Annotated[str, AfterValidator(_origin)]


EventName = Literal["new", "due", "overdue", "expired", "closed", "value_changed", "action_required", "stale"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


class Database(_Section):
    """Where the copy is: an address, or "embedded" with the folder of its data and its port, 0 for one that is kept."""

    url: Annotated[SecretStr, AfterValidator(_database_url)]
    data_dir: Path = Path(".referral-sync/postgres")
    port: int = Field(0, ge=0, le=65_535)

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the server that we start ourselves."""
        return self.url.get_secret_value() == "embedded"


class Api(_Section):
    """The source: its origin, and how it is read."""

    base_url: Origin = "https://api.partner.microsoft.com"
    authority: Annotated[str, AfterValidator(_https_origin)] = "https://login.microsoftonline.com"
    ca_file: Annotated[Path | None, BeforeValidator(lambda value: value or None), AfterValidator(_certificates)] = None
    paging: Literal["auto", "keyset", "scan", "sweep"] = "auto"
    concurrency: int = Field(2, ge=1, le=32)
    max_page_bytes: int = Field(67_108_864, ge=65_536)


class _SignIn(_Section):
    """What all accounts have, however they sign in."""

    label: Annotated[str, AfterValidator(_label)] = ""


class StaticToken(_SignIn):
    """An access token that somebody else renews."""

    auth: Literal["static_token"]
    access_token: Annotated[SecretStr, AfterValidator(_not_empty)]


class TokenCommand(_SignIn):
    """A program that prints an access token."""

    auth: Literal["command"]
    command: list[str] = Field(min_length=1, repr=False)


_Name = Annotated[str, AfterValidator(_identifier)]


class RefreshToken(_SignIn):
    """The Secure Application Model: a person signs in once, with MFA; refresh tokens follow one another from then on.

    `refresh_token` may be configured, or come from `login`.
    """

    auth: Literal["refresh_token"]
    tenant_id: _Name
    client_id: _Name
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")
    redirect_uri: Annotated[str, AfterValidator(_redirect)] = "http://localhost"


class DeviceCode(_SignIn):
    """A person signs in once on another device, as a public application; then as with a refresh token."""

    auth: Literal["device_code"]
    tenant_id: _Name
    client_id: _Name


class Password(_SignIn):
    """User and password: cannot do MFA and ends when the password does; discouraged."""

    auth: Literal["password"]
    tenant_id: _Name
    client_id: _Name
    client_secret: SecretStr = SecretStr("")
    username: Annotated[SecretStr, AfterValidator(_not_empty)]
    password: Annotated[SecretStr, AfterValidator(_not_empty)]


Account = Annotated[RefreshToken | DeviceCode | Password | StaticToken | TokenCommand, Field(discriminator="auth")]


ACCOUNT_MODELS: tuple[type[BaseModel], ...] = (RefreshToken, DeviceCode, Password, StaticToken, TokenCommand)


class Schedule(_Section):
    """When the daemon works."""

    incremental: When = timedelta(minutes=5)
    reconcile: When = Cron("30 3 * * *")
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


class Sync(_Section):
    """How much is read again, how much may be marked as deleted, and how long runs are remembered."""

    overlap: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=7))] = timedelta(minutes=10)
    max_vanished_percent: float = Field(10, ge=0, le=100)
    keep_runs: Annotated[Duration, Field(ge=timedelta(hours=1))] = timedelta(days=90)
    keep_unchanged_runs: Annotated[Duration, Field(ge=timedelta(hours=1))] = timedelta(days=2)


class Scale(_Section):
    """How much a process takes upon itself; nobody has to touch it."""

    processes: int = Field(0, ge=0, le=32)
    jobs_at_once: int = Field(10, ge=2, le=100)


class Privacy(_Section):
    """What is stored of people: customer contacts, phone numbers and notes."""

    contacts: Literal["keep", "hash", "drop"] = "keep"
    after_expiry: Literal["history", "keep", "erase"] = "history"


class Security(_Section):
    """The keys that seal what is stored of sign-ins: one on a line, the newest first."""

    key_file: Annotated[Path | None, BeforeValidator(lambda value: value or None), AfterValidator(_private)] = None


class Bi(_Section):
    """What dashboards read: in which time zone days begin and end."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


def _names(value: dict[str, Any], what: str) -> dict[str, Any]:
    for name in value:
        if not ACCOUNT_NAME.fullmatch(name):
            raise ValueError(f"the {what} name {name!r} may hold a-z, 0-9, - and _ only")
    return value


def _channel_url(value: SecretStr) -> SecretStr:
    if not re.match(r"[a-zA-Z][a-zA-Z0-9]*://", value.get_secret_value()):
        raise ValueError("a URL in the notation of apprise is needed, such as mailto://user:password@example.com")
    return value


def _list(value: Any) -> Any:
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


Words = Annotated[list[str], BeforeValidator(_list)]


class Where(_Section):
    """Which referrals a channel covers: those that match all that is named."""

    direction: Words = []
    mpn_id: Words = []
    seller: Words = []
    country: Words = []
    deal_type: Words = []


class Channel(_Section):
    """Where messages go, and which. Days and times are in `bi.timezone`."""

    url: Annotated[SecretStr, AfterValidator(_channel_url)]
    accounts: Words = []
    events: Annotated[list[EventName], BeforeValidator(_list)] = list(get_args(EventName))
    where: Where = Where()
    due_days: Annotated[
        list[Annotated[int, Field(ge=1, le=365)]],
        BeforeValidator(_list),
        AfterValidator(lambda days: sorted(set(days), reverse=True)),
    ] = [7, 3, 1]
    digest: Annotated[Cron | None, BeforeValidator(_digest)] = None


class Notify(_Section):
    """Who is notified of what; nothing is sent without a channel."""

    link: Annotated[str, AfterValidator(_link)] = ""
    channels: Annotated[dict[str, Channel], AfterValidator(lambda value: _names(value, "channel"))] = {}


class Http(_Section):
    """The ops endpoint."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    token: SecretStr = SecretStr("")
    account_metrics: bool | Literal["auto"] = "auto"


class Log(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


def _account_names(value: dict[str, Any]) -> dict[str, Any]:
    return _names(value, "account")


class Settings(BaseSettings):
    """Everything that can be configured; keys are as in `config.example.toml`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    database: Database
    api: Api = Api()
    accounts: Annotated[dict[str, Account], AfterValidator(_account_names), Field(min_length=1)]
    schedule: Schedule = Schedule()
    sync: Sync = Sync()
    scale: Scale = Scale()
    privacy: Privacy = Privacy()
    security: Security = Security()
    bi: Bi = Bi()
    notify: Notify = Notify()
    http: Http = Http()
    log: Log = Log()

    def labels(self) -> dict[str, str]:
        """Return what people call each account: its label, else its name."""
        return {name: account.label or name for name, account in self.accounts.items()}

    @model_validator(mode="after")
    def _stored_sign_ins_have_a_key(self) -> Self:
        needing = [name for name, one in self.accounts.items() if isinstance(one, RefreshToken | DeviceCode)]
        if needing and self.security.key_file is None:
            fault = f"security.key_file: is needed to store the sign-in of {', '.join(sorted(needing))}"
            raise ValueError(f"{fault}; make one as config.example.toml says")
        return self

    @model_validator(mode="after")
    def _channels_tell_of_known_accounts(self) -> Self:
        for name, channel in self.notify.channels.items():
            for account in channel.accounts:
                if account not in self.accounts:
                    there = ", ".join(sorted(self.accounts))
                    raise ValueError(f"notify.channels.{name}.accounts: there is no account {account}, but {there}")
        return self


def plain_duration(value: timedelta) -> str:
    """Write a duration in its largest whole unit."""
    seconds = int(value.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"
