"""The SQL that documents give: what stands in their blocks marked `sql`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sql_blocks(page: str) -> list[str]:
    """Return each statement of each block, without the semicolon behind it; no string in them may hold one."""
    blocks = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [statement for block in blocks for part in block.split(";") if (statement := part.strip())]


def questions() -> dict[int, str]:
    """Give the SQL of each of the twelve questions by its number."""
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (\d+)\. .*?^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return {int(number): sql for number, sql in found}


QUESTIONS = questions()
