"""What documents say of the code is there: modules of the map, messages of the runbook, decisions with their status."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tools.dictionary import LOG_EVENTS, log_events
from tools.tree import summary
from worker import logs

ROOT = Path(__file__).parent.parent.parent
WORKER = ROOT / "worker"
SUMMARIES = {path: summary(path) for path in sorted(WORKER.rglob("*.py"))}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
VALUE = "\0"
"""Stands where a message has a value, and where the runbook has a letter for one."""


def texts() -> Iterator[str]:
    """Give every text of the sources, with `VALUE` for what is put into it."""
    for path in WORKER.rglob("*.py"):
        if "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
                yield "".join(map(str, parts))


TEXTS = set(texts())
QUOTED = re.findall(r'"([^"]+)"', re.sub(r"```.*?```|`[^`]*`", "", RUNBOOK, flags=re.DOTALL))
EVENTS = re.findall(r"`(\w+)`(?:, [^|`]*)? in the log", RUNBOOK)


def test_the_runbook_has_something_to_check() -> None:
    assert len(QUOTED) >= 6
    assert len(EVENTS) >= 10


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_runbook_quotes_what_the_code_says(quoted: str) -> None:
    wanted = re.sub(r"\b[A-Z]\b", VALUE, quoted)
    assert [text for text in TEXTS if wanted in text], f"nothing says {quoted!r}"


@pytest.mark.parametrize("event", EVENTS)
def test_the_runbook_names_events_that_are_logged(event: str) -> None:
    assert event in TEXTS


def logged() -> Iterator[tuple[str, set[str]]]:
    """Give each call of a logger: its event, empty where that is a variable, and its keys."""
    for path in WORKER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) in ("_log", "structlog.get_logger()"):
                (event,) = node.args
                keys = {word.arg for word in node.keywords if word.arg is not None} - {"exc_info"}
                yield (str(event.value) if isinstance(event, ast.Constant) else "", keys)


def test_every_log_event_is_listed_with_its_keys() -> None:
    found = list(logged())
    assert {event for event, _ in found if event} | {"message_failed", "message_given_up"} == logs.EVENTS.keys()
    for event, keys in found:
        if event:
            assert keys <= {*logs.EVENTS[event][0].split(), *logs.WORK}, event


def test_the_page_of_log_events_is_up_to_date() -> None:
    assert LOG_EVENTS.read_text(encoding="utf-8") == log_events()


@pytest.mark.parametrize("heading", re.findall(r"^### (\w+)", RUNBOOK, re.MULTILINE))
def test_the_runbook_has_no_entry_for_an_alert_that_is_not_there(heading: str) -> None:
    alerts = (ROOT / "dashboards" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert f"alert: {heading}\n" in alerts


def test_the_map_of_the_architecture_is_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(r"```\nworker/\n(.*?)```", text, re.DOTALL)
    assert found
    mapped = dict(line.split(maxsplit=1) for line in found[1].splitlines())
    folders = {f"{path.parent.name}/" for path in WORKER.glob("*/__init__.py")}
    files = {path.name for path in WORKER.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert mapped.keys() == folders | files
    for folder, about in mapped.items():
        _, named, modules = about.partition(": ")
        if folder.endswith("/") and named:
            there = {path.stem for path in (WORKER / folder).glob("*.py")} - {"__init__"}
            assert set(modules.split(", ")) == there, folder


@pytest.mark.parametrize("module", SUMMARIES, ids=lambda path: str(path.relative_to(WORKER)))
def test_a_module_says_in_a_line_what_is_in_it(module: Path) -> None:
    """The lines are what `make tree` shows, so each stands by itself and says what no other does."""
    assert re.fullmatch(r"\S.*[.?]", SUMMARIES[module])
    assert list(SUMMARIES.values()).count(SUMMARIES[module]) == 1


@pytest.mark.parametrize("document", [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md", *DECISIONS], ids=str)
def test_modules_that_a_document_names_are_there(document: Path) -> None:
    named = re.findall(r"`(?:worker/)?((?:\w+/)*\w+\.py)`", document.read_text(encoding="utf-8"))
    assert [name for name in named if not (WORKER / name).is_file() and not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_number_and_its_status(decision: Path) -> None:
    number = int(decision.name[:4])
    title, empty, status, *_ = decision.read_text(encoding="utf-8").splitlines()
    assert title.startswith(f"# {number}. ")
    assert not empty
    assert re.match(r"Status: (accepted|superseded by \d{4})\b", status), status
    for other in re.findall(r"\d{4}", status):
        assert [path for path in DECISIONS if path.name.startswith(other)]


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-workflows", ".github/workflows/ci.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/idea.yml"),
    ],
)
def test_files_for_github_are_valid(schema: str, file: str) -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [str(tool), "--builtin-schema", f"vendor.{schema}", str(ROOT / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_python_that_is_promised_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    suite = workflow["jobs"]["suite"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = [one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
    assert suite["strategy"]["matrix"]["python"] == promised
    assert suite["steps"][-1]["run"] == ".ci/run"
