"""What there is to set: each section, its keys, types and defaults."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

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

from worker.config.values import (
    Certificates,
    ChannelUrl,
    Cron,
    DatabaseUrl,
    Digest,
    Duration,
    HttpsOrigin,
    Identifier,
    Label,
    Link,
    Listen,
    NotEmpty,
    Origin,
    PrivateFile,
    RedirectUri,
    When,
    Words,
    Zone,
    items,
    plain_names,
)

PREFIX = "REFERRAL_SYNC_"
EventName = Literal["new", "due", "overdue", "expired", "closed", "value_changed", "action_required", "stale"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


class DatabaseSection(_Section):
    """Where the copy is: an address, or "embedded" with the folder of its data and its port, 0 for one that is kept."""

    url: DatabaseUrl
    data_dir: Path = Path(".referral-sync/postgres")
    port: int = Field(0, ge=0, le=65_535)

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the server that we start ourselves."""
        return self.url.get_secret_value() == "embedded"


class ApiSection(_Section):
    """The source: its origin, and how it is read."""

    base_url: Origin = "https://api.partner.microsoft.com"
    authority: HttpsOrigin = "https://login.microsoftonline.com"
    ca_file: Certificates = None
    paging: Literal["auto", "keyset", "scan", "sweep"] = "auto"
    concurrency: int = Field(2, ge=1, le=32)
    max_page_bytes: int = Field(67_108_864, ge=65_536)


class _SignIn(_Section):
    """What all accounts have, however they sign in."""

    label: Label = ""


class StaticToken(_SignIn):
    """An access token that somebody else renews."""

    auth: Literal["static_token"]
    access_token: NotEmpty


class TokenCommand(_SignIn):
    """A program that prints an access token."""

    auth: Literal["command"]
    command: list[str] = Field(min_length=1, repr=False)


class RefreshToken(_SignIn):
    """The Secure Application Model: a person signs in once, with MFA; refresh tokens follow one another from then on.

    `refresh_token` may be configured, or come from `login`.
    """

    auth: Literal["refresh_token"]
    tenant_id: Identifier
    client_id: Identifier
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")
    redirect_uri: RedirectUri = "http://localhost"


class DeviceCode(_SignIn):
    """A person signs in once on another device, as a public application; then as with a refresh token."""

    auth: Literal["device_code"]
    tenant_id: Identifier
    client_id: Identifier


class Password(_SignIn):
    """User and password: cannot do MFA and ends when the password does; discouraged."""

    auth: Literal["password"]
    tenant_id: Identifier
    client_id: Identifier
    client_secret: SecretStr = SecretStr("")
    username: NotEmpty
    password: NotEmpty


Account = Annotated[RefreshToken | DeviceCode | Password | StaticToken | TokenCommand, Field(discriminator="auth")]


ACCOUNT_MODELS: tuple[type[BaseModel], ...] = (RefreshToken, DeviceCode, Password, StaticToken, TokenCommand)


class ScheduleSection(_Section):
    """When the daemon works."""

    incremental: When = timedelta(minutes=5)
    reconcile: When = Cron("30 3 * * *")
    timezone: Zone = "UTC"


class SyncSection(_Section):
    """How much is read again, how much may be marked as deleted, and how long runs are remembered."""

    overlap: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=7))] = timedelta(minutes=10)
    max_vanished_percent: float = Field(10, ge=0, le=100)
    keep_runs: Annotated[Duration, Field(ge=timedelta(hours=1))] = timedelta(days=90)
    keep_unchanged_runs: Annotated[Duration, Field(ge=timedelta(hours=1))] = timedelta(days=2)


class ScaleSection(_Section):
    """How much a process takes upon itself; nobody has to touch it."""

    processes: int = Field(0, ge=0, le=32)
    jobs_at_once: int = Field(10, ge=2, le=100)


class PrivacySection(_Section):
    """What is stored of people: customer contacts, phone numbers and notes."""

    contacts: Literal["keep", "hash", "drop"] = "keep"
    after_expiry: Literal["history", "keep", "erase"] = "history"


class SecuritySection(_Section):
    """The keys that seal what is stored of sign-ins: one on a line, the newest first."""

    key_file: PrivateFile = None


class BiSection(_Section):
    """What dashboards read: in which time zone days begin and end."""

    timezone: Zone = "UTC"


class Where(_Section):
    """Which referrals a channel covers: those that match all that is named."""

    direction: Words = []
    mpn_id: Words = []
    seller: Words = []
    country: Words = []
    deal_type: Words = []


class Channel(_Section):
    """Where messages go, and which. Days and times are in `bi.timezone`."""

    url: ChannelUrl
    accounts: Words = []
    events: Annotated[list[EventName], BeforeValidator(items)] = list(get_args(EventName))
    where: Where = Where()
    due_days: Annotated[
        list[Annotated[int, Field(ge=1, le=365)]],
        BeforeValidator(items),
        AfterValidator(lambda days: sorted(set(days), reverse=True)),
    ] = [7, 3, 1]
    digest: Digest = None


class NotifySection(_Section):
    """Who is notified of what; nothing is sent without a channel."""

    link: Link = ""
    channels: Annotated[dict[str, Channel], AfterValidator(lambda value: plain_names(value, "channel"))] = {}


class HttpSection(_Section):
    """The ops endpoint."""

    listen: Listen = "127.0.0.1:8080"
    token: SecretStr = SecretStr("")
    account_metrics: bool | Literal["auto"] = "auto"


class LogSection(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(BaseSettings):
    """Everything that can be configured; keys are as in `config.example.toml`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    database: DatabaseSection
    api: ApiSection = ApiSection()
    accounts: Annotated[
        dict[str, Account], AfterValidator(lambda value: plain_names(value, "account")), Field(min_length=1)
    ]
    schedule: ScheduleSection = ScheduleSection()
    sync: SyncSection = SyncSection()
    scale: ScaleSection = ScaleSection()
    privacy: PrivacySection = PrivacySection()
    security: SecuritySection = SecuritySection()
    bi: BiSection = BiSection()
    notify: NotifySection = NotifySection()
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()

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


class ReaderSettings(Settings):
    """Settings of what only reads the database: no account has to be configured where it runs."""

    accounts: Annotated[dict[str, Account], AfterValidator(lambda value: plain_names(value, "account"))] = {}
