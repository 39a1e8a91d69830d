"""Dockerfile and compose file: valid, and every name in them exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from cryptography.fernet import Fernet

from worker import RELEASE, cli
from worker.config.models import ApiSection
from worker.config.sources import keys, load
from worker.config.values import exposed

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def compose() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return tree


def test_compose_file_is_valid(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    good = run(BIN / "check-jsonschema", *schema, "docker-compose.yml")
    assert good.returncode == 0, good.stdout
    misspelt = tmp_path / "docker-compose.yml"
    misspelt.write_text((ROOT / "docker-compose.yml").read_text().replace("depends_on", "depends_upon"))
    assert run(BIN / "check-jsonschema", *schema, misspelt).returncode == 1


def test_dockerfile_has_no_findings(tmp_path: Path) -> None:
    good = run(BIN / "hadolint", "Dockerfile")
    assert good.returncode == 0, good.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    assert run(BIN / "hadolint", bad).returncode == 1


def test_every_name_in_the_compose_file_is_defined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for secret in service.get("secrets", ()):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in compose["secrets"], f"{name}: secret {source}"
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            there = (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"]
            assert there, f"{name}: volume {volume}"
        assert set(service.get("networks", ())) <= compose["networks"].keys()
        assert set(service.get("depends_on", ())) <= compose["services"].keys()


def test_every_variable_and_secret_is_a_setting(compose: dict[str, Any]) -> None:
    known = {"REFERRAL_SYNC_" + key.replace("*", "contoso").replace(".", "__").upper() for key in keys()}
    for service in ("migrate", "worker"):
        given = compose["services"][service]["environment"]
        targets = {secret["target"] for secret in compose["services"][service]["secrets"]}
        variables = {name for name in targets if name.startswith("REFERRAL_SYNC_")}
        assert variables | given.keys() <= known | {"REFERRAL_SYNC_CONFIG"}
        assert "REFERRAL_SYNC_DATABASE__URL" in variables
        assert {f"/run/secrets/{name}" for name in targets - variables} <= set(given.values())


def test_its_first_lines_make_every_secret(compose: dict[str, Any], tmp_path: Path) -> None:
    """What the compose file says to do once is done, and what comes of it is a configuration."""
    lines = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").partition("\nname:")[0].splitlines()
    recipe = [line.removeprefix("#").removeprefix("   ") for line in lines if line.startswith("#   ")]
    recipe = [line.replace('"..."', '"00000000-0000-0000-0000-000000000000"') for line in recipe]
    script = "\n".join(line for line in recipe if not line.startswith("docker "))
    assert any("login --account contoso" in line for line in recipe)
    done = subprocess.run(["/bin/sh", "-eu"], input=script, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    for name, secret in compose["secrets"].items():
        made = tmp_path / secret["file"]
        assert made.stat().st_mode & 0o777 == 0o644, f"{name}: the users of the containers read it"
    worker = compose["services"]["worker"]
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for secret in worker["secrets"]:
        made = tmp_path / compose["secrets"][secret["source"]]["file"]
        assert not exposed(Path("/run/secrets") / secret["target"], made.stat().st_mode)
        shutil.copy(made, mounted / secret["target"])
        (mounted / secret["target"]).chmod(0o600)  # elsewhere than in a container, only its owner may read it
    variables = {name: value.replace("/run/secrets", str(mounted)) for name, value in worker["environment"].items()} | {
        "REFERRAL_SYNC_SECRETS_DIR": str(mounted)
    }
    settings = load(variables, tmp_path)
    assert settings.accounts["contoso"].auth == "refresh_token"
    assert settings.http.token.get_secret_value()
    assert settings.security.key_file == mounted / "sign-in.key"
    Fernet((mounted / "sign-in.key").read_bytes().strip())
    assert settings.database.url.get_secret_value().startswith("postgresql://referral_sync:")


def test_every_service_is_bounded(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory", "pids"}, name
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
    for name in ("migrate", "worker"):
        service = compose["services"][name]
        assert service["deploy"]["resources"]["limits"]["memory"] == "2g"
        api = ApiSection()
        assert 10 * api.max_page_bytes * api.concurrency < 2 << 30, "the limit of memory fits the defaults"
        assert service["image"] == f"referral-sync:{RELEASE}"


def test_every_command_exists(compose: dict[str, Any]) -> None:
    commands = set(getattr(typer.main.get_command(cli.app), "commands"))  # noqa: B009 - a group has it, its type does not say
    assert compose["services"]["migrate"]["command"][0] in commands
    assert compose["services"]["worker"]["command"][0] in commands
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["referral-sync"]' in dockerfile
    assert 'CMD ["run"]' in dockerfile
    assert {"run", "health"} <= commands
    assert "referral-sync health" in dockerfile


def test_the_image_ships_what_runs_only() -> None:
    def names(file: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))

    assert not names("requirements.lock") & {"hatchling", "editables", "pip", "setuptools", "wheel"}
    assert {"hatchling", "editables"} <= names("requirements-build.lock")
    assert names("requirements.lock") | names("requirements-build.lock") <= names("requirements-dev.lock")


def test_the_worker_is_locked_down(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert worker["stop_grace_period"] == "30s"
    assert all(port.startswith("127.0.0.1:") for port in worker["ports"])


def test_the_wheel_holds_the_migrations(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "migrations").rglob("*"):
        if path.suffix in (".py", ".sql"):
            assert f"worker/_migrations/{path.relative_to(ROOT / 'migrations')}" in names
