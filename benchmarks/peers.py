"""Peers doing the same backfill, in an environment of their own: `python benchmarks/peers.py HOW ORIGIN DSN`.

dlt is written as its documentation shows it: a resource that follows the listing, merged by id into PostgreSQL. `plain`
keeps nested objects as JSON; `nested` makes child tables, as dlt does by default. `sling` loads a file of JSON lines,
into which the listing is written before; its program is for Linux on x86-64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt  # type: ignore[import-not-found]  # lives in an environment of its own
from dlt.sources.helpers import requests  # type: ignore[import-not-found]  # the same

LIST = "/v1.0/engagements/referrals"


def _with_password(dsn: str) -> str:
    """Return an address with some password, which dlt insists on where the server asks for none."""
    return dsn if ":" in dsn.partition("//")[2].partition("@")[0] else dsn.replace("@", ":unused@", 1)


def main(how: str, origin: str, dsn: str) -> None:
    """Load everything and say what it took."""
    if how == "sling":
        by_sling(origin, dsn)
    else:
        by_dlt(how, origin, dsn)


def pages(origin: str) -> Iterator[list[dict[str, Any]]]:
    """Follow the listing."""
    query = "$orderby=createdDateTime%20asc"
    while query:
        page = requests.get(f"{origin}{LIST}?{query}").json()
        yield page["value"]
        query = page.get("@odata.nextLink", "").partition("?")[2]


def by_sling(origin: str, dsn: str) -> None:
    """Load with sling, nested objects as JSON."""
    import sling_linux_amd64  # type: ignore[import-not-found]  # noqa: PLC0415 - lives there, and on Linux alone

    program = Path(sling_linux_amd64.__file__).parent / "bin" / "sling-linux-amd64"
    program.chmod(0o755)
    asked, started = 0, time.perf_counter()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lines:
        for page in pages(origin):
            asked += 1
            lines.writelines(json.dumps(record) + "\n" for record in page)
        lines.flush()
        command = [str(program), "run", "--src-stream", f"file://{lines.name}", "--tgt-conn", "BENCH"]
        command += ["--tgt-object", "public.sling_referrals", "--mode", "full-refresh"]
        variables = os.environ | {"BENCH": dsn, "SLING_DISABLE_TELEMETRY": "TRUE"}
        subprocess.run(command, check=True, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _say(time.perf_counter() - started, asked, "public.sling_referrals")


def by_dlt(how: str, origin: str, dsn: str) -> None:
    """Load with dlt."""
    asked = 0

    @dlt.resource(  # type: ignore[untyped-decorator]  # the same
        name=f"referrals_{how}",
        primary_key="id",
        write_disposition="merge",
        max_table_nesting=0 if how == "plain" else None,
    )
    def referrals() -> Iterator[list[dict[str, Any]]]:
        nonlocal asked
        for page in pages(origin):
            asked += 1
            yield page

    started = time.perf_counter()
    destination = dlt.destinations.postgres(_with_password(dsn))
    pipeline = dlt.pipeline(pipeline_name=f"bench_{how}", destination=destination, dataset_name=f"dlt_{how}")
    pipeline.run(referrals())
    _say(time.perf_counter() - started, asked, f"dlt_{how}.referrals_{how}")


def _say(seconds: float, asked: int, table: str) -> None:
    sys.stdout.write(json.dumps({"seconds": seconds, "requests": asked, "table": table}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
