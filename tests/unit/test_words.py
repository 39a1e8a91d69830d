"""One idea has one word: terms that the project no longer uses do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLACES = ("worker", "docs", "migrations", "dashboards", "dbt", "benchmarks", "README.md", "CHANGELOG.md",
          "CONTRIBUTING.md", "SECURITY.md", "config.example.toml", "docker-compose.yml")  # fmt: skip
TEXT = {".py", ".md", ".sql", ".toml", ".yml", ".yaml", ".json", ".html", ".service"}

TERMS = {
    r"[\w-]*vanish\w*": "deleted at the source",
    r"\w*proven\w*|prov(?:e|es|ed|ing)|proofs?": "verified",
    r"level with": "equal to, verified",
    r"gone": "deleted, has exited, has stopped",
    r"first loads?|initial loads?": "first backfill",
    r"idle ticks?|next tick|first tick|a tick": "sync",
    r"(?:kept|put|set) aside": "rejected record",
    r"thin(?:ner|_\w+)?|fuller": "partial record",
    r"distrust\w*|habits?": "paging strategy, downgrade, evidence",
    r"in the books|books": "checkpoint",
    r"(?:safe|watermarks?(?:'s)?|window's) positions?|position_at|advanc(?:e|es|ing)": "checkpoint, moved",
    r"lets? in": "takeover, stored",
    r"leases? (?:is|are|was|were) (?:checked and )?held|held leases?": "locked, named",
    r"needs? a person|a person (?:must|has to)": "action required",
    r"left alone": "backing off",
    r"stands? still": "stalled",
    r"mend(?:s|ed|ing)?": "fix",
    r"gates?": "throttle",
    r"how late|lateness|late_\w+|_?late = |arriv\w+ late|(?:came|comes) later than": "replication lag",
    r"loads? (?:a|the|its|every|all) (?:range|account|copy|history|referrals?)": "backfill",
    r"(?:reading|paging) (?:method|mode|habit)s?|(?:method|way)s? of (?:reading|paging)": "paging strategy",
    r"told =|told,|as told": "body, payload, output, messages",
    r"(?:is|as) a reject|rejects (?:are|were)|(?:the|open|no|its) rejects": "rejected record",
}
"""What is not said, as a pattern of whole words, and what is."""

ALLOWED = {
    "--accept-vanished": "option of `reconcile`",
    "accept_vanished": "its parameter",
    "max_vanished_percent": "key of [sync]",
    "thin_list": "behavior of the simulator, an option of `simulate --set`",
    "thin": "the same inside the simulator",
}
"""Names that users rely on, and why each may stay."""

ONLY_IN = {"thin": "worker/demo/"}


def texts() -> dict[str, str]:
    """Return every text of the project by its path."""
    places = [ROOT / place for place in PLACES]
    paths = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in paths
        if path.is_file() and path.suffix in TEXT
    }


TEXTS = texts()


def found(term: str) -> dict[str, list[str]]:
    """Return where a term stands, by the path and what stands there; line ends count as spaces."""
    words = term.replace(" ", r"\s+(?:#\s*|--\s*)?")
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)
    return {path: pattern.findall(text) for path, text in TEXTS.items() if pattern.search(text)}


def is_allowed(word: str, path: str) -> bool:
    return word in ALLOWED and path.startswith(ONLY_IN.get(word, ""))


@pytest.mark.parametrize("term", TERMS, ids=TERMS.values())
def test_a_term_that_has_a_better_word_does_not_come_back(term: str) -> None:
    wrong = {path: [word for word in words if not is_allowed(word, path)] for path, words in found(term).items()}
    assert {path: words for path, words in wrong.items() if words} == {}, f"say: {TERMS[term]}"


def test_no_exception_outlives_its_use() -> None:
    used = {word for term in TERMS for words in found(term).values() for word in words}
    assert ALLOWED.keys() <= used
