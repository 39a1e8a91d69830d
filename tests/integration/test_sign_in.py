"""Signing in at a real HTTPS identity service: rotation, revocation, outages, challenges, and what is stored of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import msal.authority
import pytest
import trustme
from aiohttp import web
from cryptography.fernet import Fernet

from tests.support.secure import CONFIGURED, SECRET, Secure, environment, secure_simulator
from tests.support.steps import ACCOUNT, MEASURED
from worker import wiring
from worker.auth import microsoft, refresh
from worker.config.models import Settings
from worker.config.sources import load as load_settings
from worker.demo.control import Control
from worker.errors import ConfigError, PermissionRefused, SignInError, SourceUnavailable, StoreError, SyncError
from worker.store import queries, tokens
from worker.store.database import Database, open_database
from worker.store.seal import Seal, read_keys

ROOT = Path(__file__).parent.parent.parent


RENEWING = """
import asyncio, sys
from worker import wiring
from worker.config.sources import load
from worker.logs import configure
from worker.store.database import open_database

async def main():
    async with open_database(sys.argv[1], connections=2) as database:
        current = wiring.token_source(load(), database, "contoso", force=True)
        while True:
            await current(True)
            print("renewed", flush=True)

configure("info", "json")
asyncio.run(main())
"""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_bytes(Fernet.generate_key())
    return path


@pytest.fixture
def settings(database_url: str, secure: Secure, service: Control, key_file: Path, tmp_path: Path) -> Settings:
    del service  # reset for this test
    return load_settings(environment(database_url, secure, key_file), tmp_path)


def with_account(settings: Settings, **changes: Any) -> Settings:
    account = settings.accounts[ACCOUNT].model_copy(update=changes)
    return settings.model_copy(update={"accounts": {ACCOUNT: account}})


async def token_requests(service: Control) -> int:
    return len([one for one in await service.requests() if one["path"].endswith("/token")])


async def asks_api(settings: Settings, database: Database) -> int:
    """Ask for a page with a new token source; returns how many referrals came."""
    async with wiring.open_pipeline(settings, database, ACCOUNT) as pipeline:
        return len((await pipeline.client.list("")).records)


async def test_a_configured_refresh_token_becomes_a_chain_that_is_stored_sealed(
    settings: Settings, database: Database, db: asyncpg.Connection, key_file: Path
) -> None:
    assert await asks_api(settings, database) == 30
    (chain,) = await tokens.chains(database, ACCOUNT)
    assert chain.sealed is not None
    newest = Seal(read_keys(key_file)).open(chain.sealed)
    assert newest.startswith("refresh-")
    everything = str(await db.fetch("SELECT t::text FROM sync.tokens t"))
    assert newest not in everything
    assert CONFIGURED not in everything
    (row,) = await queries.status(database)
    assert 89 < (row["sign_in_lapses_at"] - await db.fetchval("SELECT now()")).days + 1 <= 90


async def test_a_hundred_rotations_by_two_replicas_and_restarts_lose_no_token(
    settings: Settings, database: Database, database_url: str, service: Control
) -> None:
    """Each refresh token works only once: one that is lost, or used twice, ends the chain."""
    await service.behaviour(refresh_tokens="single_use")

    async def replica(opened: Database) -> None:
        for _restart in range(10):
            current = wiring.token_source(settings, opened, ACCOUNT, force=True)
            for _ in range(5):
                assert await current(True)

    async with open_database(database_url, connections=4) as other:
        await asyncio.gather(replica(database), replica(other))
    (chain,) = await tokens.chains(database, ACCOUNT)
    assert chain.rotations == 99, "one began the chain"
    assert await token_requests(service) == 100
    assert await asks_api(settings, database) == 30


async def test_processes_that_are_killed_lose_no_token(
    settings: Settings, database: Database, secure: Secure, database_url: str, key_file: Path, tmp_path: Path
) -> None:
    """The former token stays good at the service, so whoever was killed between asking and storing harms nobody."""
    variables = environment(database_url, secure, key_file) | MEASURED
    variables |= {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", RENEWING, database_url],
            cwd=tmp_path,
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(3):
                assert await asyncio.to_thread(process.stdout.readline) == "renewed\n"
            process.kill()
        await expire_lease(database)
    assert await asks_api(settings, database) == 30


async def test_a_stop_in_the_middle_of_a_renewal_loses_no_token(
    settings: Settings, database: Database, service: Control
) -> None:
    """Each token works only once, and the renewal is cancelled wherever it happens to be."""
    await service.behaviour(refresh_tokens="single_use")
    await asks_api(settings, database)
    for number in range(12):
        renewal = asyncio.create_task(wiring.token_source(settings, database, ACCOUNT, force=True)(False))
        await asyncio.sleep(number * 0.02)
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
    assert await asks_api(settings, database) == 30


async def expire_lease(database: Database) -> None:
    """Let the time pass after which a dead process's lease is free."""
    async with database.transaction() as connection:
        await connection.execute("UPDATE sync.leases SET expires_at = now()")


ASKING = """
import asyncio, sys
from worker import wiring
from worker.config.sources import load
from worker.logs import configure
from worker.store.database import open_database

async def main():
    async with open_database(sys.argv[1], connections=2) as database:
        async with wiring.open_pipeline(load(), database, "contoso") as pipeline:
            for _ in sys.stdin:
                print(len((await pipeline.client.list("")).records), flush=True)

configure("info", "json")
asyncio.run(main())
"""


async def test_workers_share_an_access_token_and_the_one_that_takes_its_place(
    database_url: str, secure: Secure, service: Control, key_file: Path, tmp_path: Path
) -> None:
    variables = environment(database_url, secure, key_file) | {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", ASKING, database_url],
                    cwd=tmp_path,
                    env=variables,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]

        def asks(worker: subprocess.Popen[str]) -> str:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            return worker.stdout.readline()

        for redeemed in (1, 2):
            answers = await asyncio.gather(*(asyncio.to_thread(asks, worker) for worker in workers))
            assert answers == ["30\n", "30\n"]
            assert await token_requests(service) == redeemed, "by one for both, however many there are"
            await service.tokens(expire="all")
        for worker in workers:
            worker.kill()


async def test_an_access_token_is_stored_sealed_and_forgotten_once_it_is_refused(
    settings: Settings, database: Database, db: asyncpg.Connection, service: Control
) -> None:
    current = wiring.token_source(settings, database, ACCOUNT)
    token = await current(False)
    assert await wiring.token_source(settings, database, ACCOUNT)(False) == token
    assert await token_requests(service) == 1
    stored = "SELECT access_token IS NOT NULL FROM sync.tokens"
    assert await db.fetchval(stored)
    assert token not in str(await db.fetch("SELECT t::text, encode(access_token, 'escape') FROM sync.tokens t"))
    left = await db.fetchval("SELECT extract(epoch FROM access_expires_at - now())::float8 FROM sync.tokens")
    assert 3500 < left <= 3600
    await service.faults({"kind": "status", "status": 503, "path": "oauth2", "times": -1})
    with pytest.raises(SourceUnavailable):
        await current(True)
    assert not await db.fetchval(stored), "the API refused it, so nobody takes it from there"


async def test_a_sign_in_that_is_refused_ends_the_access_token_of_all(
    settings: Settings, database: Database, db: asyncpg.Connection, service: Control
) -> None:
    await asks_api(settings, database)
    await service.tokens(revoke_refresh="all")
    with pytest.raises(SignInError):
        await wiring.token_source(settings, database, ACCOUNT, force=True)(False)
    assert await db.fetchval("SELECT access_token IS NULL FROM sync.tokens")
    with pytest.raises(SignInError):
        await asks_api(settings, database)


@pytest.mark.parametrize("change", ["base_url", "client_id", "moved to another account", "sealed by a former key"])
async def test_a_shared_access_token_goes_only_to_where_it_was_issued_for(
    change: str, settings: Settings, database: Database, db: asyncpg.Connection, service: Control, key_file: Path
) -> None:
    token = await wiring.token_source(settings, database, ACCOUNT)(False)
    name = ACCOUNT
    if change == "base_url":
        other = settings.api.base_url.replace("127.0.0.1", "localhost")
        settings = settings.model_copy(update={"api": settings.api.model_copy(update={"base_url": other})})
    elif change == "client_id":
        settings = with_account(settings, client_id="another")
        await db.execute("UPDATE sync.tokens SET issued_for = replace(issued_for, 'an-application', 'another')")
    elif change == "moved to another account":
        name = "adatum"
        settings = settings.model_copy(update={"accounts": {name: settings.accounts[ACCOUNT]}})
        await db.execute("UPDATE sync.tokens SET account = $1, chain = $2", name, tokens.fingerprint(name, CONFIGURED))
    else:
        key_file.write_bytes(Fernet.generate_key() + b"\n" + key_file.read_bytes())
    assert await wiring.token_source(settings, database, name)(False) != token
    assert await token_requests(service) == 2


async def test_without_a_key_no_access_token_is_stored(
    settings: Settings, database: Database, db: asyncpg.Connection, service: Control
) -> None:
    sign_in = replace(wiring.sign_in_of(settings, ACCOUNT), seal=None)
    for _ in range(2):
        assert await refresh.kept_fresh(database, sign_in)(False)
    assert await token_requests(service) == 2
    assert await db.fetchval("SELECT count(*) FROM sync.tokens WHERE num_nonnulls(access_token, sealed) > 0") == 0


async def test_a_new_configured_token_begins_a_chain_and_a_stale_one_never_wins(
    settings: Settings, database: Database, service: Control
) -> None:
    await asks_api(settings, database)
    await service.tokens(add_refresh=["the-second"])
    renewed = with_account(settings, refresh_token=type(settings.http.token)("the-second"))
    assert await asks_api(renewed, database) == 30
    second, first = await tokens.chains(database, ACCOUNT)
    former_worker = wiring.token_source(settings, database, ACCOUNT, force=True)
    assert await former_worker(False), "a replica that still has the first in its configuration"
    again, former = await tokens.chains(database, ACCOUNT)
    assert (again.key, former.key) == (second.key, first.key)
    assert again.rotations == 1, "it used the second chain"
    assert former.rotations == first.rotations


async def test_a_configured_token_that_is_refused_does_not_end_a_good_chain(
    settings: Settings, database: Database, service: Control
) -> None:
    await asks_api(settings, database)
    wrong = with_account(settings, refresh_token=type(settings.http.token)("never-issued"))
    assert await asks_api(wrong, database) == 30
    await service.tokens(add_refresh=["never-issued"])
    async with database.transaction() as connection:
        await connection.execute("UPDATE sync.tokens SET refused_at = now() - interval '1 hour' WHERE sealed IS NULL")
    assert await asks_api(wrong, database) == 30
    newest = (await tokens.chains(database, ACCOUNT))[0]
    assert newest.sealed is not None, "and it is tried again: now it is in force"


async def test_a_revoked_sign_in_requires_action_and_is_not_asked_again_and_again(
    settings: Settings, database: Database, service: Control
) -> None:
    await asks_api(settings, database)
    await service.tokens(revoke="all", revoke_refresh="all")
    await service.clear_requests()
    for number in range(5):
        with pytest.raises(SignInError, match="AADSTS700082") as caught:
            await asks_api(settings, database)
        assert caught.value.exit_code == 3
        assert await token_requests(service) == 1, f"asked once, not {number + 1} times"
    (row,) = await queries.status(database)
    assert row["health"] == "action required"
    assert "AADSTS700082" in row["sign_in_refused_because"]
    with pytest.raises(SignInError):
        await wiring.token_source(settings, database, ACCOUNT, force=True)(False)
    assert await token_requests(service) == 2, "`check` asks at once"
    await service.tokens(add_refresh=["after-consent"])
    again = with_account(settings, refresh_token=type(settings.http.token)("after-consent"))
    assert await asks_api(again, database) == 30
    (row,) = await queries.status(database)
    assert row["sign_in_refused_at"] is None


async def test_another_secret_is_tried_at_once(settings: Settings, database: Database, service: Control) -> None:
    wrong = with_account(settings, client_secret=type(settings.http.token)("expired"))
    for _ in range(2):
        with pytest.raises(SignInError, match="AADSTS7000215") as caught:
            await asks_api(wrong, database)
        assert "expired" not in str(caught.value) + caught.value.hint
    assert await token_requests(service) == 1
    assert await asks_api(settings, database) == 30


async def test_an_outage_is_outlived_while_a_token_is_good(
    settings: Settings, database: Database, service: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "RENEW_AT", 0.0)
    current = wiring.token_source(settings, database, ACCOUNT)
    good = await current(False)
    await service.faults({"kind": "status", "status": 503, "path": "oauth2", "times": -1})
    assert await current(False) == good, "it is due for renewal, and still good"
    with pytest.raises(SourceUnavailable):
        await current(True)
    await service.clear_faults()
    await asyncio.sleep(5.1)  # MSAL repeats a refusal of its own for five seconds
    assert await current(False) != good
    (chain,) = await tokens.chains(database, ACCOUNT)
    assert chain.refused_for is None, "an outage is no refusal"


async def test_it_renews_before_the_end_and_once_after_a_401(
    settings: Settings, database: Database, service: Control
) -> None:
    await service.behaviour(token_lifetime=2.0)
    async with wiring.open_pipeline(settings, database, ACCOUNT) as pipeline:
        for _ in range(8):
            await pipeline.client.list("")
            await asyncio.sleep(0.4)
        statuses = {one["status"] for one in await service.requests()}
        assert statuses == {200}, "no request met the end of a token"
        assert 1 < await token_requests(service) < 5
        await service.behaviour(token_lifetime=3600.0)
        await pipeline.client.list("")
        before = await token_requests(service)
        await service.tokens(expire="all")
        await asyncio.gather(*(pipeline.client.list("") for _ in range(5)))
        assert await token_requests(service) - before <= 1, "one renewal for all who were refused"


@pytest.mark.parametrize("offset", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_wrong_does_not_matter(
    offset: float, settings: Settings, database: Database, service: Control
) -> None:
    await service.clock(offset)
    current = wiring.token_source(settings, database, ACCOUNT)
    assert await current(False) == await current(False)
    assert await token_requests(service) == 1


async def test_a_claims_challenge_is_answered(settings: Settings, database: Database, service: Control) -> None:
    await service.behaviour(demand_claims="challenge")
    async with wiring.open_pipeline(settings, database, ACCOUNT) as pipeline:
        assert len((await pipeline.client.list("")).records) == 30
        await service.tokens(expire="all")
        assert len((await pipeline.client.list("")).records) == 30, "and remembered for the next token"
        assert await token_requests(service) == 3


async def test_a_challenge_that_only_a_person_can_answer_says_so(
    settings: Settings, database: Database, service: Control
) -> None:
    await service.behaviour(demand_claims="challenge", grant_claims=False)
    with pytest.raises(SignInError, match="AADSTS50076") as caught:
        await asks_api(settings, database)
    assert "login --account contoso" in caught.value.hint
    await service.behaviour(demand_claims="silent")
    async with database.transaction() as connection:
        await connection.execute("UPDATE sync.tokens SET refused_at = NULL")
    with pytest.raises(SignInError, match="conditional access") as caught:
        await asks_api(settings, database)
    assert not isinstance(caught.value, PermissionRefused)
    assert "MFA" in caught.value.hint


async def test_keys_are_rotated_and_a_lost_one_is_named(settings: Settings, database: Database, key_file: Path) -> None:
    await asks_api(settings, database)
    (old,), new = read_keys(key_file), Fernet.generate_key().decode()

    def put(*lines: str) -> None:
        key_file.write_text("\n".join(lines))

    put(new)
    with pytest.raises(StoreError, match="key_file"):
        await asks_api(settings, database)
    put(new, old)
    assert await asks_api(settings, database) == 30
    put(new)
    assert await asks_api(settings, database) == 30, "sealed with the new key"
    put("no key")
    with pytest.raises(ConfigError, match=r"security\.key_file"):
        await asks_api(settings, database)


async def test_a_password_signs_in_and_nothing_of_it_is_stored(
    database_url: str, secure: Secure, service: Control, database: Database, db: asyncpg.Connection, key_file: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # MSAL asks about the user's realm at the standard port, which the simulator does not have.
    monkeypatch.setattr(msal.authority.Authority, "_domains_without_user_realm_discovery", {"127.0.0.1"})
    await service.behaviour(password="right")
    account = {"AUTH": "password", "USERNAME": "user@contoso.example", "REFRESH_TOKEN": ""}
    for password, good in (("right", True), ("wrong", False)):
        settings = load_settings(environment(database_url, secure, key_file, PASSWORD=password, **account), tmp_path)
        if good:
            assert await asks_api(settings, database) == 30
            continue
        for _ in range(3):
            with pytest.raises(SignInError, match="AADSTS50126") as caught:
                await asks_api(settings, database)
            assert "user@" not in str(caught.value)
    assert await token_requests(service) == 2, "a wrong password is not repeated, or the user would be locked out"
    assert await db.fetchval("SELECT count(*) FROM sync.tokens WHERE num_nonnulls(access_token, sealed) > 0") == 0


async def test_without_a_key_file_nothing_is_stored_that_a_password_can_be_guessed_from(
    database_url: str, secure: Secure, service: Control, database: Database, db: asyncpg.Connection, key_file: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is stored is the same for every password, or only who has the key can tell which it was made of."""
    monkeypatch.setattr(msal.authority.Authority, "_domains_without_user_realm_discovery", {"127.0.0.1"})
    await service.behaviour(password="right")
    variables = environment(database_url, secure, key_file, AUTH="password", USERNAME="user@contoso.example",
                            REFRESH_TOKEN="", PASSWORD="wrong")  # fmt: skip
    stored = []
    for name, change in {
        "REFERRAL_SYNC_SECURITY__KEY_FILE": "",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__PASSWORD": "also wrong",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__USERNAME": "other@contoso.example",
        "REFERRAL_SYNC_ACCOUNTS__CONTOSO__CLIENT_SECRET": SECRET + "-2",
    }.items():
        variables[name] = change
        settings = load_settings(variables, tmp_path)
        with pytest.raises(SignInError):
            await wiring.token_source(settings, database, ACCOUNT, force=True)(False)
        stored.append(dict(await db.fetchrow("SELECT chain, refused_with, sealed FROM sync.tokens") or {}))
    assert stored == [stored[0]] * 4
    assert stored[0]["chain"] == "password"
    for key in (Fernet.generate_key(), Fernet.generate_key()):
        key_file.write_bytes(key)
        settings = load_settings(variables | {"REFERRAL_SYNC_SECURITY__KEY_FILE": str(key_file)}, tmp_path)
        with pytest.raises(SignInError):
            await wiring.token_source(settings, database, ACCOUNT)(False)
        stored.append(dict(await db.fetchrow("SELECT chain, refused_with, sealed FROM sync.tokens") or {}))
    assert {row["chain"] for row in stored} == {"password"}
    assert len({row["refused_with"] for row in stored}) == 3, "with a key it depends on the key"


async def test_a_wrong_password_is_sent_once_where_another_sign_in_was_used_before(
    settings: Settings, database_url: str, secure: Secure, service: Control, database: Database, key_file: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(msal.authority.Authority, "_domains_without_user_realm_discovery", {"127.0.0.1"})
    assert await asks_api(settings, database) == 30
    await service.behaviour(password="right")
    await service.clear_requests()
    account = {"AUTH": "password", "USERNAME": "user@contoso.example", "REFRESH_TOKEN": "", "PASSWORD": "wrong"}
    changed = load_settings(environment(database_url, secure, key_file, **account), tmp_path)
    for _ in range(2):
        with pytest.raises(SignInError, match="AADSTS50126"):
            await wiring.token_source(changed, database, ACCOUNT)(False)
    assert await token_requests(service) == 1


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o400, True), (0o440, True), (0o640, True), (0o666, False), (0o644, False),
                       (0o660, False), (0o604, False), (0o602, False)],
)  # fmt: skip
async def test_a_key_file_that_others_may_read_or_change_is_refused(
    mode: int, good: bool, settings: Settings, database: Database, database_url: str, secure: Secure, key_file: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    key_file.chmod(mode)
    if good:
        load_settings(environment(database_url, secure, key_file), tmp_path)
        wiring.token_source(settings, database, ACCOUNT)
        return
    for work in (
        lambda: load_settings(environment(database_url, secure, key_file), tmp_path),
        lambda: wiring.token_source(settings, database, ACCOUNT),
    ):
        with pytest.raises(ConfigError, match=r"security\.key_file: others may .*chmod 600") as caught:
            work()
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "change", [{"authority": ""}, {"tenant_id": "fabrikam.example"}, {"client_id": "another"}], ids=min
)
async def test_a_stored_sign_in_goes_only_to_whom_it_was_issued_for(
    change: dict[str, str], settings: Settings, database: Database, service: Control, secure: Secure, tmp_path: Path
) -> None:
    await asks_api(settings, database)
    (before,) = await tokens.chains(database, ACCOUNT)
    with secure_simulator(tmp_path) as other:
        async with other.control() as elsewhere:
            await elsewhere.tokens(add_refresh=[CONFIGURED, "the-second"])
            ca_file = tmp_path / "both.pem"
            ca_file.write_bytes(secure.ca_file.read_bytes() + other.ca_file.read_bytes())
            update = {"authority": other.origin, "ca_file": ca_file} if "authority" in change else {}
            changed = settings.model_copy(update={"api": settings.api.model_copy(update=update)})
            if "authority" not in change:
                changed = with_account(changed, **change)
            await service.clear_requests()
            for one in (changed, with_account(changed, refresh_token=type(settings.http.token)(""))):
                with pytest.raises(SignInError, match="was issued for") as caught:
                    await wiring.token_source(one, database, ACCOUNT, force=True)(False)
                assert "login --account contoso" in caught.value.hint
            assert await elsewhere.requests() == await service.requests() == []
            await service.tokens(add_refresh=["the-second"])
            renewed = with_account(changed, refresh_token=type(settings.http.token)("the-second"))
            assert await wiring.token_source(renewed, database, ACCOUNT)(False), "a new token begins a chain there"
    assert await wiring.token_source(settings, database, ACCOUNT)(False), "and the former is good where it was issued"
    assert before.key in {chain.key for chain in await tokens.chains(database, ACCOUNT)}


async def test_a_wrong_tenant_can_be_corrected(settings: Settings, database: Database, service: Control) -> None:
    """A token that was never accepted anywhere is bound to nothing."""
    await service.faults({"kind": "status", "status": 400, "path": "oauth2/v2.0/token", "times": 1})
    with pytest.raises(SyncError):
        await asks_api(with_account(settings, tenant_id="mistyped.example"), database)
    assert await asks_api(settings, database) == 30


@asynccontextmanager
async def identity_service(folder: Path, **endpoints: str) -> AsyncIterator[tuple[str, Path, list[web.Request]]]:
    """Serve one that grants everything and names the endpoints given; its origin, its authority, what it was asked."""
    authority, asked = trustme.CA(), list[web.Request]()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "identity.pem"))

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        origin = f"https://{request.host}"
        if request.path.endswith("openid-configuration"):
            named = {"token_endpoint": "token", "authorization_endpoint": "authorize"}
            own = {name: f"{origin}/contoso.example/{path}" for name, path in named.items()}
            response = web.json_response(own | {"issuer": origin} | endpoints)
        else:
            response = web.json_response({"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"})
        response.force_close()
        return response

    service = web.Application()
    service.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(service)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}", folder / "identity.pem", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("endpoint", ["token_endpoint", "authorization_endpoint", "device_authorization_endpoint"])
async def test_an_endpoint_on_another_origin_gets_nothing(
    endpoint: str, settings: Settings, database: Database, secure: Secure, service: Control, tmp_path: Path
) -> None:
    """The other one is a service that would take the token: only its port differs."""
    await service.clear_requests()
    foreign = {endpoint: f"{secure.origin}/contoso.example/oauth2/v2.0/token"}
    async with identity_service(tmp_path, **foreign) as (origin, ca_file, asked):
        ca_file.write_bytes(ca_file.read_bytes() + secure.ca_file.read_bytes())
        api = settings.api.model_copy(update={"authority": origin, "ca_file": ca_file})
        with pytest.raises(SignInError, match="another origin") as caught:
            await wiring.token_source(settings.model_copy(update={"api": api}), database, ACCOUNT)(False)
        assert "api.authority" in caught.value.hint
        assert [one.method for one in asked] == ["GET"], "it was asked who it is, and told nothing"
    assert await service.requests() == []


async def test_a_password_is_sent_nowhere_that_the_service_names(
    database_url: str, secure: Secure, service: Control, key_file: Path, database: Database, tmp_path: Path
) -> None:
    """MSAL asks for a user's realm at the standard port, and would follow where a federated one leads."""
    del service  # reset for this test
    account = {"AUTH": "password", "USERNAME": "user@contoso.example", "REFRESH_TOKEN": "", "PASSWORD": "right"}
    settings = load_settings(environment(database_url, secure, key_file, **account), tmp_path)
    with pytest.raises(SignInError, match="another origin"):
        await wiring.token_source(settings, database, ACCOUNT)(False)


async def test_what_netrc_knows_of_the_identity_service_is_not_sent(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password private\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with identity_service(tmp_path) as (origin, ca_file, asked):
        api = settings.api.model_copy(update={"authority": origin, "ca_file": ca_file})
        token = wiring.token_source(settings.model_copy(update={"api": api}), database, ACCOUNT)
        assert await token(False) == "granted"
        assert [one.method for one in asked] == ["GET", "POST"]
        assert not [one for one in asked if "Authorization" in one.headers]


@pytest.mark.parametrize(
    "fault", [{"kind": "not_json"}, {"kind": "status", "status": 403, "body": "html"}], ids=["a 200", "a 403"]
)
async def test_a_page_in_place_of_the_discovery_is_an_outage(
    fault: dict[str, Any], settings: Settings, database: Database, service: Control
) -> None:
    await service.faults({"path": "openid-configuration", "times": 1} | fault)
    current = wiring.token_source(settings, database, ACCOUNT)
    with pytest.raises(SourceUnavailable):
        await current(False)
    assert await tokens.chains(database, ACCOUNT) == [], "which is no refusal"
    assert await current(False), "and it is asked again at once"


async def test_what_is_no_token_is_said_to_be_none(
    settings: Settings, database: Database, service: Control, secure: Secure, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Malformed, huge, redirected, unknown, unreachable: a sentence, no secret, no crash, nothing sent elsewhere."""
    monkeypatch.setattr(microsoft, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(microsoft, "ANSWER_SECONDS", 1.0)
    for fault in (
        {"kind": "not_json"},
        {"kind": "empty"},
        {"kind": "truncate"},
        {"kind": "huge", "size": 4_000_000},
        {"kind": "reset"},
        {"kind": "hang"},
        {"kind": "redirect", "location": "https://attacker.example.com/token"},
        {"kind": "status", "status": 429, "retry_after": "1"},
        {"kind": "status", "status": 500, "body": "html"},
    ):
        await service.faults({"path": "oauth2/v2.0/token", "times": -1} | fault)
        with pytest.raises(SourceUnavailable) as caught:
            await wiring.token_source(settings, database, ACCOUNT)(False)
        message = str(caught.value) + caught.value.hint
        assert not [word for word in (SECRET, CONFIGURED + " ", "attacker") if word in message]
        await service.clear_faults()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = settings.api
    for changes in ({"authority": f"https://127.0.0.1:{port}"}, {"ca_file": None}):
        with pytest.raises(SourceUnavailable):
            await wiring.token_source(
                settings.model_copy(update={"api": api.model_copy(update=changes)}), database, ACCOUNT
            )(False)
    with secure_simulator(tmp_path, expired=True) as old:
        elsewhere = api.model_copy(update={"authority": old.origin, "ca_file": old.ca_file})
        with pytest.raises(SourceUnavailable, match="certificate"):
            await wiring.token_source(settings.model_copy(update={"api": elsewhere}), database, ACCOUNT)(False)
    assert await tokens.chains(database, ACCOUNT) == [], "none of that was a refusal"
    await service.faults({"path": "openid-configuration", "kind": "status", "status": 404, "times": -1})
    with pytest.raises(SignInError, match="does not know this tenant"):
        await wiring.token_source(settings, database, ACCOUNT)(False)


async def test_headers_without_end_are_an_outage(
    settings: Settings, database: Database, tmp_path: Path, service: Control
) -> None:
    del service  # reset for this test
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 1_000_000 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        origin = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        api = settings.api.model_copy(update={"authority": origin, "ca_file": tmp_path / "ca.pem"})
        with pytest.raises(SourceUnavailable):
            await wiring.token_source(settings.model_copy(update={"api": api}), database, ACCOUNT)(False)


async def test_an_answer_without_a_refresh_token_keeps_the_one_that_is_good(
    settings: Settings, database: Database, service: Control
) -> None:
    await service.behaviour(refresh_tokens="keep")
    for _ in range(3):
        assert await asks_api(settings, database) == 30
    (chain,) = await tokens.chains(database, ACCOUNT)
    assert chain.sealed is not None


async def test_nobody_has_signed_in_yet(settings: Settings, database: Database) -> None:
    with pytest.raises(SignInError, match="Nobody has signed in") as caught:
        await asks_api(with_account(settings, refresh_token=type(settings.http.token)("")), database)
    assert "login --account contoso" in caught.value.hint


def test_nothing_of_a_sign_in_prints(settings: Settings, key_file: Path) -> None:
    described = wiring.sign_in_of(settings, ACCOUNT)
    chain = tokens.Chain("k", sealed=b"sealed-bytes")
    for thing in (described, chain, settings, partial(replace, chain)):
        assert not [word for word in (SECRET, f"'{CONFIGURED}'", "sealed-bytes") if word in repr(thing)]
    del key_file
    assert issubclass(SignInError, SyncError)
