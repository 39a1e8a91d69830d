"""Writes worker/model/columns.py from the declarations in schema.py: `make columns`.

A referral has some two hundred values. A loop over columns spends most of its time on itself, so it is written out,
beforehand and for everybody to read.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.model.documented import identifier
from worker.model.schema import CHILDREN, NESTED, REFERRAL, Child, Column, Group, Kind

OUTPUT = Path(__file__).parents[1] / "worker/model/columns.py"

_HEAD = '''"""The rows of each table as lines, from a structure: written from `schema.py` by `make columns`.

`t` stands between values, and `n` for each that is null.
"""

from __future__ import annotations

from typing import Any

from worker.model.documented import empty
from worker.model.instant import floored
from worker.model.values import BOOLEANS, number

Arrays = tuple[Any, ...]
'''


def columns() -> str:
    """Return what the module has to be."""
    tables = [("referrals", REFERRAL, CHILDREN)]
    tables += [(child.table, child.groups, child.nested) for child in (*CHILDREN, *NESTED)]
    parts = [_HEAD, *(part for table in tables for part in _functions(*table))]
    formatted = subprocess.run(  # the project's own settings, found beside the file
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(OUTPUT), "-"],
        input="\n".join(parts), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return formatted.stdout


def _functions(table: str, groups: tuple[Group, ...], children: tuple[Child, ...]) -> Iterator[str]:
    holders = [group.path for group in groups]
    paths = [path for child in children for _, path in child.arrays]
    held = [path[:-1] for path in paths]
    yield "".join(f"{name} = empty({table!r}, {path!r})\n" for path, name in _empty(table, holders + held))
    values = [_value(group.path, column) for group in groups for column in group.columns]
    written = [f'f"{{{value}}}{{t}}"' for value in values[:-1]] + [f'f"{{{values[-1]}}}"']
    head = f"{table}(o: Any, t: str, n: str) -> str"
    yield _function(head, "Return the line of a row.", _steps(table, holders), written)
    if paths:
        arrays = [f"{_at(path)}," for path in paths]
        yield _function(f"{table}_arrays(o: Any) -> Arrays", "Return the arrays.", _steps(table, held), arrays)


def _function(head: str, doc: str, steps: str, found: Iterable[str]) -> str:
    listed = "".join(f"        {one}\n" for one in found)
    return f'\ndef {head}:\n    """{doc}"""\n{steps}    return (\n{listed}    )\n'


def _empty(table: str, holders: Iterable[tuple[str, ...]]) -> list[tuple[tuple[str, ...], str]]:
    """Name what stands in place of each object that is absent."""
    paths = sorted({path[:length] for path in holders for length in range(1, len(path) + 1)})
    return [(path, "_".join(("", table, *map(_words, path))).upper()) for path in paths]


def _steps(table: str, holders: Iterable[tuple[str, ...]]) -> str:
    """Return the lines that go to some objects."""
    return "".join(f"    {_variable(path)} = {_at(path)} or {name}\n" for path, name in _empty(table, holders))


def _variable(path: tuple[str, ...]) -> str:
    return "_".join(("o", *map(_words, path)))


def _words(member: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", member).lower()


def _at(path: tuple[str, ...]) -> str:
    return f"{_variable(path[:-1])}.{identifier(path[-1])}"


def _value(path: tuple[str, ...], column: Column) -> str:
    """Return the expression of a value; a second name of a member counts where there is no first."""
    members = [_at((*path, member)) for member in column.members]
    match column.kind:
        case Kind.TEXT:
            return f"n if (v := {' or '.join(members)}) is None else v"
        case Kind.TIMESTAMP:
            return f"n if not (v := {members[0]}) or (v := floored(v)) is None else v"
        case Kind.BOOLEAN:
            absent = " and ".join(f"(v := {member}) is None" for member in members)
            return f"n if {absent} else BOOLEANS[v]"
        case Kind.NUMERIC:
            return f"n if (v := {members[0]}) is None or (v := number(v)) is None else v"


if __name__ == "__main__":
    OUTPUT.write_text(columns(), encoding="utf-8")
