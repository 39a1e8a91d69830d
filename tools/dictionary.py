"""Writes `docs/data-dictionary.md` and `dbt/models/sources.yml` from the comments in the database: `make dictionary`.

Types and meanings are the database's own. An example is the first value that the column has in a made-up copy.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from worker.auth.tokens import static_token
from worker.demo.behaviour import Behaviour
from worker.demo.data import make_referrals
from worker.demo.simulator import start
from worker.embedded import server as embedded
from worker.logs import EVENTS, configure
from worker.source.client import open_client
from worker.store import migrate
from worker.store.database import open_database
from worker.sync.account import backfill_account
from worker.sync.pipeline import Pipeline

TARGET = Path(__file__).parent.parent / "docs" / "data-dictionary.md"
SOURCES = Path(__file__).parent.parent / "dbt" / "models" / "sources.yml"
LOG_EVENTS = Path(__file__).parent.parent / "docs" / "log-events.md"
LOG_HEAD = """# Log events

Made from `worker/logs.py` by `make dictionary`. Every line has `event`, `level` and `timestamp`; lines about work carry
`account`, `kind` and, once the run has begun, `run_id`. Keys without a value at hand are left out.

| event | keys | means |
|---|---|---|
"""
HEAD = """# Data dictionary

Made from the comments in the database by `make dictionary`. Dashboards read schema `bi`, with the role `bi_reader`
(`bi_reader_pii` where personal data is needed); its names and columns stay. Schema `partner_center` is the copy itself.
Times are `timestamptz`; amounts are in the currency that stands beside them and are never added across currencies.
"""
RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('bi', 'partner_center') AND c.relkind IN ('r', 'v') ORDER BY 1, 2
"""
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_API = re.compile(r"\s*API: (\S+?)\.?$")
_PASSING = re.compile(r"days|seconds|(^|_)id$|email|first_name|last_name")
"""Columns whose values pass with time or name somebody, so that an example would say nothing."""

_VOLATILE = ("timestamp with time zone", "date", "uuid", "bigint", "jsonb", "text[]", "double precision")
"""Types whose values differ with the day or the run; their examples would never stand still."""


async def dictionary(connection: asyncpg.Connection, examples: dict[tuple[str, str], str]) -> str:
    """Write the dictionary of the database at hand; `examples` by relation and column."""
    parts = [HEAD]
    for relation in await connection.fetch(RELATIONS):
        name = f"{relation['schema']}.{relation['name']}"
        parts.append(
            f"\n## {name}\n\n{relation['comment']}\n\n| column | type | is | API | example |\n|---|---|---|---|---|"
        )
        for column in await connection.fetch(COLUMNS, name):
            comment = column["comment"] or ""
            found = _API.search(comment)
            path = f"`{found[1]}`" if found else ""
            comment = _API.sub("", comment).rstrip(".")
            example = examples.get((name, column["name"]), "")
            cells = (
                f"`{column['name']}`",
                column["type"].replace("timestamp with time zone", "timestamptz"),
                comment,
                path,
            )
            parts.append(f"| {' | '.join(cells)} | {example} |")
    return "\n".join(parts) + "\n"


SOURCES_HEAD = """# Made from the comments in the database by `make dictionary`.
# Needs dbt 1.10 or newer, for `loaded_at_query`.
# `dbt source freshness` asks bi.freshness: the account whose last good sync is the longest ago counts.
"""
_OLDEST = "SELECT coalesce(min(coalesce(fresh_as_of, 'epoch')), 'epoch') FROM bi.freshness"
"""The age of the copy; an account that was never loaded is as old as can be."""

_FRESHNESS = {
    "loaded_at_query": _OLDEST,
    "freshness": {"warn_after": {"count": 1, "period": "hour"}, "error_after": {"count": 1, "period": "day"}},
}


async def sources(connection: asyncpg.Connection) -> str:
    """Write what dbt has to know of schema `bi`; the views with personal data are a source of their own."""
    plain, personal = list[dict[str, Any]](), list[dict[str, Any]]()
    for relation in await connection.fetch(RELATIONS):
        if relation["schema"] != "bi":
            continue
        columns = await connection.fetch(COLUMNS, f"bi.{relation['name']}")
        table = {
            "name": relation["name"],
            "description": relation["comment"],
            "columns": [
                {
                    "name": column["name"],
                    "description": _API.sub("", column["comment"] or ""),
                    "data_type": column["type"].replace("timestamp with time zone", "timestamptz"),
                }
                for column in columns
            ],
        }
        (personal if "only for bi_reader_pii" in relation["comment"] else plain).append(table)
    described = [
        ("referrals", "Microsoft Partner Center referrals. Sign in with a member of bi_reader.", plain),
        ("referrals_pii", "The people of referrals: personal data, for members of bi_reader_pii only.", personal),
    ]
    tree = {
        "version": 2,
        "sources": [
            {"name": name, "description": description, "schema": "bi", "config": _FRESHNESS, "tables": tables}
            for name, description, tables in described
        ],
    }
    return SOURCES_HEAD + yaml.dump(tree, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """Writes the same thing twice where it occurs twice, which people read more easily than a reference."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never refer."""
        del data
        return True


async def examples(connection: asyncpg.Connection) -> dict[tuple[str, str], str]:
    """Find a value of each column whose values stand still; none of personal data."""
    found = {}
    for relation in await connection.fetch(RELATIONS):
        name = f"{relation['schema']}.{relation['name']}"
        for column in await connection.fetch(COLUMNS, name):
            if (
                column["type"] in _VOLATILE
                or "ersonal" in (column["comment"] or "")
                or "ersonal" in relation["comment"]
            ):
                continue
            value = await connection.fetchval(
                f"""SELECT min("{column["name"]}"::text) FROM {name} WHERE "{column["name"]}"::text <> ''"""  # noqa: S608 - names of the catalogue
            )
            if value is not None and not _PASSING.search(column["name"]):
                found[name, column["name"]] = f"`{value[:40]}`".replace("|", "/")
    return found


async def load(url: str, count: int = 200) -> None:
    """Fill a migrated database from a simulator in this process, always with the same referrals."""
    simulator = await start(make_referrals(count, 1, datetime(2026, 1, 1, tzinfo=UTC)), Behaviour())
    try:
        async with (
            open_database(url, connections=6) as database,
            open_client(
                base_url=simulator.origin,
                token=static_token("simulator", "dictionary"),
                clock=await database.clock(),
                ca_file=None,
                max_page_bytes=1 << 26,
            ) as client,
        ):
            await backfill_account(Pipeline("contoso", database, client, timedelta(minutes=10)))
    finally:
        await simulator.stop()


def log_events() -> str:
    """Return the page of log events."""
    rows = [
        f"| `{event}` | {', '.join(f'`{key}`' for key in keys.split()) or ' '} | {meaning} |"
        for event, (keys, meaning) in sorted(EVENTS.items())
    ]
    return LOG_HEAD + "\n".join(rows) + "\n"


async def main() -> None:
    """Start a server, fill a database, and write the files."""
    configure("warning", "auto")
    with tempfile.TemporaryDirectory(prefix="referral-sync-") as folder:
        async with embedded.server(Path(folder)) as url:
            await migrate.upgrade(url)
            await load(url)
            connection = await asyncpg.connect(url)
            text = await dictionary(connection, await examples(connection))
            dbt = await sources(connection)
            await connection.close()
    TARGET.write_text(text, encoding="utf-8")
    SOURCES.write_text(dbt, encoding="utf-8")
    LOG_EVENTS.write_text(log_events(), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
