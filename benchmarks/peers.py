"""dlt doing the same backfill, in an environment of its own: `python benchmarks/peers.py plain|nested ORIGIN DSN`.

Written as its documentation shows it: a resource that follows the listing, merged by id into PostgreSQL. `plain` keeps
nested objects as JSON; `nested` makes child tables, as dlt does by default.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import dlt  # type: ignore[import-not-found]  # lives in an environment of its own
from dlt.sources.helpers import requests  # type: ignore[import-not-found]  # the same

LIST = "/v1.0/engagements/referrals"


def _with_password(dsn: str) -> str:
    """Return an address with some password, which dlt insists on where the server asks for none."""
    return dsn if ":" in dsn.partition("//")[2].partition("@")[0] else dsn.replace("@", ":unused@", 1)


def main(how: str, origin: str, dsn: str) -> None:
    """Load everything and say what it took."""
    asked = 0

    @dlt.resource(  # type: ignore[untyped-decorator]  # the same
        name=f"referrals_{how}",
        primary_key="id",
        write_disposition="merge",
        max_table_nesting=0 if how == "plain" else None,
    )
    def referrals() -> Iterator[list[dict[str, Any]]]:
        nonlocal asked
        query = "$orderby=createdDateTime%20asc"
        while query:
            page = requests.get(f"{origin}{LIST}?{query}").json()
            asked += 1
            yield page["value"]
            query = page.get("@odata.nextLink", "").partition("?")[2]

    started = time.perf_counter()
    destination = dlt.destinations.postgres(_with_password(dsn))
    pipeline = dlt.pipeline(pipeline_name=f"bench_{how}", destination=destination, dataset_name=f"dlt_{how}")
    pipeline.run(referrals())
    seconds = time.perf_counter() - started
    sys.stdout.write(json.dumps({"seconds": seconds, "requests": asked, "table": f"dlt_{how}.referrals_{how}"}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
