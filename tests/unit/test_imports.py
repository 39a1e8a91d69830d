"""What the suite shares stands in `tests/support`: tests stay apart from one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def modules(path: Path) -> Iterator[str]:
    """Give the name of each module that a file imports, or may import by this name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names))


def test_nothing_imports_a_test_module_or_a_conftest() -> None:
    """What two of them need is moved to `tests/support`."""
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in modules(path)
        if not name.startswith("worker.") and any(part.startswith(("test_", "conftest")) for part in name.split("."))
    }
    assert wrong == set()
