"""The settings: precedence, every fault at once, and no secret shown."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from worker.config.models import Channel
from worker.config.render import render
from worker.config.sources import keys, load
from worker.config.values import Cron, exposed, plain_duration
from worker.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
GOOD = {
    "REFERRAL_SYNC_DATABASE__URL": "postgresql://u:hidden-password@db/x",
    "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "static_token",
    "REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "hidden-token",
}


def faults(environ: dict[str, str], folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ, folder)
    assert "hidden" not in str(caught.value)
    return caught.value.faults


def test_variables_before_secret_files_before_toml_before_defaults(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (tmp_path / "config.toml").write_text('[api]\npaging = "scan"\nconcurrency = 5\n[log]\nlevel = "debug"\n')
    (secrets / "REFERRAL_SYNC_API__PAGING").write_text("sweep\n")
    (secrets / "referral_sync_log__level").write_text("error")
    (secrets / "unrelated").write_text("x")
    environ = GOOD | {"REFERRAL_SYNC_SECRETS_DIR": str(secrets), "referral_sync_log__level": "warning"}
    settings = load(environ, tmp_path)
    assert (settings.log.level, settings.api.paging, settings.api.concurrency) == ("warning", "sweep", 5)
    assert settings.sync.overlap == timedelta(minutes=10)


def test_a_secret_may_be_in_a_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    environ = {name: value for name, value in GOOD.items() if "TOKEN" not in name}
    environ["REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN_FILE"] = str(tmp_path / "token")
    account: Any = load(environ, tmp_path).accounts["contoso"]
    assert account.access_token.get_secret_value() == "from-a-file"
    environ["REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN_FILE"] = str(tmp_path / "absent")
    assert any("access_token" in fault and "cannot be read" in fault for fault in faults(environ, tmp_path))


def test_an_account_is_called_by_its_label_or_its_name(tmp_path: Path) -> None:
    assert load(GOOD, tmp_path).labels() == {"contoso": "contoso"}
    environ = GOOD | {"REFERRAL_SYNC_ACCOUNTS__CONTOSO__LABEL": " Contoso Österreich "}
    assert load(environ, tmp_path).labels() == {"contoso": "Contoso Österreich"}


def test_every_fault_at_once_each_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        """
        [api]
        base_url = "http://example.com"
        paging = "guess"
        concurrency = "many"
        colour = "red"
        [accounts.contoso]
        auth = "static_token"
        [accounts."Bad Name"]
        auth = "command"
        command = ["x"]
        [schedule]
        incremental = "5 minutes"
        reconcile = "61 3 * * *"
        timezone = "Atlantis"
        [http]
        listen = "8080"
        """
    )
    found = faults({"REFERRAL_SYNC_LOG__LEVL": "info"}, tmp_path)
    for key in (
        "database: is missing",
        "api.base_url: https is needed",
        "api.paging:",
        "api.concurrency:",
        "api.colour: no such key",
        "accounts.contoso.access_token: is missing",
        "schedule.incremental:",
        "schedule.reconcile: not a cron line",
        "schedule.timezone:",
        "http.listen:",
        "REFERRAL_SYNC_LOG__LEVL: no such setting; did you mean REFERRAL_SYNC_LOG__LEVEL?",
    ):
        assert any(fault.startswith(key) for fault in found), (key, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"REFERRAL_SYNC_DATABASE__URL": ""}, "database.url"),
        ({"REFERRAL_SYNC_DATABASE__URL": "mysql://hidden@x"}, "database.url"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "magic"}, "accounts.contoso: auth must be one of command"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": " "}, "accounts.contoso.access_token: must not be empty"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__COMMAND": '["x"]'}, "accounts.contoso.command: no such key"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__LABEL": "two\nlines"}, "accounts.contoso.label"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__LABEL": "x" * 81}, "accounts.contoso.label"),
        ({"REFERRAL_SYNC_ACCOUNTS__BAD NAME__AUTH": "command"}, "accounts"),
        ({"REFERRAL_SYNC_API__BASE_URL": "https://example.com/v1"}, "api.base_url"),
        ({"REFERRAL_SYNC_API__BASE_URL": "https://u:hidden@example.com"}, "api.base_url"),
        ({"REFERRAL_SYNC_API__MAX_PAGE_BYTES": "10"}, "api.max_page_bytes"),
        ({"REFERRAL_SYNC_SYNC__OVERLAP": "30d"}, "sync.overlap"),
        ({"REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "0s"}, "schedule.incremental"),
        ({"REFERRAL_SYNC_SECRETS_DIR": "absent"}, "REFERRAL_SYNC_SECRETS_DIR"),
        ({"REFERRAL_SYNC_CONFIG": "absent.toml"}, "REFERRAL_SYNC_CONFIG"),
    ],
    ids=lambda value: next(iter(value.items())) if isinstance(value, dict) else "",
)
def test_each_fault_names_its_key(change: dict[str, str], message: str, tmp_path: Path) -> None:
    found = faults(GOOD | change, tmp_path)
    assert any(fault.startswith(message) for fault in found), found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "tcp://10.0.0.1:8080"),
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("SERVICE_PORT_HTTP", "8080"),
        ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PORT_8080_TCP_PROTO", "tcp"),
        ("PORT_8080_TCP_PORT", "8080"),
        ("PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("DB_PORT_5432_TCP", "tcp://10.0.0.2:5432"),
        ("DB_SERVICE_HOST", "10.0.0.2"),
    ],
)
def test_what_kubernetes_injects_for_a_service_is_no_fault(name: str, value: str, tmp_path: Path) -> None:
    load(GOOD | {f"REFERRAL_SYNC_{name}": value}, tmp_path)
    assert faults(GOOD | {f"REFERRAL_SYNC_API__{name}": value}, tmp_path), "a misspelt setting is one all the same"


@pytest.mark.parametrize("line", ["0 0 31 2 *", "0 0 * * 8"])
def test_a_cron_line_that_never_fires_is_a_fault(line: str, tmp_path: Path) -> None:
    found = faults(GOOD | {"REFERRAL_SYNC_SCHEDULE__RECONCILE": line}, tmp_path)
    assert any(fault.startswith("schedule.reconcile: not a cron line") for fault in found), found


def test_line_ends_and_a_byte_order_mark_are_trimmed(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(b"\xef\xbb\xbfhidden\r\n\n")
    environ = GOOD | {"REFERRAL_SYNC_HTTP__TOKEN_FILE": str(secret), "REFERRAL_SYNC_LOG__LEVEL": "\ufeffdebug\r\n"}
    (tmp_path / "config.toml").write_bytes(b'\xef\xbb\xbf[bi]\r\ntimezone = "Europe/Berlin"\r\n')
    settings = load(environ, tmp_path)
    assert settings.http.token.get_secret_value() == "hidden"
    assert (settings.log.level, settings.bi.timezone) == ("debug", "Europe/Berlin")


def test_a_misspelt_secret_file_is_a_fault(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "REFERRAL_SYNC_DATABASE__ULR").write_text("hidden")
    found = faults(GOOD | {"REFERRAL_SYNC_SECRETS_DIR": str(secrets)}, tmp_path)
    assert found == [
        "REFERRAL_SYNC_DATABASE__ULR: no such setting; did you mean REFERRAL_SYNC_DATABASE__URL?",
    ]


def test_bad_toml_is_a_fault_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[api]\npaging = \n")
    assert any("line 2" in fault for fault in faults(GOOD, tmp_path))


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8700", "http://localhost:1", "http://[::1]:1", "https://example.com"]
)
def test_plain_http_is_for_loopback_only(host: str, tmp_path: Path) -> None:
    assert load(GOOD | {"REFERRAL_SYNC_API__BASE_URL": host}, tmp_path).api.base_url == host


def test_rendered_it_reads_the_same_and_hides_secrets(tmp_path: Path) -> None:
    environ = GOOD | {"REFERRAL_SYNC_HTTP__TOKEN": "hidden-too", "REFERRAL_SYNC_SCHEDULE__INCREMENTAL": "*/7 * * * *"}
    settings = load(environ, tmp_path)
    text = render(settings)
    assert "hidden" not in text + repr(settings) + str(settings)
    assert "@db/x" in text
    (tmp_path / "config.toml").write_text(text)
    again = load({}, tmp_path)
    assert again.schedule.incremental == Cron("*/7 * * * *")
    assert (again.api, again.sync, again.log) == (settings.api, settings.sync, settings.log)


def test_the_example_names_every_key_and_holds_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    optional = "command|access_token|username|password|url|accounts|events|where|due_days|digest"
    whole = tomllib.loads(re.sub(rf"(?m)^# ((?:{optional}) =|\[notify)", r"\1", text))
    channel = whole["notify"]["channels"]["sales"]
    named = {f"notify.channels.*.{key}" for key in channel}
    named |= {f"notify.channels.*.where.{key}" for key in channel["where"]}
    assert Channel.model_validate(channel) == Channel.model_validate({"url": channel["url"], "where": channel["where"]})
    named |= {
        f"{section}.{key}" if section != "accounts" else f"accounts.*.{inner}"
        for section, table in whole.items()
        for key, value in table.items()
        for inner in (value if section == "accounts" else [key])
    }
    assert named == set(keys())
    (tmp_path / "config.toml").write_text(text)
    example = load({}, tmp_path)
    bare = load(GOOD, Path("/"))
    for section in ("api", "schedule", "sync", "http", "log"):
        assert getattr(example, section) == getattr(bare, section)
    assert example.database.data_dir == bare.database.data_dir
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            assert lines[number - 1].startswith("#"), f"no comment above {line}"


@pytest.mark.parametrize("text", ["1s", "90s", "5m", "1h", "36h", "2d"])
def test_durations_round_trip(text: str, tmp_path: Path) -> None:
    settings = load(GOOD | {"REFERRAL_SYNC_SYNC__OVERLAP": text}, tmp_path)
    assert plain_duration(settings.sync.overlap) == text


@pytest.mark.parametrize("sign", ["/", "?", "#", "[", "@/"])
def test_a_password_that_is_not_encoded_is_a_fault_that_does_not_show_it(sign: str, tmp_path: Path) -> None:
    text = faults(GOOD | {"REFERRAL_SYNC_DATABASE__URL": f"postgresql://u:hid{sign}den@db/x"}, tmp_path)
    assert any(fault.startswith("database.url: ") and "%2F" in fault for fault in text), text
    assert "hid" not in " ".join(text)
    load(GOOD | {"REFERRAL_SYNC_DATABASE__URL": "postgresql://u:hid%2Fden@db:5432,other:5433/x"}, tmp_path)


PASSWORDS = (
    *("hid/den", "hid?den", "hid#den", "hid[den", "hid]den", "12/hidden", "12?hidden", "12#hidden", "/hidden"),
    *("h i,d:d=e&n", "hid@den", "hid%2Fden"),
)
PLACES = (
    "postgresql://u:{}@db/x", "postgresql://u:{}@db:5432/x", "postgresql://u:{}@db,other/x", "postgresql://u:{}@/x",
    "postgres://u:{}@db", "postgresql://u:{}@", "postgresql://u:{}@[::1]:5432/x?sslmode=require",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("password", PASSWORDS)
def test_no_password_shows_wherever_it_is_taken_to_stand(place: str, password: str, tmp_path: Path) -> None:
    """Refused with what to do about it, or masked; never shown, neither whole nor its larger part."""
    address = place.format(password)
    try:
        settings = load(GOOD | {"REFERRAL_SYNC_DATABASE__URL": address}, tmp_path)
    except ConfigError as refused:
        text = str(refused).replace("%2F", "", 1)
        assert text != str(refused)  # noqa: PT017 - either outcome is good
    else:
        text = render(settings) + repr(settings)
    assert not [word for word in ("hid", "den", "h i", "e&n") if word in text], text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("sslmode=verify-full&sslrootcert=/etc/ca.pem", "?sslmode=verify-full&sslrootcert=/etc/ca.pem"),
        ("password=hidden&sslmode=require", "?sslmode=require"),
        ("sslpassword=hidden&options=-c%20hidden", ""),
        ("sslmode=hidden%40&hidden", ""),
    ],
)
def test_of_parameters_only_those_show_that_are_known_to_be_harmless(query: str, shown: str, tmp_path: Path) -> None:
    settings = load(GOOD | {"REFERRAL_SYNC_DATABASE__URL": f"postgresql://u:hidden@db:5432/x?{query}"}, tmp_path)
    assert f'url = "postgresql://u:********@db:5432/x{shown}"' in render(settings)
    assert "hidden" not in render(settings)


def test_arguments_of_a_command_are_masked(tmp_path: Path) -> None:
    environ = {"REFERRAL_SYNC_DATABASE__URL": "embedded", "REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH": "command"}
    for command, shown in (
        (
            ["/usr/bin/curl", "-u", "bob:hidden", "https://hidden.example"],
            '["/usr/bin/curl", "********", "********", "********"]',
        ),
        (["TOKEN=hidden print"], '["********"]'),
    ):
        settings = load(environ | {"REFERRAL_SYNC_ACCOUNTS__CONTOSO__COMMAND": json.dumps(command)}, tmp_path)
        assert f"command = {shown}" in render(settings)
        assert "hidden" not in render(settings) + repr(settings)


@pytest.mark.parametrize(
    "address", ["http://u:hidden@localhost", "http://localhost/?code=hidden", "http://x/#hidden", "x"]
)
def test_an_address_of_a_browser_that_holds_a_secret_is_a_fault(address: str, tmp_path: Path) -> None:
    account = {"AUTH": "device_code", "TENANT_ID": "t", "CLIENT_ID": "c"} | {
        "AUTH": "refresh_token",
        "REDIRECT_URI": address,
    }
    environ = {f"REFERRAL_SYNC_ACCOUNTS__CONTOSO__{name}": value for name, value in account.items()}
    found = faults(
        {"REFERRAL_SYNC_DATABASE__URL": "embedded", "REFERRAL_SYNC_SECURITY__KEY_FILE": "key"} | environ, tmp_path
    )
    assert [fault.partition(":")[0] for fault in found] == ["accounts.contoso.redirect_uri"]


def test_every_other_text_is_shown_only_where_it_is_plain(tmp_path: Path) -> None:
    settings = load(GOOD, tmp_path)
    odd = settings.model_copy(update={"http": settings.http.model_copy(update={"listen": "u=hidden@x:1"})})
    assert "hidden" not in render(odd)


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("hello", "no certificate")])
def test_a_file_of_certificates_that_cannot_be_used_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "authorities.pem"
    if text is not None:
        path.write_text(text, encoding="ascii")
    with pytest.raises(ConfigError, match=rf"api\.ca_file: .*{message}"):
        load(GOOD | {"REFERRAL_SYNC_API__CA_FILE": str(path)}, tmp_path)


@pytest.mark.parametrize(("mode", "good"), [(0o644, True), (0o444, True), (0o646, False), (0o664, False)])
def test_what_docker_mounts_may_be_read_and_not_changed(mode: int, good: bool) -> None:
    assert (exposed(Path("/run/secrets/sign-in.key"), mode) == "") == good
    assert exposed(Path("/srv/secrets/sign-in.key"), mode)


def test_a_channel_is_a_secret_that_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mailto://hidden:hidden@example.com\n")
    prefix = "REFERRAL_SYNC_NOTIFY__CHANNELS__SALES__"
    settings = load(GOOD | {f"{prefix}URL_FILE": str(tmp_path / "url"), f"{prefix}WHERE__COUNTRY": "DE, AT"}, tmp_path)
    channel = settings.notify.channels["sales"]
    assert channel.url.get_secret_value() == "mailto://hidden:hidden@example.com"
    assert channel.where.country == ["DE", "AT"]
    assert "hidden" not in render(settings) + repr(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CHANNELS__SALES__URL", "hidden"),
        ("CHANNELS__SALES__EVENTS", "new,hidden"),
        ("CHANNELS__SALES__DUE_DAYS", "0"),
        ("CHANNELS__SALES__DIGEST", "5m"),
        ("CHANNELS__SALES__ACCOUNTS", "nobody"),
        ("CHANNELS__sales two__URL", "json://hidden"),
        ("LINK", "http://example.com/{id}"),
        ("LINK", "https://example.com/{name}"),
    ],
)
def test_a_channel_that_is_none_is_a_fault(key: str, value: str, tmp_path: Path) -> None:
    sales = {"REFERRAL_SYNC_NOTIFY__CHANNELS__SALES__URL": "json://example.com"}
    (fault,) = faults(GOOD | sales | {f"REFERRAL_SYNC_NOTIFY__{key}": value}, tmp_path)
    assert "notify" in fault.lower()
    assert "hidden" not in fault
