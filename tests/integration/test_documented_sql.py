"""What the documents tell people to query is there: each block of SQL runs, each name is one of the database."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from tests.support.documents import ROOT, sql_blocks
from tests.support.steps import backfill_all
from worker.demo.control import Control
from worker.store.analysis import refresh_history
from worker.sync.pipeline import Pipeline

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TOOLS = [ROOT / "docs" / name for name in ("power-bi.md", "metabase.md", "superset.md", "dashboards.md")]
ADMINISTRATION = re.compile("(CREATE|ALTER) ROLE|GRANT")
OWN_TESTS = {"crm-match.md"}
"""Its SQL needs a table of opportunities: test_crm_match.py runs it."""

OTHER_WORDS = {"dashboards", "bi", "bi_reader", "bi_reader_pii", "key", "label", "run", "referrals_pii"}
"""Roles, the schema, a column of Power BI's own, a key of the configuration, a command, a source of dbt."""

PERSONAL = {"customer_contacts", "notes", "team_phones"}
VIEWS = "SELECT relname FROM pg_class WHERE relnamespace = 'bi'::regnamespace AND relkind = 'v'"
COLUMNS = """
SELECT c.relname, array_agg(a.attname::text) AS names
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'bi'::regnamespace GROUP BY 1
"""


async def views(db: asyncpg.Connection) -> set[str]:
    return {row["relname"] for row in await db.fetch(VIEWS)}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OWN_TESTS], ids=lambda page: page.name)
async def test_every_block_of_sql_runs(
    page: Path, pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Questions as the plain reader; what an administrator does as one, and it is taken back."""
    blocks = sql_blocks(page.read_text(encoding="utf-8"))
    if not blocks:
        return
    await simulator.reset(100)
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    transaction = db.transaction()
    await transaction.start()
    for statement in blocks:
        await db.execute("RESET ROLE" if ADMINISTRATION.match(statement) else "SET LOCAL ROLE bi_reader")
        await db.execute(statement)
    await transaction.rollback()


async def test_every_view_that_a_document_names_is_there(db: asyncpg.Connection) -> None:
    known = await views(db) | {
        row["proname"] for row in await db.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'bi'::regnamespace")
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![-\w])bi\.([a-z_]+)", page.read_text(encoding="utf-8"))) - {"timezone"}
        assert named <= known, page.name


async def test_the_readme_names_every_view(db: asyncpg.Connection) -> None:
    (row,) = re.findall(r"^\| `bi` \| (.*) \|$", README, re.MULTILINE)
    named = re.findall(r"`([a-z_]+)`", row)
    assert len(named) == len(set(named))
    assert set(named) == await views(db) - PERSONAL


@pytest.mark.parametrize("page", TOOLS, ids=lambda page: page.name)
async def test_every_column_that_a_page_of_a_tool_names_is_there(page: Path, db: asyncpg.Connection) -> None:
    """Written as `view[column]` in Power BI, and as code of one word elsewhere."""
    of_view = {row["relname"]: set(row["names"]) for row in await db.fetch(COLUMNS)}
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^( *)```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    for view, column in re.findall(r"\b([a-z_]+)\[([a-z_]+)\]", text):
        assert column in of_view[view] | {"key"}, f"{view}[{column}]"
    known = set(of_view) | set[str]().union(*of_view.values()) | OTHER_WORDS
    assert set(re.findall(r"`([a-z_]+)`", prose)) <= known
