"""Dockerfile and compose file: valid, and every name in them exists."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from worker import cli
from worker.config.models import keys

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
    known = {key.replace("*", "contoso").replace(".", "__").upper() for key in keys()}
    for service in ("migrate", "worker"):
        given = list(compose["services"][service]["environment"])
        given += [secret["target"] for secret in compose["services"][service]["secrets"]]
        assert {name.removeprefix("REFERRAL_SYNC_") for name in given} <= known
        assert "REFERRAL_SYNC_DATABASE__URL" in given


def test_every_command_exists(compose: dict[str, Any]) -> None:
    commands = set(getattr(typer.main.get_command(cli.app), "commands"))  # noqa: B009 - a group has it, its type does not say
    assert compose["services"]["migrate"]["command"][0] in commands
    assert compose["services"]["worker"]["command"][0] in commands
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["referral-sync"]' in dockerfile
    assert 'CMD ["run"]' in dockerfile
    assert "run" in commands


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
