"""dbt on the generated sources: it parses them, reads through them, and tells how old the copy is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml

from tools.dictionary import SOURCES
from tools.dictionary import load as load_made_up

ROOT = Path(__file__).parent.parent.parent
DBT = ROOT / ".venv" / "dbt" / "bin" / "dbt"
Dbt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
async def reader(db: asyncpg.Connection, database_url: str) -> str:
    """Make a sign-in of a dashboard; its name."""
    name = f"dbt_{urlsplit(database_url).path[3:15]}"
    await db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE bi_reader")
    return name


@pytest.fixture
def dbt(database_url: str, reader: str, tmp_path: Path) -> Dbt:
    """Run dbt on a copy of the project, signed in as the reader."""
    assert DBT.exists(), "run `make test-system`, which installs dbt"
    parts = urlsplit(database_url)
    project = tmp_path / "dbt"
    shutil.copytree(ROOT / "dbt", project)
    target = {
        "type": "postgres", "host": parts.hostname, "port": parts.port, "user": reader, "password": "x",
        "dbname": parts.path[1:], "schema": "public", "threads": 1,
    }  # fmt: skip
    (project / "profiles.yml").write_text(yaml.safe_dump({"referrals": {"target": "t", "outputs": {"t": target}}}))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DBT, "--no-use-colors", "--warn-error", *arguments],
            cwd=project,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    return run


def artifact(tmp_path: Path, name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((tmp_path / "dbt" / "target" / name).read_text(encoding="utf-8"))
    return tree


async def test_dbt_parses_every_view_and_column(dbt: Dbt, tmp_path: Path, db: asyncpg.Connection) -> None:
    done = dbt("parse")
    assert done.returncode == 0, done.stdout
    found = artifact(tmp_path, "manifest.json")["sources"].values()
    columns = {(source["identifier"], name) for source in found for name in source["columns"]}
    real = await db.fetch("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'bi'")
    assert columns == {tuple(row) for row in real}
    assert all(source["description"] for source in found)
    assert all(column["description"] for source in found for column in source["columns"].values())
    personal = {source["identifier"] for source in found if source["source_name"] == "referrals_pii"}
    assert personal == {"customer_contacts", "notes", "team_phones"}


async def test_dbt_reads_and_tells_the_age(dbt: Dbt, database_url: str, tmp_path: Path, db: asyncpg.Connection) -> None:
    select = ("source", "freshness", "--select", "source:referrals.referrals")
    never = dbt(*select)
    assert never.returncode == 1, "nothing was ever loaded, which is as old as can be"
    (found,) = artifact(tmp_path, "sources.json")["results"]
    assert found["status"] == "error"
    assert found["max_loaded_at"].startswith("1970")

    await load_made_up(database_url, 60)
    good = dbt(*select)
    assert good.returncode == 0, good.stdout
    (found,) = artifact(tmp_path, "sources.json")["results"]
    assert found["status"] == "pass"
    age = await db.fetchval("SELECT extract(epoch FROM now() - min(fresh_as_of))::float8 FROM bi.freshness")
    assert found["max_loaded_at_time_ago_in_s"] == pytest.approx(age, abs=60)

    counted = "select count(*) as deals from {{ source('referrals', 'referrals') }}"
    shown = dbt("show", "--inline", counted, "--output", "json")
    assert shown.returncode == 0, shown.stdout
    assert '"deals": 60' in shown.stdout


async def test_a_broken_sources_file_is_refused(dbt: Dbt, tmp_path: Path) -> None:
    """What the two tests above rely on: dbt does look at what it is given."""
    text = SOURCES.read_text(encoding="utf-8")
    (tmp_path / "dbt" / "models" / "sources.yml").write_text(text.replace("period: hour", "period: moon"))
    assert dbt("parse").returncode != 0
