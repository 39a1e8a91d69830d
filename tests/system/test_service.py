"""The systemd unit of `docs`, as systemd itself reads and judges it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "docs" / "referral-sync.service"
MOST_EXPOSURE = "20"
"""Of 100; the bulk of what is left is the network, which the worker is for."""


def analyze(*arguments: str | Path) -> tuple[int, str]:
    """Run systemd-analyze; its exit code, and all that it said."""
    program = shutil.which("systemd-analyze") or "/usr/bin/systemd-analyze"
    done = subprocess.run(
        [program, *arguments],
        env={"PATH": os.environ["PATH"], "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert start == "/opt/referral-sync/bin/referral-sync run"
    there = text.replace(start.removesuffix(" run"), shutil.which("true") or "/bin/true")  # it has to be installed
    unit = tmp_path / UNIT.name
    unit.write_text(there, encoding="utf-8")
    assert analyze("verify", "--man=no", unit) == (0, "")
    unit.write_text(there.replace("ProtectHome=", "ProtectHomes="), encoding="utf-8")
    assert "Unknown key 'ProtectHomes'" in analyze("verify", "--man=no", unit)[1]


def test_it_is_hardened(tmp_path: Path) -> None:
    code, output = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", UNIT)
    assert code == 0, output
    lax = tmp_path / UNIT.name
    lax.write_text(re.sub(r"(?m)^(Protect|Restrict|System).*\n", "", UNIT.read_text(encoding="utf-8")))
    assert analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", lax)[0] != 0
