"""A figure of a run that is declared reaches the run's row, its log line, the totals and the metrics."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from tests.support.steps import backfill_all
from worker.demo.control import Control
from worker.logs import EVENTS
from worker.model.counts import FIGURES, Counts, Facts
from worker.model.figures import Figure
from worker.store import queries
from worker.sync.account import sync_account
from worker.sync.pipeline import Pipeline
from worker.web import metrics


async def test_every_figure_shows_where_it_is_declared_to_show(
    pipeline: Pipeline, simulator: Control, db: asyncpg.Connection
) -> None:
    made = await simulator.create([{}, {}, {}])
    await backfill_all(pipeline)
    await simulator.update(made[0]["id"], {"name": "renamed"})
    await simulator.faults({"kind": "status", "status": 503, "retry_after": "0", "times": 1})
    with capture_logs() as lines:
        await sync_account(pipeline)
    (line,) = [one for one in lines if one["event"] == "run_finished"]
    row = dict(await db.fetchrow("SELECT * FROM sync.runs ORDER BY id DESC LIMIT 1") or {})
    assert (row["updated"], row["requests"] > 1, row["retries"], row["paging"]) == (1, True, 1, "scan")
    shown = await exposed(pipeline)
    for figure in FIGURES:
        if figure.stored:
            assert figure.name in row
        if figure.logged:
            assert line[figure.logged] == pytest.approx(row[figure.name], abs=0.001)
            assert figure.logged in EVENTS["run_finished"][0].split()
        if figure.counter is not None and row.get(figure.name, 1):
            assert figure.counter.name in {name.removeprefix("referral_sync_") for name, _ in shown}
        if figure.gauge:
            assert shown[f"referral_sync_last_run_{figure.name}", ""] == pytest.approx(row[figure.name])
    assert shown["referral_sync_records", "updated"] == row["updated"]
    assert shown["referral_sync_requests", "503"] == 1
    assert shown["referral_sync_retries", ""] == row["retries"]


async def exposed(pipeline: Pipeline) -> dict[tuple[str, str], float]:
    """What a scrape shows of incremental syncs, by metric and by the label that is neither account nor kind."""
    facts = metrics.Scrape(
        status=await queries.status(pipeline.database, [pipeline.account]),
        totals=await queries.totals(pipeline.database),
        leases=[], connections={}, in_hand=0, queue=[], workers=0,
    )  # fmt: skip
    return {
        (family.name, "".join(value for name, value in sample.labels.items() if name not in ("account", "kind"))): (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.exposition(facts).decode())
        for sample in family.samples
        if sample.labels.get("kind", "incremental") == "incremental"
    }


def test_facts_add_up() -> None:
    first = Facts(deleted=1, answers={200: 2}, paging="keyset", unknown_fields=frozenset("a"), lag_p50=None)
    second = Facts(deleted=2, answers={200: 1, 503: 1}, unknown_fields=frozenset("b"), lag_p50=1.5)
    assert first + second == Facts(
        deleted=3, answers={200: 3, 503: 1}, paging="keyset", unknown_fields=frozenset("ab"), lag_p50=1.5
    )
    assert (second + Facts(paging="scan")).paging == "scan"


def test_figures_have_names_of_their_own() -> None:
    names: list[Any] = [figure.name for figure in FIGURES]
    assert len(names) == len(set(names))
    assert all(isinstance(figure, Figure) for figure in FIGURES)
    assert {figure.name for figure in FIGURES} <= {*Counts.__slots__, *Facts.__slots__}
