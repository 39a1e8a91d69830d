"""The settings: one model, read from the environment, from secret files and from TOML, every fault at once.

Precedence: environment, then secret files, then the TOML file, then defaults. A variable is
`REFERRAL_SYNC_SECTION__KEY`; a secret file carries the same name in the secrets directory, or is named by the variable
with `_FILE` behind it. Nothing of a secret's value appears in a fault or in `repr`.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import ConfigError

PREFIX = "REFERRAL_SYNC_"
ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NOT_SETTINGS = frozenset({"CONFIG", "SECRETS_DIR"})
_MASK = "********"
_SERVICE = re.compile(
    r"(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into each pod for a Service, here for one whose name begins as our variables do."""
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


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its own loopback name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != "embedded" and text.partition("://")[0] not in ("postgresql", "postgres"):
        raise ValueError('"embedded" or an address such as postgresql://user:password@host:5432/name is needed')
    if text != "embedded" and not _is_whole(text):
        raise ValueError("signs such as / ? # [ @ in a user or password must be percent-encoded: / as %2F, @ as %40")
    return value


def _is_whole(address: str) -> bool:
    """Say whether an address reads as it was meant: what stands behind the first `/`, `?` or `#` holds no user."""
    try:
        parts = urlsplit(address)
        return (parts.port is None or parts.port > 0) and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        hosts = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
        return "," in hosts  # several, each with its port


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


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("must not be empty")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
When = Annotated[timedelta | Cron, BeforeValidator(_schedule)]
Origin = Annotated[str, AfterValidator(_origin)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


class Database(_Section):
    """Where the copy is: an address, or "embedded" with the folder of its data."""

    url: Annotated[SecretStr, AfterValidator(_database_url)]
    data_dir: Path = Path(".referral-sync/postgres")


class Api(_Section):
    """The source: its origin, and how it is read."""

    base_url: Origin = "https://api.partner.microsoft.com"
    authority: Annotated[str, AfterValidator(_https_origin)] = "https://login.microsoftonline.com"
    ca_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    paging: Literal["auto", "keyset", "scan", "sweep"] = "auto"
    concurrency: int = Field(2, ge=1, le=32)
    max_page_bytes: int = Field(67_108_864, ge=65_536)


class StaticToken(_Section):
    """An access token that somebody else renews."""

    auth: Literal["static_token"]
    access_token: Annotated[SecretStr, AfterValidator(_not_empty)]


class TokenCommand(_Section):
    """A program that prints an access token."""

    auth: Literal["command"]
    command: list[str] = Field(min_length=1)


_Name = Annotated[str, AfterValidator(_identifier)]


class RefreshToken(_Section):
    """The Secure Application Model: a person signs in once, with MFA; refresh tokens follow one another from then on.

    `refresh_token` may be configured, or come from `login`.
    """

    auth: Literal["refresh_token"]
    tenant_id: _Name
    client_id: _Name
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")
    redirect_uri: str = "http://localhost"


class DeviceCode(_Section):
    """A person signs in once on another device, as a public application; then as with a refresh token."""

    auth: Literal["device_code"]
    tenant_id: _Name
    client_id: _Name


class Password(_Section):
    """User and password: cannot do MFA and ends when the password does; discouraged."""

    auth: Literal["password"]
    tenant_id: _Name
    client_id: _Name
    client_secret: SecretStr = SecretStr("")
    username: Annotated[SecretStr, AfterValidator(_not_empty)]
    password: Annotated[SecretStr, AfterValidator(_not_empty)]


Account = Annotated[RefreshToken | DeviceCode | Password | StaticToken | TokenCommand, Field(discriminator="auth")]
_ACCOUNTS: tuple[type[BaseModel], ...] = (RefreshToken, DeviceCode, Password, StaticToken, TokenCommand)


class Schedule(_Section):
    """When the daemon works."""

    incremental: When = timedelta(minutes=5)
    reconcile: When = Cron("30 3 * * *")
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


class Sync(_Section):
    """How much is read again, how much may vanish, and how long runs are remembered."""

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

    key_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None


class Bi(_Section):
    """What dashboards read: in which time zone days begin and end."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


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
    for name in value:
        if not ACCOUNT_NAME.fullmatch(name):
            raise ValueError(f"the account name {name!r} may hold a-z, 0-9, - and _ only")
    return value


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
    http: Http = Http()
    log: Log = Log()

    @model_validator(mode="after")
    def _stored_sign_ins_have_a_key(self) -> Self:
        needing = [name for name, one in self.accounts.items() if isinstance(one, RefreshToken | DeviceCode)]
        if needing and self.security.key_file is None:
            told = f"security.key_file: is needed to store the sign-in of {', '.join(sorted(needing))}"
            raise ValueError(f"{told}; make one as config.example.toml says")
        return self


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Read the settings; raises ConfigError with every fault at once, each beginning with its key."""
    environ = os.environ if environ is None else environ
    faults: list[str] = []
    folder = cwd if cwd is not None else _here(faults)
    toml = _read_toml(environ, folder, faults)
    variables = _read_secret_files(environ, faults) | {
        name.upper(): _trimmed(value) for name, value in environ.items() if name.upper().startswith(PREFIX)
    }
    known = {name: value for name, value in variables.items() if _is_setting(name, faults)}
    try:
        settings = _with_sources(known, toml)()
    except ValidationError as error:
        faults += [_told(fault) for fault in error.errors(include_url=False, include_input=False)]
    except ValueError as error:
        faults.append(str(error))
    else:
        if not faults:
            return settings
    raise ConfigError(sorted(set(faults)), "Mend these in the configuration; config.example.toml describes every key.")


def keys() -> list[str]:
    """Name every key as `section.key`; an account's as `accounts.*.key`."""
    named = [
        f"{section}.{key}"
        for section, info in Settings.model_fields.items()
        for key in getattr(info.annotation, "model_fields", ())
    ]
    return named + sorted({f"accounts.*.{key}" for model in _ACCOUNTS for key in model.model_fields})


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
        for title, table in tables.items():
            lines += ["", f"[{title}]", *(f"{key} = {_toml(getattr(table, key))}" for key in type(table).model_fields)]
    return "\n".join(lines[1:]) + "\n"


def plain_duration(value: timedelta) -> str:
    """Write a duration in its largest whole unit."""
    seconds = int(value.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def _with_sources(variables: Mapping[str, str], toml: dict[str, Any]) -> type[Settings]:
    """Bind the model to these values in place of the process's own environment."""

    class Variables(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in variables.items()}

    class Toml(PydanticBaseSettingsSource):
        def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - their signature
            return toml.get(field_name), field_name, False

        def __call__(self) -> dict[str, Any]:
            return toml

    class Bound(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_args: Any, **_kwargs: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return Variables(settings_cls), Toml(settings_cls)

    return Bound


def _here(faults: list[str]) -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        faults.append(f"the working directory cannot be read ({error.strerror}): start from another one")
        return Path("/")


def _read_toml(environ: Mapping[str, str], folder: Path, faults: list[str]) -> dict[str, Any]:
    named = environ.get(f"{PREFIX}CONFIG", "")
    path = folder / (named or "config.toml")
    try:
        if not named and not path.exists():
            return {}
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        faults.append(f"{PREFIX}CONFIG: {path.name} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{PREFIX}CONFIG: {path.name} is not UTF-8")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{PREFIX}CONFIG: {path.name} is not valid TOML: {error}")
    return {}


def _read_secret_files(environ: Mapping[str, str], faults: list[str]) -> dict[str, str]:
    named = environ.get(f"{PREFIX}SECRETS_DIR", "")
    folder = Path(named or "/run/secrets")
    files = {}
    try:
        if folder.is_dir():
            files = {path.name.upper(): path for path in folder.iterdir() if path.name.upper().startswith(PREFIX)}
        elif named:
            faults.append(f"{PREFIX}SECRETS_DIR: there is no such folder")
    except OSError as error:
        if named:
            faults.append(f"{PREFIX}SECRETS_DIR: cannot be read: {error.strerror}")
    for name, value in environ.items():
        variable = name.upper()
        if variable.startswith(PREFIX) and variable.endswith("_FILE") and not _names_key(variable):
            files[variable.removesuffix("_FILE")] = Path(value)
    values = {}
    for variable, path in files.items():
        try:
            values[variable] = _trimmed(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            faults.append(f"{_key_of(variable)}: its secret file cannot be read")
    return values


def _trimmed(text: str) -> str:
    """Drop what editors and shells leave around a value: a byte order mark, line ends."""
    return text.removeprefix("\ufeff").rstrip("\r\n")


def _key_of(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("__", ".")


def _names_key(variable: str) -> bool:
    parts = _key_of(variable).split(".")
    if parts[0] == "accounts" and len(parts) == 3:  # noqa: PLR2004 - accounts.NAME.KEY
        parts[1] = "*"
    return ".".join(parts) in keys() or parts == ["accounts"]


def _is_setting(variable: str, faults: list[str]) -> bool:
    """Tell a variable of ours from a misspelt one, which would otherwise be ignored in silence."""
    bare = variable.removeprefix(PREFIX)
    if bare in _NOT_SETTINGS or ("__" not in bare and _SERVICE.fullmatch(bare)):
        return False
    if _names_key(variable):
        return True
    if bare.endswith("_FILE") and _names_key(variable.removesuffix("_FILE")):
        return False
    names = [PREFIX + key.replace(".", "__").upper() for key in keys()]
    near = difflib.get_close_matches(variable, names, n=1, cutoff=0.6)
    faults.append(f"{variable}: no such setting{f'; did you mean {near[0]}?' if near else ''}")
    return False


def _told(fault: Any) -> str:
    tags = {tag for model in _ACCOUNTS for tag in get_args(model.model_fields["auth"].annotation)}
    where = [str(part) for part in fault["loc"]]
    if where[:1] == ["accounts"] and len(where) > 2 and where[2] in tags:  # noqa: PLR2004 - accounts.NAME.TAG.KEY
        del where[2]
    text = {
        "missing": "is missing",
        "extra_forbidden": "no such key",
        "union_tag_not_found": f"auth is missing; one of {', '.join(sorted(tags))}",
        "union_tag_invalid": f"auth must be one of {', '.join(sorted(tags))}",
    }.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))
    return f"{'.'.join(where)}: {text}" if where else text


def _toml(value: Any) -> str:
    match value:
        case SecretStr():
            text = value.get_secret_value()
            return json.dumps(text if text in ("", "embedded") else _masked_url(text) or _MASK)
        case timedelta():
            return json.dumps(plain_duration(value))
        case Cron(line):
            return json.dumps(line)
        case None:
            return '""'
        case bool() | int() | float():
            return json.dumps(value)
        case list():
            return json.dumps(value)
        case _:
            return json.dumps(str(value))


def _masked_url(text: str) -> str:
    """Keep a database address readable without its password; nothing for any other secret."""
    parts = urlsplit(text)
    if parts.scheme not in ("postgresql", "postgres"):
        return ""
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit((parts.scheme, f"{name}:{_MASK}{at}{host}" if at else host, parts.path, "", ""))
