"""What is written for `COPY` is what PostgreSQL reads, whatever is in the values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.model.mapping import Row, map_record
from worker.model.record import decode_record
from worker.store import sql
from worker.store.copying import NewRow, children_as_lines, in_pieces, rows_as_lines

NOW = datetime(2024, 1, 1, tzinfo=UTC)

SIGNS = 'aN.\\\t\n\r\b\x1a\x7f"é\u2028😀'
ODD = st.none() | st.text(SIGNS, max_size=3)


async def copied(db: asyncpg.Connection, rows: list[tuple[int, Row]], *tables: str) -> None:
    for table, lines in children_as_lines(rows, tables).items():
        await db.copy_to_table(
            table, schema_name="partner_center", columns=sql.CHILD_TABLES[table], source=in_pieces(lines), format="text"
        )


async def copied_whole(db: asyncpg.Connection, row: Row, account: str = "contoso") -> None:
    await db.copy_to_table(
        "referrals",
        schema_name="partner_center",
        columns=sql.ROW,
        source=rows_as_lines(account, 1, [NewRow(row, 7, NOW, "first")]),
        format="text",
    )


def mapped(raw: bytes) -> Row:
    row = map_record(decode_record(raw), NOW)
    assert isinstance(row, Row)
    return row


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(values=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=3), escapes=st.booleans(), new=st.booleans())
@example(values=[("a", None)] * 1_100, escapes=True, new=False)
@example(values=[(sign, None) for sign in SIGNS], escapes=True, new=False)
@example(values=[(sign, None) for sign in SIGNS], escapes=False, new=True)
@example(values=[("\\N", "N"), ("", "\\.")], escapes=False, new=False)
async def test_values_arrive_as_they_were(
    db: asyncpg.Connection, values: list[tuple[str | None, str | None]], *, escapes: bool, new: bool
) -> None:
    """However a server writes them: with escapes for whatever is not ASCII, or for what must have some only.

    And whether the record is as documented, or has a new member.
    """
    team = [{"firstName": first, "lastName": last} for first, last in values]
    name, notes = values[0]
    tree = {"id": "a", "team": team, "name": name, "details": {"notes": notes}} | ({"newMember": "\\"} if new else {})
    row = mapped(json.dumps(tree, ensure_ascii=escapes).encode())
    assert not row.repaired
    assert (row.value("name"), row.value("notes")) == (name, notes)
    await db.execute("TRUNCATE partner_center.referrals CASCADE")
    await copied_whole(db, row)
    await copied(db, [(7, row)], "referral_team_members")
    found = await db.fetch("SELECT first_name, last_name FROM partner_center.referral_team_members ORDER BY position")
    assert [tuple(one) for one in found] == values
    stored = await db.fetchrow("SELECT name, notes, payload FROM partner_center.referrals")
    assert stored is not None
    assert (stored["name"], stored["notes"], json.loads(stored["payload"])) == (name, notes, tree)


async def test_what_is_json_in_a_column_of_text_arrives_as_json(db: asyncpg.Connection) -> None:
    """A quotation mark in it has a backslash, which `COPY` would drop."""
    tree = {"id": 'a"', "lastRunId": {"a": 'x"y'}, "tags": [{"tag": ['"']}]}
    row = mapped(json.dumps(tree).encode())
    await copied_whole(db, row)
    await copied(db, [(7, row)], "referral_tags")
    stored = await db.fetchrow("SELECT id, last_run_id FROM partner_center.referrals")
    assert stored is not None
    assert (stored["id"], json.loads(stored["last_run_id"])) == (tree["id"], tree["lastRunId"])
    assert json.loads(await db.fetchval("SELECT tag FROM partner_center.referral_tags")) == ['"']


@pytest.mark.parametrize("spelled", [rb"x\u005cN", rb"\u0009y", rb"\u000A", rb"\u000d", rb"\\N", rb"\"\/\b\f\n\r\t"])
async def test_however_json_spells_it(db: asyncpg.Connection, spelled: bytes) -> None:
    """Also in what identifies a record, and in what is no column of the API's."""
    row = mapped(b'{"id":"i%s","name":"%s","eTag":"e%s"}' % (spelled, spelled, spelled))
    await copied_whole(db, row, account="a\\t\tb")
    stored = await db.fetchrow("SELECT id, name, etag, account FROM partner_center.referrals")
    value = json.loads(b'"%s"' % spelled)
    assert stored is not None
    assert tuple(stored) == ("i" + value, value, "e" + value, "a\\t\tb")


async def test_more_child_rows_than_one_piece(db: asyncpg.Connection) -> None:
    tags = [{"tag": "x"}, "y", None]
    rows = [(key, mapped(json.dumps({"id": str(key), "tags": tags}).encode())) for key in range(1_100)]
    await copied(db, rows, "referral_tags")
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_tags") == 2_200


async def test_arrays_without_a_row_write_none(db: asyncpg.Connection) -> None:
    await copied(db, [(7, mapped(b'{"id":"a","tags":[null],"team":[]}'))], *sql.CHILD_TABLES)
    assert await db.fetchval("SELECT count(*) FROM partner_center.referral_tags") == 0


async def test_a_payload_may_be_laid_out_in_lines(db: asyncpg.Connection) -> None:
    tree = {"id": "a", "name": 'Line\n\t"two"\\', "tags": ["x", "y"]}
    row = mapped(json.dumps(tree, indent="\t").replace("\n", "\r\n").encode())
    await copied_whole(db, row)
    stored = await db.fetchrow("SELECT payload, name, content_hash, observed_at FROM partner_center.referrals")
    assert stored is not None
    assert json.loads(stored["payload"]) == tree
    assert (stored["name"], stored["content_hash"], stored["observed_at"]) == (tree["name"], row.content_hash, NOW)
