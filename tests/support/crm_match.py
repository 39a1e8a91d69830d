"""The script of docs/crm-match.md, run by psql as the document says, and opportunities for it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from worker.embedded.cluster import find_binaries

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "crm-match.md").read_text(encoding="utf-8")
TABLE = """
CREATE SCHEMA sales;
CREATE TABLE sales.opportunity (
    opportunity_id text PRIMARY KEY, msx_number text, amount numeric, currency_code text, close_date date,
    stage_name text
);
"""


def script(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with these arguments of psql."""
    command = [str(find_binaries(None) / "psql"), "-X", *arguments, "-f", "dashboards/crm/match.sql", url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def documented() -> list[str]:
    """Give the arguments of the command in the document."""
    found = re.search(r"^\$ psql (.*?) -f dashboards", PAGE.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    assert found is not None
    return shlex.split(found[1])
