"""The SQL of a document: what stands in its blocks marked `sql`."""

from __future__ import annotations

import re


def sql_blocks(page: str) -> list[str]:
    """Return each statement of each block, without the semicolon behind it; no string in them may hold one."""
    blocks = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [statement for block in blocks for part in block.split(";") if (statement := part.strip())]
