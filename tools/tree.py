"""Print what is in each file of the worker, folder by folder: the first line of its docstring."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

WORKER = Path(__file__).parents[1] / "worker"


def summary(path: Path) -> str:
    """Return the first line of a module's docstring; empty where it has none."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def tree() -> Iterator[str]:
    """Give a line for each folder and each file."""
    for folder in (WORKER, *sorted(path.parent for path in WORKER.glob("*/__init__.py"))):
        yield f"{folder.relative_to(WORKER.parent)}/  {summary(folder / '__init__.py')}"
        files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        yield from (f"  {path.name:18}  {summary(path)}" for path in files)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in tree())
