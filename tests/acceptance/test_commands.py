"""Each command as a person runs it: what it does, what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.support.command import PIPE, Command, open_command
from tests.support.conditions import until
from worker import RELEASE
from worker.demo.control import Control

SECRET = "simulator"
UNREACHABLE = "http://127.0.0.1:9"


async def count(db: asyncpg.Connection, table: str = "partner_center.referrals") -> int:
    number: int = await db.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a constant of this file
    return number


async def listings(simulator: Control) -> int:
    return len([one for one in await simulator.requests() if "engagements/referrals" in one["path"]])


async def test_first_sync_backfills_and_second_writes_nothing_with_one_request(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(300)
    first = command("sync")
    assert (first.returncode, first.stdout.split(",")[0]) == (0, "contoso: 300 inserted")
    before = await db.fetch("SELECT id, xmin::text, ctid::text FROM partner_center.referrals ORDER BY id")
    await simulator.clear_requests()
    second = command("sync")
    assert second.returncode == 0
    assert "0 inserted, 0 updated" in second.stdout
    assert await listings(simulator) == 1
    assert await db.fetch("SELECT id, xmin::text, ctid::text FROM partner_center.referrals ORDER BY id") == before


async def test_dry_run_says_what_would_change_and_writes_nothing(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(50)
    command("sync")
    created = (await simulator.create([{}]))[0]["id"]
    runs = await count(db, "sync.runs")
    result = command("sync", "--dry-run")
    assert result.returncode == 0
    assert f"insert   {created}" in result.stdout
    assert (await count(db), await count(db, "sync.runs")) == (50, runs)
    deleted = next(iter((await simulator.state())["referrals"]))
    await simulator.delete(deleted)
    result = command("reconcile", "--dry-run")
    assert f"deleted  {deleted}" in result.stdout
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL") == 0


async def test_backfill_of_a_range_extends_and_sets_no_watermark(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(400)
    times = sorted(record["createdDateTime"] for record in (await simulator.state(full=True))["records"].values())
    middle, later = times[100][:19] + "Z", times[250][:19] + "Z"
    first = command("backfill", "--since", middle, "--until", later)
    assert first.returncode == 0, first.stderr
    loaded = await count(db)
    assert 145 <= loaded <= 155
    assert await count(db, "sync.watermarks") == 0
    again = command("backfill", "--since", middle, "--until", later)
    assert again.stdout.startswith("contoso: 0 inserted, 0 updated, 0 unchanged"), again.stdout
    wider = command("backfill", "--since", middle)
    assert wider.returncode == 0
    assert f"{400 - 100 - loaded} inserted" in wider.stdout or await count(db) in range(295, 306)
    whole = command("backfill", "--verify")
    assert whole.returncode == 0, whole.stderr
    assert await count(db) == 400
    assert await count(db, "sync.watermarks") == 1


SESSIONS = """
SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'referral-sync'
"""


async def test_killed_backfill_goes_on_where_it_was(
    command: Command, environment: dict[str, str], simulator: Control, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await simulator.reset(3000)
    await simulator.behaviour(latency=0.2)
    with open_command(environment, tmp_path, "backfill") as process:
        while await db.fetchval("SELECT count(*) FROM partner_center.referrals") < 1000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    await simulator.behaviour(latency=0)
    # A commit that was under way is finished without the one who asked for it.
    await until(lambda: db.fetchval(SESSIONS), "the sessions of the killed process")
    stored = await count(db)
    await db.execute("UPDATE sync.leases SET expires_at = now()")  # what 45 seconds would do
    await simulator.clear_requests()
    rest = command("backfill")
    assert rest.returncode == 0, rest.stderr
    assert f"{3000 - stored} inserted" in rest.stdout
    pages_in_all = 3000 / 100
    assert await listings(simulator) <= pages_in_all - stored / 100 + 45, "it read again what was stored"
    assert await db.fetchval("SELECT count(*) FROM sync.runs WHERE outcome = 'abandoned'") == 1
    assert await db.fetchval("SELECT loaded_at IS NOT NULL FROM sync.backfills")


async def test_reconcile_marks_what_was_deleted_up_to_the_cap(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(100)
    command("sync")
    ids = sorted((await simulator.state())["referrals"])
    await simulator.delete(ids[0])
    assert "1 deleted at the source" in command("reconcile").stdout
    await simulator.behaviour(visible_fraction=0.5)
    refused = command("reconcile")
    assert refused.returncode == 1
    assert "--accept-vanished" in refused.stderr
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL") == 1
    accepted = command("reconcile", "--accept-vanished")
    assert accepted.returncode == 0
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL") > 20
    await simulator.behaviour(visible_fraction=1.0)
    command("reconcile")
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE deleted_at IS NOT NULL") == 1


async def test_refresh_stores_the_etag_and_names_what_is_not_there(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(5)
    command("sync")
    referral_id = next(iter((await simulator.state())["referrals"]))
    assert await db.fetchval("SELECT etag FROM partner_center.referrals WHERE id = $1", referral_id) is None
    result = command("refresh", referral_id)
    assert result.returncode == 0, result.stderr
    assert await db.fetchval("SELECT etag FROM partner_center.referrals WHERE id = $1", referral_id) is not None
    absent = command("refresh", referral_id, "00000000-0000-0000-0000-000000000000")
    assert absent.returncode == 1
    assert "00000000" in absent.stderr


async def test_status_has_the_documented_keys(command: Command, simulator: Control) -> None:
    await simulator.reset(20)
    assert json.loads(command("status", "--json").stdout)["accounts"][0]["health"] == "never ran"
    command("sync")
    result = command("status", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["release"] == RELEASE
    (account,) = json.loads(result.stdout)["accounts"]
    assert account["health"] == "ok"
    assert account["live_referrals"] == 20
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
    assert [key for key in account if f"`{key}`" not in readme] == []


def test_migrate_check_says_whether_it_is_needed(command: Command, empty_database_url: str) -> None:
    bare = {"REFERRAL_SYNC_DATABASE__URL": empty_database_url}
    assert command("migrate", "--check", **bare).returncode == 1
    unmigrated = command("sync", **bare)
    assert unmigrated.returncode == 1
    assert "referral-sync migrate" in unmigrated.stderr
    assert command("migrate", **bare).returncode == 0
    assert command("migrate", "--check", **bare).returncode == 0
    assert command("migrate", **bare).returncode == 0


async def test_labels_come_from_the_configuration(command: Command, simulator: Control, db: asyncpg.Connection) -> None:
    """Other accounts keep theirs: another worker may serve them on this database."""
    await simulator.reset(3)
    await db.execute("INSERT INTO sync.accounts VALUES ('other', 'Another one')")
    command("sync")
    asked = "SELECT DISTINCT account_label FROM bi.referrals"
    assert await db.fetchval(asked) == "contoso", "nobody has said anything else yet"
    for label, shown in (("Contoso, Wien", "Contoso, Wien"), ("", "contoso")):
        assert command("migrate", REFERRAL_SYNC_ACCOUNTS__CONTOSO__LABEL=label).returncode == 0
        assert await db.fetchval(asked) == shown
        (account,) = json.loads(command("status", "--json").stdout)["accounts"]
        assert account["account_label"] == await db.fetchval("SELECT account_label FROM bi.freshness") == shown
    assert await db.fetchval("SELECT label FROM sync.accounts WHERE account = 'other'") == "Another one"
    assert command("account", "remove", "contoso").returncode == 0
    assert await db.fetchval("SELECT count(*) FROM sync.accounts") == 1


async def test_the_report_goes_to_a_file_or_to_stdout(command: Command, simulator: Control, tmp_path: Path) -> None:
    await simulator.reset(20)
    before = command("report", "--out", "-")
    assert before.returncode == 0
    assert "contoso</b>" in before.stdout
    assert "has no backfill yet" in before.stdout, "which is not the same as nothing open"
    command("sync")
    result = command("report", "--out", "-", "--account", "contoso")
    assert result.returncode == 0
    assert result.stdout.startswith("<!DOCTYPE html>")
    assert result.stdout.rstrip().endswith("</html>"), "nothing but the page"
    page = tmp_path / "page.html"
    assert f"The report is in {page}." in command("report", "--out", str(page)).stdout
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert command("report", "--out", "-", "--account", "nobody").returncode == 2


async def test_check_looks_at_everything(command: Command, simulator: Control) -> None:
    await simulator.reset(300)
    good = command("check")
    assert good.returncode == 0, good.stdout
    assert good.stdout.count("ok  ") >= 5
    assert "keyset" in good.stdout
    bad = command(
        "check",
        REFERRAL_SYNC_ACCOUNTS__ACME__AUTH="static_token",
        REFERRAL_SYNC_ACCOUNTS__ACME__ACCESS_TOKEN="wrong",
    )
    assert bad.returncode == 3, "a sign-in that is refused"
    assert "FAIL  acme: sign-in and API" in bad.stdout
    assert "ok    contoso: sign-in and API" in bad.stdout, "the others are looked at all the same"
    lost = command("check", REFERRAL_SYNC_DATABASE__URL="postgresql://nobody@127.0.0.1:9/x")
    assert lost.returncode == 1
    assert "FAIL  database: The database at 127.0.0.1:9 does not answer" in lost.stdout


async def test_roles_of_dashboards_that_are_missing_are_no_good_news(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(1)
    await db.execute("REVOKE SELECT ON bi.runs FROM bi_reader")
    result = command("check")
    assert result.returncode == 0
    assert "warn  roles of dashboards" in result.stdout


def test_a_missing_configuration_is_named(command: Command, tmp_path: Path) -> None:
    result = command("status", REFERRAL_SYNC_ACCOUNTS__CONTOSO__AUTH="")
    assert result.returncode == 2
    assert f"there is no {tmp_path / 'config.toml'}" in result.stderr


async def test_a_start_in_the_future_is_warned_of(command: Command, simulator: Control) -> None:
    await simulator.reset(3)
    result = command("backfill", "--since", "2090-01-01")
    assert result.returncode == 0
    assert "is in the future" in result.stderr


def test_config_is_shown_without_secrets(command: Command) -> None:
    result = command("config", REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN="hidden-token-value")
    assert result.returncode == 0
    assert "hidden-token-value" not in result.stdout
    assert "[accounts.contoso]" in result.stdout


@pytest.mark.parametrize(
    ("variables", "code", "message"),
    [
        ({"REFERRAL_SYNC_API__PAGING": "guess"}, 2, "api.paging"),
        ({"REFERRAL_SYNC_LOG__LEVL": "info"}, 2, "REFERRAL_SYNC_LOG__LEVEL"),
        ({"REFERRAL_SYNC_DATABASE__URL": ""}, 2, "database.url"),
        ({"REFERRAL_SYNC_DATABASE__URL": "postgresql://nobody:secret-pw@127.0.0.1:9/x"}, 1, "database.url"),
        ({"REFERRAL_SYNC_API__BASE_URL": "https://partner.invalid"}, 1, "api.base_url"),
        ({"REFERRAL_SYNC_ACCOUNTS__CONTOSO__ACCESS_TOKEN": "secret-token"}, 3, "access_token"),
    ],
    ids=lambda value: str(value) if not isinstance(value, dict) else next(iter(value)),
)
def test_bad_input_is_one_clear_message(command: Command, variables: dict[str, str], code: int, message: str) -> None:
    ended = command("sync", **variables)
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
    for secret in ("secret-pw", "secret-token", "Traceback"):
        assert secret not in ended.stdout + ended.stderr


def test_unknown_account_and_bad_times_are_usage_faults(command: Command) -> None:
    assert command("sync", "--account", "nobody").returncode == 2
    assert command("backfill", "--since", "yesterday").returncode == 2
    assert command("backfill", "--since", "2024-02-01", "--until", "2024-01-01").returncode == 2
    assert command("sync", "--no-such-option").returncode == 2


async def test_since_reads_again(command: Command, simulator: Control, db: asyncpg.Connection) -> None:
    await simulator.reset(60)
    command("sync")
    lost = await db.fetchval(
        "DELETE FROM partner_center.referrals"
        " WHERE version = (SELECT min(version) FROM partner_center.referrals) RETURNING id"
    )
    assert "0 inserted" in command("sync").stdout
    assert "1 inserted" in command("sync", "--since", "2020-01-01").stdout
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE id = $1", lost) == 1


async def test_a_command_that_is_asked_to_wait_has_status_say_so(command: Command, simulator: Control) -> None:
    await simulator.reset(10)
    assert command("sync").returncode == 0
    await simulator.faults({"kind": "status", "status": 429, "retry_after": "3600", "times": -1})
    result = command("sync")
    assert result.returncode == 1
    assert "wait 3600 s" in result.stderr
    assert "backing off" in command("status").stdout
    await simulator.clear_faults()


async def test_one_account_failing_leaves_the_others(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(10)
    ended = command(
        "sync",
        REFERRAL_SYNC_ACCOUNTS__ADATUM__AUTH="static_token",
        REFERRAL_SYNC_ACCOUNTS__ADATUM__ACCESS_TOKEN="refused",
    )
    assert ended.returncode == 3
    assert await count(db) == 10
    health = {row["account"]: row["health"] for row in await db.fetch("SELECT * FROM sync.status")}
    assert health == {"adatum": "action required", "contoso": "ok"}
    assert (
        command(
            "status",
            REFERRAL_SYNC_ACCOUNTS__ADATUM__AUTH="static_token",
            REFERRAL_SYNC_ACCOUNTS__ADATUM__ACCESS_TOKEN="refused",
        ).returncode
        == 1
    )


async def test_bad_records_are_rejected_and_the_rest_is_stored(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(30)
    for number, body in enumerate(
        (
            b'{"id":"%s","details":{"dealValue":NaN}}',
            b'{"id":"%s","createdDateTime":"2024-01-01T00:00:00Z","updatedDateTime":"2024-01-01T00:00:00Z","anything":1e200000}',
        )
    ):
        key = f"00000000-0000-0000-0000-00000000000{number}"
        await simulator.raw(
            key,
            body.replace(b"%s", key.encode()),
            updated="2024-01-01T00:00:00.0000000Z",
            created="2024-01-01T00:00:00.0000000Z",
        )
    future = (await simulator.create([{"updatedDateTime": "2999-01-01T00:00:00.0000000Z"}]))[0]["id"]
    result = command("sync")
    assert result.returncode == 0, result.stderr
    assert "31 inserted" in result.stdout
    assert "2 rejected" in result.stdout
    assert await count(db, "sync.rejected_records") == 2
    assert await db.fetchval("SELECT count(*) FROM partner_center.referrals WHERE id = $1", future) == 1
    assert await db.fetchval("SELECT checkpoint_at < now() + interval '5 minutes' FROM sync.watermarks")


async def test_edits_between_a_partial_backfill_and_the_first_backfill_are_not_lost(
    command: Command, simulator: Control, db: asyncpg.Connection
) -> None:
    await simulator.reset(100)
    assert command("backfill", "--until", "2999-01-01").returncode == 0
    edited = next(iter((await simulator.state())["referrals"]))
    await simulator.update(edited, {"salesStage": "edited meanwhile"})
    await simulator.create([{}])
    for _ in range(2):
        assert command("sync", REFERRAL_SYNC_SYNC__OVERLAP="0s").returncode == 0
    rows = await db.fetch("SELECT id, payload ->> 'updatedDateTime' AS at FROM partner_center.referrals")
    assert {row["id"]: row["at"] for row in rows} == (await simulator.state())["referrals"]


def test_the_demo_shows_what_an_analyst_sees_and_leaves_nothing_running(command: Command) -> None:
    result = command("demo", "--count", "300")
    assert result.returncode == 0, result.stderr
    for line in (
        "Backfill: 300",
        "An idle sync: 0 rows written, in 1 request",
        "3 deleted at the source",
        "Won",
        "contoso  ok",
    ):
        assert line in result.stdout, result.stdout
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: S607 - ps is where PATH says
    assert "referral-sync-demo-" not in running


async def test_the_simulator_serves_until_it_is_asked_to_stop(environment: dict[str, str], tmp_path: Path) -> None:
    with open_command(environment, tmp_path, "simulate", "--count", "5", "--port", "0", stdout=PIPE) as process:
        assert process.stdout is not None
        origin = process.stdout.readline().strip()
        async with Control(origin) as control:
            assert len((await control.state())["referrals"]) == 5
        process.terminate()
        assert process.wait(10) == 0


def test_the_release_is_said(command: Command) -> None:
    result = command("--version")
    assert (result.returncode, result.stdout) == (0, f"referral-sync {RELEASE}\n")


@pytest.mark.parametrize(
    ("streams", "code"),
    [("<&- >&- 2>&-", 0), (">&-", 0), ("2>&-", 0), ("> /dev/full", 1), ("> /dev/full 2> /dev/full", 1)],
)
def test_streams_that_are_closed_or_full_are_no_traceback(
    streams: str, code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    line = f"{sys.executable} -m worker config {streams}"
    result = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr


def test_a_working_directory_that_was_removed_is_a_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    removed = tmp_path / "removed"
    line = f"mkdir {removed} && cd {removed} && rmdir {removed} && exec {sys.executable} -m worker config"
    result = subprocess.run(
        ["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "working directory" in result.stderr
    assert "Traceback" not in result.stderr
