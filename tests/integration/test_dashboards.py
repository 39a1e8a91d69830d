"""The provisioned dashboards: every query runs as the plain reader and returns rows, and none reads a table twice."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from benchmarks.made_up import fill
from tests.support.dashboards import BOARDS, FOLDER, board, queries
from tests.support.databases import new_database
from tests.support.steps import backfill_all, reconcile_once, sync_once
from worker.demo.control import Control
from worker.store.analysis import refresh_history
from worker.sync.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
REFERRALS = 20_000
SMALL = 500
"""Reading a table of fewer rows again costs nothing."""

KINDS = {"stat", "timeseries", "table", "barchart"}
"""Kinds of panels that show text as text."""


def test_every_board_is_whole() -> None:
    """One datasource, which is provisioned; ids and places of their own; descriptions; nothing that renders text."""
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/referrals.yml").read_text())["datasources"]
    assert len(BOARDS) == 3
    assert len({board(path)["uid"] for path in BOARDS}) == 3
    for path in BOARDS:
        tree = board(path)
        taken = set[tuple[int, int]]()
        assert len({panel["id"] for panel in tree["panels"]}) == len(tree["panels"])
        for panel in tree["panels"]:
            assert panel["description"]
            assert panel["type"] in KINDS
            assert not {"links", "html", "markdown"} & {*panel, *panel["options"], *panel["fieldConfig"]["defaults"]}
            assert "cellOptions" not in json.dumps(panel), "cells are plain text, whatever a stranger wrote into them"
            for used in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
                assert used == {"type": source["type"], "uid": source["uid"]}
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{panel['title']} overlaps another"
            assert max(x for x, _ in cells) < 24
            taken |= cells
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert "DISABLE_SANITIZE_HTML" not in compose
    assert source["secureJsonData"]["password"].startswith("$__file{/run/secrets/")


async def test_the_alert_rule_fires_for_what_is_due_within_a_day(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    """Grafana makes an alert of each row: its texts are labels, and one number is compared with the threshold."""
    (group,) = yaml.safe_load((FOLDER / "provisioning/alerting/deadlines.yml").read_text())["groups"]
    (rule,) = group["rules"]
    query, threshold = rule["data"]
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/referrals.yml").read_text())["datasources"]
    (folder,) = yaml.safe_load((FOLDER / "provisioning/dashboards/referrals.yml").read_text())["providers"]
    assert group["folder"] == folder["folder"]
    assert query["datasourceUid"] == source["uid"]
    assert [part["refId"] for part in rule["data"]] == [part["model"]["refId"] for part in rule["data"]] == ["A", "B"]
    assert (rule["condition"], threshold["datasourceUid"], threshold["model"]["expression"]) == ("B", "__expr__", "A")
    assert threshold["model"]["conditions"] == [{"type": "query", "evaluator": {"type": "gt", "params": [0]}}]
    (tree,) = [each for path in BOARDS if (each := board(path))["uid"] == rule["dashboardUid"]]
    assert [panel["title"] for panel in tree["panels"] if panel["id"] == rule["panelId"]] == ["Deadlines"]

    await simulator.create([waiting(hours) for hours in (-1, 2, 23, 30)] + [waiting(3, isSpam=True)])
    await backfill_all(pipeline)
    await db.execute("SET ROLE bi_reader")
    (row,) = await db.fetch(query["model"]["rawSql"])
    assert (row["account"], row["due"]) == (pipeline.account, 2), "not what is over, nor what has more time, nor spam"
    numbers = [name for name, value in row.items() if isinstance(value, int | float)]
    assert numbers == ["due"], "one number, or Grafana does not know which"
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert used == {name for name, value in row.items() if isinstance(value, str)}, (
        "what changes would be another alert"
    )
    await db.execute("RESET ROLE; UPDATE partner_center.referrals SET status = 'Active'; SET ROLE bi_reader")
    (row,) = await db.fetch(query["model"]["rawSql"])
    assert row["due"] == 0, "a row all the same: the alert ends"


def waiting(hours: float, **members: Any) -> dict[str, Any]:
    """Make an incoming referral that has to be answered in so many hours."""
    due = datetime.now(UTC) + timedelta(hours=hours)
    return {"status": "New", "substatus": "Pending", "direction": "Incoming", "isSpam": False,
            "acceptedDateTime": None, "closedDateTime": None,
            "expirationDateTime": f"{due:%Y-%m-%dT%H:%M:%S}Z"} | members  # fmt: skip


async def test_every_panel_shows_rows(pipeline: Pipeline, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(400)
    await backfill_all(pipeline)
    keys = sorted((await simulator.state())["referrals"])
    await simulator.update(keys[0], {"status": "Active", "substatus": "Accepted"})
    await simulator.update(keys[2], {"details": {"dealValue": 4_321}})
    await simulator.delete(keys[1])
    await sync_once(pipeline)
    await reconcile_once(pipeline)
    await refresh_history(pipeline.database)
    await db.execute("SET ROLE bi_reader")
    counts = {name: len(await db.fetch(sql)) for name, sql in queries()}
    assert len(counts) > 30
    assert {name for name, count in counts.items() if not count} == set()


async def test_the_chart_ends_at_the_tile_and_marks_what_is_not_final(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(400)
    await backfill_all(pipeline)
    await refresh_history(pipeline.database)
    asked = dict(queries())
    chart = await db.fetch(asked["Referrals: pipeline: Open referrals by direction"])
    today = [row["value"] for row in chart if row["time"] == chart[-1]["time"]]
    assert sum(today) == await db.fetchval(asked["Referrals: pipeline: Open referrals"])
    assert {row["metric"].partition(" ")[2] for row in chart} == {"", "(estimated)"}
    for panel in ("Win rate by month of creation", "What became of incoming referrals", "Win rate by quarter of close"):
        rows = await db.fetch(asked[f"Referrals: response and conversion: {panel}"])
        assert {"(not final)" in row["metric"] for row in rows if row["time"] == rows[-1]["time"]} == {True}
    of_one = await db.fetchval(
        "SELECT sum(referrals) FROM bi.conversion WHERE counted_by = 'created' AND month > now() - interval '3 years'"
    )
    shown = await db.fetch(asked["Referrals: response and conversion: Conversion by category"])
    assert sum(row["referrals"] for row in shown) == of_one, "by creation or by closing, never both"


@pytest.fixture
async def filled(postgres_url: str, template_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a database of a size at which a bad plan shows."""
    async with new_database(postgres_url, template_database) as url:
        await fill(url, REFERRALS)
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def plan_of(connection: asyncpg.Connection, sql: str) -> list[dict[str, Any]]:
    found = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}"))
    return list(nodes(found[0]["Plan"]))


def faults(plan: list[dict[str, Any]], *, twice: bool = False) -> list[str]:
    """Name what does not end: a table read from end to end for each row of another, or again and again.

    `twice`: versions are compared with those before them and named by the present ones, and of what never changed the
    stages are in its row: so each of these may be read a second time.
    """
    found, read = [], list[str]()
    for node in plan:
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        if node["Node Type"] == "Seq Scan" and rows > SMALL:
            read.append(node["Relation Name"])
            if node["Actual Loops"] > 1 + node.get("Workers Launched", 2):
                found.append(f"{node['Relation Name']} is read {node['Actual Loops']} times")
        if "Disk" in str(node.get("Sort Space Type", "")):
            found.append("a sort on disk")
    found += [
        f"{name} is read {read.count(name)} times"
        for name in set(read)
        if read.count(name) > 1 + (twice and name in ("referrals", "referral_versions"))
    ]
    return found


def uses(plan: list[dict[str, Any]], what: str) -> bool:
    return any(what in (node.get("Index Name"), node.get("Relation Name")) for node in plan)


async def test_plans_at_a_size(filled: asyncpg.Connection) -> None:
    """Each query ends after one pass over a table, or goes through an index."""
    views = await filled.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'bi'::regnamespace AND relkind = 'v'")
    asked = dict(queries()) | {view["relname"]: f"SELECT * FROM bi.{view['relname']}" for view in views}  # noqa: S608 - a catalogue's name
    compares = {
        "changes",
        "value_changes",
        "status_changes",
        "Referrals: pipeline: Changes of value",
        "Referrals: response and conversion: Days in each stage",
        "Referrals: response and conversion: Latest status changes",
    }
    found = {
        name: flaw
        for name, sql in asked.items()
        if (flaw := faults(await plan_of(filled, sql), twice=name in compares))
    }
    sorted_on_disk = {name for name, flaw in found.items() if flaw == ["a sort on disk"]}
    assert sorted_on_disk <= {"conversion", *compares}, "what looks at all versions may sort them once"
    assert {name: flaws for name, flaws in found.items() if flaws != ["a sort on disk"]} == {}


async def test_plans_that_must_use_what_was_made_for_them(filled: asyncpg.Connection) -> None:
    newest = await plan_of(filled, "SELECT id FROM bi.inbound_cosell LIMIT 10")
    assert uses(newest, "referrals_created")
    stages = await plan_of(filled, "SELECT status, avg(days) FROM bi.stage_durations GROUP BY 1")
    read = {node["Relation Name"] for node in stages if "Relation Name" in node and node["Actual Loops"]}
    assert read <= {"stages", "stale_stages", "referrals"}, "no history is read"
    daily = await plan_of(filled, "SELECT day, sum(deals) FROM bi.pipeline_daily GROUP BY 1")
    assert not uses(daily, "referral_versions")
    one = await plan_of(filled, "SELECT * FROM bi.referrals WHERE account = 'contoso' AND id = 'r77'")
    assert uses(one, "referrals_pkey")
    history = await plan_of(filled, "SELECT * FROM bi.stage_durations WHERE account = 'contoso' AND id = 'r77'")
    assert max(node["Actual Rows"] for node in history) < 10, "one referral's history is read alone"
    changed = "SELECT referral_key FROM partner_center.referrals WHERE id IN ('r7', 'r77', 'r777')"
    keys = ",".join(str(row["referral_key"]) for row in await filled.fetch(changed))
    for view in ("estimates", "stages_of"):
        plan = await plan_of(filled, f"SELECT * FROM sync.{view} WHERE referral_key = ANY('{{{keys}}}')")  # noqa: S608 - numbers
        assert uses(plan, "referral_versions_steps"), "a refresh reads the history of what changed, and no other"
        assert not [node for node in plan if node["Node Type"] == "Seq Scan"]
    counted = await plan_of(filled, "SELECT live_referrals FROM bi.freshness")
    assert not [node for node in counted if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "referrals"]


async def test_a_bad_plan_would_be_seen(filled: asyncpg.Connection) -> None:
    twice = "SELECT count(*) FROM partner_center.referrals a, partner_center.referrals b WHERE a.name = b.name"
    assert faults(await plan_of(filled, twice)) == ["referrals is read 2 times"]
    await filled.execute("DROP INDEX partner_center.referral_versions_steps")
    one = await plan_of(filled, "SELECT * FROM sync.stages_of WHERE referral_key = 7")
    assert any(node["Node Type"] == "Seq Scan" for node in one)
