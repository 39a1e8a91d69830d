"""The dashboards that are provisioned, and their queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana"
BOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def board(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree


def queries() -> Iterator[tuple[str, str]]:
    """Give every query with its macros filled in, the time being the last three years."""
    for path in BOARDS:
        tree = board(path)
        for variable in tree["templating"]["list"]:
            yield f"{tree['title']}: variable {variable['name']}", variable["query"]
        for panel in tree["panels"]:
            for target in panel["targets"]:
                yield f"{tree['title']}: {panel['title']}", expanded(target["rawSql"])


def expanded(sql: str) -> str:
    sql = re.sub(r"\$__timeFilter\(((?:[^()]|\([^()]*\))*)\)", r"\1 BETWEEN now() - interval '3 years' AND now()", sql)
    sql = sql.replace("$account", "'contoso','other'")
    assert "$" not in sql, f"a macro that this test does not know: {sql}"
    return sql
