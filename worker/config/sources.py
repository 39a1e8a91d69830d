"""Where the configuration comes from: TOML, environment and secret files, and every fault of them at once."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    ValidationError,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from worker.config.models import ACCOUNT_MODELS, PREFIX, Channel, ReaderSettings, Settings, Where
from worker.errors import ConfigError

_NOT_SETTINGS = frozenset({"CONFIG", "SECRETS_DIR"})


_SERVICE = re.compile(
    r"(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into each pod for a Service, here for one whose name begins as our variables do."""


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None, *, needs_accounts: bool = True) -> Settings:
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
        settings = _with_sources(known, toml, Settings if needs_accounts else ReaderSettings)()
    except ValidationError as error:
        faults += [_fault_text(fault) for fault in error.errors(include_url=False, include_input=False)]
    except ValueError as error:
        faults.append(str(error))
    else:
        if not faults:
            return settings
    path = folder / (environ.get(f"{PREFIX}CONFIG", "") or "config.toml")
    looked = f"{path} was read" if toml else f"there is nothing in {path}" if path.exists() else f"there is no {path}"
    raise ConfigError(
        sorted(set(faults)), f"Fix these in the configuration ({looked}); config.example.toml describes every key."
    )


def keys() -> list[str]:
    """Name every key as `section.key`; an account's as `accounts.*.key`, a channel's as `notify.channels.*.key`."""
    named = [
        f"{section}.{key}"
        for section, info in Settings.model_fields.items()
        for key in getattr(info.annotation, "model_fields", ())
    ]
    named += [f"notify.channels.*.{key}" for key in Channel.model_fields]
    named += [f"notify.channels.*.where.{key}" for key in Where.model_fields]
    return named + sorted({f"accounts.*.{key}" for model in ACCOUNT_MODELS for key in model.model_fields})


def _with_sources(variables: Mapping[str, str], toml: dict[str, Any], model: type[Settings]) -> type[Settings]:
    """Bind the model to these values in place of the process's own environment."""

    class Variables(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in variables.items()}

        def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
            try:
                return super().decode_complex_value(field_name, field, value)
            except ValueError:
                return value  # the field itself says what it needs

    class Toml(PydanticBaseSettingsSource):
        def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - their signature
            return toml.get(field_name), field_name, False

        def __call__(self) -> dict[str, Any]:
            return toml

    class Bound(model):  # type: ignore[misc, valid-type]
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
    if parts[:2] == ["notify", "channels"] and len(parts) > 3:  # noqa: PLR2004 - notify.channels.NAME.KEY
        parts[2] = "*"
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


def _fault_text(fault: Any) -> str:
    tags = {tag for model in ACCOUNT_MODELS for tag in get_args(model.model_fields["auth"].annotation)}
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
