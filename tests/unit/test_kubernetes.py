"""The Kubernetes example: valid by the schema, locked down, and every name in it exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import typer.main
import yaml
from cryptography.fernet import Fernet

from worker import RELEASE, cli
from worker.config.models import ApiSection
from worker.config.sources import keys, load

ROOT = Path(__file__).parent.parent.parent
VERSION = "1.33"


def manifests() -> dict[str, Any]:
    text = (ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_it_is_valid_and_a_mistake_is_not() -> None:
    found = manifests()
    assert set(found) == {
        "Secret", "ConfigMap", "NetworkPolicy", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Job"
    }  # fmt: skip
    for one in found.values():
        kubernetes_validate.validate(one, VERSION, strict=True)
    wrong = manifests()["Deployment"]
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_pods_are_locked_down_and_stop_in_time() -> None:
    found = manifests()
    commands = set(getattr(typer.main.get_command(cli.app), "commands"))  # noqa: B009 - a group has it, its type does not say
    for kind in ("Deployment", "Job"):
        pod = found[kind]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"--uid {pod['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["args"][0] in commands
        assert container["image"].endswith(f"/referral-sync:{RELEASE}")
        assert container["resources"]["limits"]["memory"] == "2Gi"
        api = ApiSection()
        assert 10 * api.max_page_bytes * api.concurrency < 2 << 30, "the limit of memory fits the defaults"
        names = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names
    deployment = found["Deployment"]["spec"]
    assert deployment["replicas"] == 2
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] > 10


def test_its_network_is_what_it_needs() -> None:
    found = manifests()
    policy = found["NetworkPolicy"]["spec"]
    selected = policy["podSelector"]["matchLabels"]
    for kind in ("Deployment", "Job"):
        labels = found[kind]["spec"]["template"]["metadata"]["labels"]
        assert selected.items() <= labels.items()
    job = found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert not found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= job.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    (ingress,) = policy["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [port["name"] for port in container["ports"]]
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    address = urlsplit(found["Secret"]["stringData"]["REFERRAL_SYNC_DATABASE__URL"])
    assert out == {53, 443, address.port}


def test_every_address_of_a_database_is_verified() -> None:
    """Whatever is copied from here verifies the server's certificate."""
    files = [
        ROOT / "README.md",
        ROOT / "config.example.toml",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs").glob("*.yaml"),
    ]
    addresses = [
        found
        for file in files
        for found in re.findall(r"postgresql(?:\+\w+)?://\S+@[^\s\"'`)]+", file.read_text(encoding="utf-8"))
    ]
    assert len(addresses) >= 5
    for address in addresses:
        if "@127.0.0.1:" in address:  # the embedded server, which no network reaches
            continue
        assert address.endswith("?sslmode=verify-full&sslrootcert=system"), address


def test_what_scales_it_is_of_this_deployment_and_of_a_metric_that_there_is() -> None:
    found = manifests()
    scaler, budget = found["HorizontalPodAutoscaler"]["spec"], found["PodDisruptionBudget"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert budget["selector"]["matchLabels"] == found["Deployment"]["spec"]["selector"]["matchLabels"]
    assert budget["minAvailable"] < scaler["minReplicas"]
    (metric,) = scaler["metrics"]
    assert f"| `{metric['external']['metric']['name']}` |" in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_its_configuration_is_one(tmp_path: Path) -> None:
    found = manifests()
    text = found["ConfigMap"]["data"]["config.toml"]
    (tmp_path / "config.toml").write_text(text)
    secrets = found["Secret"]["stringData"]
    known = {"REFERRAL_SYNC_" + key.replace("*", "contoso").replace(".", "__").upper() for key in keys()}
    assert {name for name in secrets if name.startswith("REFERRAL_SYNC_")} <= known
    key_file = Path(tomllib.loads(text)["security"]["key_file"])
    assert key_file.name in secrets
    for name, value in secrets.items():
        (tmp_path / name).write_text(value if name != key_file.name else Fernet.generate_key().decode())
    settings = load({"REFERRAL_SYNC_SECRETS_DIR": str(tmp_path)}, tmp_path)
    assert settings.http.listen == "0.0.0.0:8080"
    assert settings.http.token.get_secret_value()
