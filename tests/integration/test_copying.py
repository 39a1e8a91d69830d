"""What is written for `COPY` is what PostgreSQL reads, whatever is in the values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import asyncpg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.model.mapping import Row, map_record
from worker.model.record import decode_record
from worker.model.values import Values
from worker.store import sql
from worker.store.copying import NewRow, children_as_lines, lines, rows_as_lines

NOW = datetime(2024, 1, 1, tzinfo=UTC)

SIGNS = 'aN.\\\t\n\r\b\x1a\x7f"é\u2028😀'
ODD = st.none() | st.text(SIGNS, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(rows=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=3))
@example(rows=[("a", None)] * 600)
@example(rows=[(sign, None) for sign in SIGNS])
async def test_values_arrive_as_they_were(db: asyncpg.Connection, rows: list[Values]) -> None:
    await db.execute("CREATE TEMP TABLE IF NOT EXISTS odd (n bigserial, a text, b text); TRUNCATE odd")
    await db.copy_to_table("odd", columns=["a", "b"], source=children_as_lines(rows), format="text")
    assert [tuple(row) for row in await db.fetch("SELECT a, b FROM odd ORDER BY n")] == rows


async def test_a_payload_may_be_laid_out_in_lines(db: asyncpg.Connection) -> None:
    tree = {"id": "a", "name": 'Line\n\t"two"\\', "tags": ["x", "y"]}
    row = map_record(decode_record(json.dumps(tree, indent="\t").replace("\n", "\r\n").encode()), NOW)
    assert isinstance(row, Row)
    await db.copy_to_table(
        "referrals",
        schema_name="partner_center",
        columns=sql.ROW,
        source=rows_as_lines("contoso", 1, [NewRow(row, 7, NOW, "first")]),
        format="text",
    )
    stored = await db.fetchrow("SELECT payload, name, content_hash, observed_at FROM partner_center.referrals")
    assert stored is not None
    assert json.loads(stored["payload"]) == tree
    assert (stored["name"], stored["content_hash"], stored["observed_at"]) == (tree["name"], row.content_hash, NOW)


def test_what_is_usual_is_only_joined() -> None:
    assert lines([("a", None), ("b", "c d")]) == "a\t\\N\nb\tc d\n"
