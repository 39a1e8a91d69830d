"""The container image: built from the Dockerfile by buildah, and doing its work as the compose file has it.

Nothing is pulled: the base is made by debootstrap from Debian's packages, and kept in pytest's cache. Packages come
from wherever pip is configured to take them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml
from cryptography.fernet import Fernet

from tests.support.conditions import until
from tests.support.daemon import free_port
from tests.support.secure import SECRET, Secure, browse
from worker import RELEASE
from worker.demo.control import Control

ROOT = Path(__file__).parent.parent.parent
SUITE = "bookworm"
OPTIONS = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates")
BASE = "localhost/base"
pytestmark = pytest.mark.timeout(900)  # two minutes of it make the base and the image, on an idle machine
IMAGE = "localhost/referral-sync"


@dataclass(frozen=True, slots=True)
class Buildah:
    """Buildah with a storage of its own, without the help of a container engine."""

    storage: Path

    def command(self, *arguments: str | Path) -> list[str]:
        """Return a command line."""
        where = ("--root", self.storage / "root", "--runroot", self.storage / "run")
        return [str(part) for part in ("buildah", *where, *arguments)]

    def run(self, *arguments: str | Path) -> str:
        """Run a command to its good end; what it printed."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-2_000:]}\n{done.stderr[-2_000:]}"
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return its variables: mounts and a changed root are all the isolation that needs no engine."""
        return {"PATH": os.environ["PATH"], "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.storage)}


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the image; commands run as its own user, in the network of this machine."""

    buildah: Buildah
    name: str
    image: dict[str, Any]

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of a command inside."""
        return self.buildah.command("run", *options, self.name, "--", *arguments)

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return subprocess.run(
            self.command(*arguments, options=options),
            env=self.buildah.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def buildah(server_folder: Path) -> Iterator[Buildah]:
    with tempfile.TemporaryDirectory(prefix="referral-sync-image-", dir=server_folder) as folder:
        built = Buildah(Path(folder))
        try:
            yield built
        finally:
            built.run("rm", "--all")


@pytest.fixture(scope="module")
def base(buildah: Buildah, request: pytest.FixtureRequest) -> str:
    """Make the image that ours is built on."""
    assert request.config.cache is not None
    kept = request.config.cache.mkdir("image") / f"{SUITE}.tar"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as root:  # with devices, which a folder in memory may not hold
            done = subprocess.run(
                [shutil.which("debootstrap") or "/usr/sbin/debootstrap", *OPTIONS, SUITE, root],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
            with tarfile.open(kept.with_suffix(".new"), "w") as tar:
                tar.add(root, ".", filter=_shipped)
        kept.with_suffix(".new").rename(kept)
    container = buildah.run("from", "scratch").strip()
    buildah.run("add", "--quiet", container, kept, "/")
    buildah.run("commit", "--quiet", "--rm", container, BASE)
    return BASE


def _shipped(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return (
        None if re.match(r"\./(?:var/cache/apt/archives/.+\.deb|var/lib/apt/lists/.+|dev/.+)", member.name) else member
    )


def _pip() -> tuple[str, list[str]]:
    """Return this machine's configuration of pip as one file, and the files and folders that it names."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    values = {
        found[2]: found[3]
        for found in re.finditer(r"^(:env:|global|install|user|site)\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    }
    volumes = []
    for word in dict.fromkeys(word for value in values.values() for word in value.split()):
        parts = urlsplit(word)
        # What an index in files links to lies beside its folder.
        path = Path(parts.path).parent if parts.scheme == "file" else Path(word)
        if path.is_absolute() and path.exists():
            volumes.append(f"--volume={path}:{path}:ro")
    return "\n".join(("[global]", *(f"{name} = {value}" for name, value in values.items()), "")), volumes


@pytest.fixture(scope="module")
def container(buildah: Buildah, base: str) -> Container:
    """Build the image and make a container of it."""
    config, volumes = _pip()
    secret = buildah.storage / "pip.conf"
    secret.write_text(config, encoding="utf-8")
    buildah.run(
        "build", "--pull-never", "--format=docker", "--network=host", f"--build-arg=BASE={base}",
        f"--secret=id=pip,src={secret}", *volumes, f"--tag={IMAGE}", ROOT,
    )  # fmt: skip
    image = json.loads(buildah.run("inspect", "--type=image", IMAGE))["Docker"]["config"]
    return Container(buildah, buildah.run("from", "--pull-never", IMAGE).strip(), image)


def test_it_says_its_release_and_runs_as_nobody_special(container: Container) -> None:
    (program,) = container.image["Entrypoint"]
    assert container.run(program, "--version").stdout == f"referral-sync {RELEASE}\n"
    assert container.image["User"] == "10001:10001"
    assert container.run("id", "-u").stdout == "10001\n"


def test_it_holds_what_is_pinned_to_run_and_nothing_else(container: Container) -> None:
    listing = (
        "import importlib.metadata as m; print(*sorted(d.name.lower().replace('_', '-') for d in m.distributions()))"
    )
    result = container.run("python", "-c", listing)
    assert result.returncode == 0, result.stderr
    inside = set(result.stdout.split())
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==\S+(?: ; (.*?))? \\$", lines, re.MULTILINE))
    elsewhere = {name for name, marker in pinned.items() if "win32" in marker or "Windows" in marker}
    assert inside == pinned.keys() - elsewhere | {"referral-sync"}
    # The build leaves empty folders where it mounted something, and no file.
    found = container.run(
        "find", "/opt", "/build", "/wheels", ".", "-type", "f", "-not", "-path", "/opt/referral-sync/*"
    )
    assert found.stdout == ""
    assert container.run("find", "/opt", "-name", "pip").stdout == ""


def test_the_demo(container: Container) -> None:
    result = container.run("referral-sync", "demo", "--count", "300")
    assert result.returncode == 0, result.stderr
    assert "Backfill: 300 referrals" in result.stdout
    assert "nothing is left running" in result.stdout


async def test_a_person_signs_in_and_the_daemon_answers_its_health_check(
    container: Container, secure: Secure, service: Control, db: asyncpg.Connection, database_url: str
) -> None:
    """What the compose file mounts and says, with this test's database and API; then login, run and its end."""
    del service  # reset for this test
    port = free_port()
    as_composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["worker"]
    secrets = container.buildah.storage / "secrets"
    secrets.mkdir()
    contents = {
        "config": f"""
            [api]
            base_url = "{secure.origin}"
            authority = "{secure.origin}"
            ca_file = "/run/secrets/ca.pem"
            [accounts.contoso]
            auth = "refresh_token"
            tenant_id = "contoso.example"
            client_id = "an-application"
            client_secret = "{SECRET}"
            """.replace("\n            ", "\n"),
        "sign_in_key": Fernet.generate_key().decode(),
        "database_url": database_url,
        "http_token": "a-long-secret",
    }
    for one in as_composed["secrets"]:
        (secrets / one["target"]).write_text(contents[one["source"]], encoding="utf-8")
    shutil.copy(secure.ca_file, secrets / "ca.pem")
    given = as_composed["environment"] | {
        "REFERRAL_SYNC_HTTP__LISTEN": as_composed["environment"]["REFERRAL_SYNC_HTTP__LISTEN"].replace(
            "8080", str(port)
        )
    }
    options = (f"--volume={secrets}:/run/secrets:ro", *(f"--env={name}={value}" for name, value in given.items()))

    assert container.run("referral-sync", "sync", options=options).returncode == 3
    with subprocess.Popen(
        container.command("referral-sync", "login", "--account", "contoso", options=options),
        env=container.buildah.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as login:  # fmt: skip
        assert login.stdin is not None
        assert login.stdout is not None
        while not (line := login.stdout.readline().strip()).startswith("https://"):
            assert login.poll() is None, "login ended too early"
        login.stdin.write(await browse(secure, line) + "\n")
        login.stdin.close()
        assert "contoso is signed in" in login.stdout.read()
    assert login.returncode == 0

    image = container.image
    kind, *check = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.run(*check, options=options).returncode == 1, "nothing runs yet"
    named = ("sh", "-c", 'echo $$; exec "$@"', "sh")  # buildah itself, when told to end, would kill
    process = await asyncio.create_subprocess_exec(
        *container.command(*named, *image["Entrypoint"], *image["Cmd"], options=options),
        env=container.buildah.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    worker = int(await process.stdout.readline())
    try:

        async def healthy() -> bool:
            assert process.returncode is None, "it ended"
            return (await asyncio.to_thread(container.run, *check, options=options)).returncode == 0

        await until(healthy, "healthy")

        async def copied() -> bool:
            return bool(await db.fetchval("SELECT count(*) = 30 FROM partner_center.referrals"))

        await until(copied, "copied")
    finally:
        os.kill(worker, signal.Signals[image["StopSignal"]])
        output = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert process.returncode == 0, output
    assert container.run(*check, options=options).returncode == 1
