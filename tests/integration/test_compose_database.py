"""The settings that the compose file gives its PostgreSQL, on a real server."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import asyncpg
import yaml

from worker.embedded import server as embedded

ROOT = Path(__file__).parent.parent.parent


async def test_a_server_takes_them_and_they_fit_its_memory(server_folder: Path) -> None:
    db = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["db"]
    program, *options = db["command"]
    assert program == "postgres"
    settings = dict(pair for option in options for pair in re.findall(r"^-c(\w+)=(\S+)$", option))
    assert len(settings) == len(options)
    # The image's server is built with lz4, the embedded one is not.
    compressed = {name: settings.pop(name) for name in ("wal_compression", "default_toast_compression")}
    assert set(compressed.values()) == {"lz4"}
    with tempfile.TemporaryDirectory(prefix="referral-sync-", dir=server_folder) as folder:
        async with embedded.server(Path(folder), settings=settings) as url:
            connection = await asyncpg.connect(url)
            try:
                for name in compressed:
                    assert await connection.fetchval("SELECT count(*) FROM pg_settings WHERE name = $1", name) == 1
                for name, value in settings.items():
                    assert await connection.fetchval("SELECT current_setting($1)", name) == value
                assert await connection.fetchval(
                    "SELECT bool_and(source = 'command line') FROM pg_settings WHERE name = ANY ($1)", list(settings)
                )
                size = "SELECT pg_size_bytes(current_setting($1))"
                shared = await connection.fetchval(size, "shared_buffers")
                cached = await connection.fetchval(size, "effective_cache_size")
            finally:
                await connection.close()
    assert db["deploy"]["resources"]["limits"]["memory"] == "1g"
    assert shared * 4 <= 1 << 30
    assert shared < cached < 1 << 30
