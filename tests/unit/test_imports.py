"""What is imported, and what is made by that: tests stay apart from one another, and what has state is handed on."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import rich.console

import worker

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
NAMES = {found.name for found in pkgutil.walk_packages(worker.__path__, "worker.")}


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


@pytest.mark.parametrize(
    "name",
    [found.name for found in pkgutil.walk_packages(worker.__path__, "worker.") if found.name != "worker.__main__"],
)
def test_no_module_makes_templates_or_consoles(name: str) -> None:
    """Who uses them makes them (docs/decisions/0028)."""
    made = vars(importlib.import_module(name))
    assert [key for key, value in made.items() if isinstance(value, jinja2.Environment | rich.console.Console)] == []
