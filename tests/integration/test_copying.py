"""What is written for `COPY` is what PostgreSQL reads, whatever is in the values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import asyncpg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.model.mapping import Row, map_record
from worker.model.record import decode_record
from worker.store import sql
from worker.store.copying import NewRow, children_as_lines, in_pieces, line, rows_as_lines

NOW = datetime(2024, 1, 1, tzinfo=UTC)

SIGNS = 'aN.\\\t\n\r\b\x1a\x7f"é\u2028😀'
ODD = st.none() | st.text(SIGNS, max_size=3)


async def copied(db: asyncpg.Connection, rows: list[tuple[int, Row]], *tables: str) -> None:
    for table, lines in children_as_lines(rows, tables).items():
        await db.copy_to_table(
            table, schema_name="partner_center", columns=sql.CHILD_TABLES[table], source=in_pieces(lines), format="text"
        )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(values=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=3), escapes=st.booleans())
@example(values=[("a", None)] * 1_100, escapes=True)
@example(values=[(sign, None) for sign in SIGNS], escapes=True)
@example(values=[(sign, None) for sign in SIGNS], escapes=False)
async def test_values_arrive_as_they_were(
    db: asyncpg.Connection, values: list[tuple[str | None, str | None]], *, escapes: bool
) -> None:
    """However a server writes them: with escapes for whatever is not ASCII, or for what must have some only."""
    team = [{"firstName": first, "lastName": last} for first, last in values]
    raw = json.dumps({"id": "a", "team": team}, ensure_ascii=escapes).encode()
    row = map_record(decode_record(raw), NOW)
    assert isinstance(row, Row)
    assert not row.repaired
    await db.execute("TRUNCATE partner_center.referral_team_members")
    await copied(db, [(7, row)], "referral_team_members")
    found = await db.fetch("SELECT first_name, last_name FROM partner_center.referral_team_members ORDER BY position")
    assert [tuple(one) for one in found] == values


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


def test_nothing_is_escaped_where_nothing_has_to_be() -> None:
    assert line(("a", None, "c d"), escaped=False) == line(("a", None, "c d"), escaped=True) == "a\t\\N\tc d"
