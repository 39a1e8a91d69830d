"""Builds the pieces that a command needs, from the settings; the only place that constructs things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import ClientSession
from structlog.contextvars import bound_contextvars

from worker.auth.refresh import SignIn, begin, kept_fresh
from worker.auth.tokens import command_token, static_token
from worker.config.models import DeviceCode, Password, RefreshToken, Settings, StaticToken, TokenCommand
from worker.database import configured_rules
from worker.errors import ConfigError, SyncError
from worker.model.counts import Counts
from worker.model.instant import Instant
from worker.model.strategy import Paging
from worker.source.client import TokenSource, open_client
from worker.store import backfills, leases, positions, privacy, rejects
from worker.store.database import Database
from worker.sync.backfill import Loaded, Share, backfill, help_backfill, planned
from worker.sync.by_id import refresh
from worker.sync.incremental import incremental
from worker.sync.pipeline import Pipeline, Step
from worker.sync.reconcile import Reconciled, reconcile
from worker.sync.replay import replay

RUN_HOURS = {"incremental": 1, "backfill": 72, "reconcile": 24, "refresh": 1, "replay": 1}
"""No run is longer than this; what it stored until then stands."""

WAIT = timedelta(seconds=60)
"""How long a one-shot command waits for the lease of a process that may be dead."""

if TYPE_CHECKING:
    from worker.auth.microsoft import MicrosoftIdentity
    from worker.store.seal import Seal

Show = Callable[[Step], None]
_log = structlog.get_logger()


def chosen_accounts(settings: Settings, only: str | None) -> list[str]:
    """Return the account asked for, or all; raises ConfigError for one that is not configured."""
    if only is None:
        return sorted(settings.accounts)
    if only not in settings.accounts:
        raise ConfigError([f"accounts.{only}: no such account; there is {', '.join(sorted(settings.accounts))}"])
    return [only]


def token_source(settings: Settings, database: Database, name: str, *, insist: bool = False) -> TokenSource:
    """Build where an account's tokens come from; keep it, for it remembers the token that is good.

    `insist` asks the identity service even when it has just refused. Raises ConfigError for a key file that is none.
    """
    match settings.accounts[name]:
        case StaticToken(access_token=token):
            return static_token(token.get_secret_value(), f"accounts.{name}.access_token")
        case TokenCommand(command=command):
            return command_token(command, f"accounts.{name}.command")
    return kept_fresh(database, sign_in_of(settings, name), insist=insist)


def sign_in_of(settings: Settings, name: str) -> SignIn:
    """Describe how an account signs in at the identity service. Raises ConfigError when it does not."""
    account = settings.accounts[name]
    if isinstance(account, StaticToken | TokenCommand):
        raise ConfigError([f"accounts.{name}.auth: {account.auth} signs in without us"])
    service = identity(settings, name)
    issued_for = f"{settings.api.authority}/{account.tenant_id}, application {account.client_id}".lower()
    if isinstance(account, Password):
        user = account.username.get_secret_value()
        return SignIn(
            name,
            partial(service.by_password, user),
            account.password.get_secret_value(),
            issued_for,
            (account.client_secret.get_secret_value(), user),
            _seal(settings),
            stores=False,
        )
    configured = account.refresh_token.get_secret_value() if isinstance(account, RefreshToken) else ""
    secret = account.client_secret.get_secret_value() if isinstance(account, RefreshToken) else ""
    return SignIn(name, service.by_refresh_token, configured, issued_for, (secret,), _seal(settings))


def identity(settings: Settings, name: str) -> MicrosoftIdentity:
    """Build an account's application at the identity service."""
    from worker.auth.microsoft import MicrosoftIdentity  # noqa: PLC0415 - slow, and needed by some accounts only

    account = settings.accounts[name]
    if isinstance(account, StaticToken | TokenCommand):
        raise ConfigError([f"accounts.{name}.auth: {account.auth} signs in without us"])
    return MicrosoftIdentity(
        name=name,
        authority=settings.api.authority,
        tenant_id=account.tenant_id,
        client_id=account.client_id,
        client_secret="" if isinstance(account, DeviceCode) else account.client_secret.get_secret_value(),
        scope=f"{settings.api.base_url}/.default",
        ca_file=settings.api.ca_file,
    )


async def login(
    settings: Settings, database: Database, name: str, tell: Callable[[str], None], ask: Callable[[str], str]
) -> None:
    """Guide a person through a sign-in and store it; `tell` shows them something, `ask` also returns what they type."""
    account, service, sign_in = settings.accounts[name], identity(settings, name), sign_in_of(settings, name)
    match account:
        case DeviceCode():
            granted = await service.by_device(tell)
        case RefreshToken(redirect_uri=redirect_uri):
            flow = await service.begin_code(redirect_uri)
            address = ask(
                f"1. Open this address in a browser, on any machine, and sign in as the user of {name}:\n\n"
                f"{flow['auth_uri']}\n\n"
                f"2. The browser ends at {redirect_uri}, which need not load. Paste that whole address here:"
            )
            granted = await service.finish_code(flow, address)
        case _:
            raise ConfigError([f"accounts.{name}.auth: {account.auth} needs no login"])
    await begin(database, sign_in, granted)


def _seal(settings: Settings) -> Seal | None:
    from worker.store.seal import Seal, read_keys  # noqa: PLC0415 - slow, and needed by some accounts only

    path = settings.security.key_file
    if path is None:
        return None
    try:
        return Seal(read_keys(path))
    except ValueError as error:
        raise ConfigError([f"security.key_file: {error}"]) from None


@asynccontextmanager
async def open_pipeline(
    settings: Settings,
    database: Database,
    name: str,
    token: TokenSource | None = None,
    show: Show | None = None,
    waiting: leases.Waiting | None = None,
    session: ClientSession | None = None,
) -> AsyncIterator[Pipeline]:
    """Open one account's way from the API to the database; `session` is what the process has open already."""
    api = settings.api
    rules = await configured_rules(settings, database)
    async with open_client(
        base_url=api.base_url,
        token=token or token_source(settings, database, name),
        clock=await database.clock(),
        ca_file=api.ca_file,
        max_page_bytes=api.max_page_bytes,
        admit=rules.admit if rules.keeps_out else None,
        session=session,
    ) as client:
        options: dict[str, Any] = {"progress": show} if show is not None else {}
        yield Pipeline(
            account=name,
            database=database,
            client=client,
            overlap=settings.sync.overlap,
            paging=None if api.paging == "auto" else Paging(api.paging),
            concurrency=api.concurrency,
            processes=settings.scale.processes,
            max_vanished_percent=settings.sync.max_vanished_percent,
            privacy=rules,
            waiting=waiting,
            **options,
        )


@asynccontextmanager
async def recorded(
    pipeline: Pipeline,
    kind: str,
    wait: timedelta = timedelta(0),
    slot: str | None = None,
    due_at: datetime | None = None,
) -> AsyncIterator[leases.Run]:
    """Run under the lease of this kind of work, with a limit on its time, and log what is worth a look.

    A run that changed something asks for the refresh of what dashboards read, which follows once for many runs.
    """
    before = pipeline.client.traffic
    await privacy.enforce(pipeline.database, pipeline.privacy)
    holding = leases.run(
        pipeline.database,
        pipeline.account,
        kind,
        wait_seconds=wait.total_seconds(),
        privacy=pipeline.privacy,
        waiting=pipeline.waiting,
        slot=slot,
        due_at=due_at,
    )
    with bound_contextvars(account=pipeline.account, kind=kind):
        async with holding as run:
            with bound_contextvars(run_id=run.id):
                try:
                    async with asyncio.timeout(RUN_HOURS[kind] * 3600):
                        yield run
                except TimeoutError:
                    raise SyncError(
                        f"The {kind} of {pipeline.account} took longer than {RUN_HOURS[kind]} hours and was ended.",
                        "What it stored stands; the next run goes on there.",
                    ) from None
                finally:
                    run.traffic = pipeline.client.traffic.since(before)
                    if run.unknown_fields:
                        _log.warning("unknown_fields_found", fields=sorted(run.unknown_fields))
                    if run.lag.missed or (run.lag.late or 0) > run.lag.overlap.total_seconds() / 2:
                        _log.warning("overlap_exceeded", lag_seconds=run.lag.late, missed=run.lag.missed)


async def sync_account(
    pipeline: Pipeline,
    since: Instant | None = None,
    wait: timedelta = timedelta(0),
    due_at: datetime | None = None,
) -> Counts:
    """Run one incremental sync; an account without a watermark is backfilled first."""
    watermark = await positions.watermark(pipeline.database, pipeline.account)
    if watermark is None:
        return await backfill_account(pipeline, wait=wait)
    async with recorded(pipeline, "incremental", wait, due_at=due_at) as run:
        if since is not None:
            await positions.put_back_watermark(pipeline.database, run, since)
            watermark = min(watermark, since)
        counts = await incremental(pipeline, run, watermark)
    return logged(pipeline, "incremental", counts, run)


async def backfill_account(
    pipeline: Pipeline,
    since: Instant | None = None,
    until: Instant | None = None,
    *,
    restart: bool = False,
    wait: timedelta = timedelta(0),
) -> Counts:
    """Load a range of creation time, or go on with it."""
    return (await backfill_share(pipeline, None, since, until, restart=restart, wait=wait)).counts


async def backfill_share(
    pipeline: Pipeline,
    share: Share | None,
    since: Instant | None = None,
    until: Instant | None = None,
    *,
    restart: bool = False,
    wait: timedelta = timedelta(0),
) -> Loaded:
    """Plan a load or go on with it, for as long as the share says, and declare it loaded when all is read."""
    async with recorded(pipeline, "backfill", wait) as run:
        if restart:
            await backfills.forget_backfills(pipeline.database, run)
        loaded = await backfill(pipeline, run, since, until, share)
    logged(pipeline, "backfill", loaded.counts, run)
    return loaded


async def help_account(
    pipeline: Pipeline, slot: str, share: Share, since: Instant | None = None, until: Instant | None = None
) -> Loaded | None:
    """Read windows of a load that another run has planned; None where there are none to read."""
    found = await planned(pipeline, since, until)
    if found is None:
        return None
    async with recorded(pipeline, "backfill", slot=slot) as run:
        loaded = await help_backfill(pipeline, run, *found, share)
    logged(pipeline, "backfill", loaded.counts, run)
    return loaded


async def reconcile_account(
    pipeline: Pipeline,
    *,
    accept_vanished: bool = False,
    due_at: datetime | None = None,
    wait: timedelta = timedelta(0),
) -> Reconciled:
    """Compare the copy with a full listing and repair it."""
    if await positions.watermark(pipeline.database, pipeline.account) is None:
        raise SyncError(
            f"{pipeline.account} has no finished backfill, so there is nothing to compare.",
            f"Run `referral-sync backfill --account {pipeline.account}` first.",
        )
    async with recorded(pipeline, "reconcile", wait, due_at=due_at) as run:
        result = await reconcile(pipeline, run, accept_vanished=accept_vanished)
    logged(pipeline, "reconcile", result.counts, run)
    if result.unverified:
        _log.warning(
            "verification_failed", account=pipeline.account, kind="reconcile", run_id=run.id, why=result.unverified
        )
    return result


async def refresh_account(pipeline: Pipeline, ids: list[str]) -> tuple[Counts, list[str]]:
    """Fetch referrals by id and store them; returns the counts and the ids that the source does not show."""
    async with recorded(pipeline, "refresh", WAIT) as run:
        counts, unknown = await refresh(pipeline, run, ids)
    logged(pipeline, "refresh", counts, run)
    return counts, unknown


async def replay_account(pipeline: Pipeline, *, other_release: bool = False, wait: timedelta = timedelta(0)) -> Counts:
    """Replay rejected records; `other_release`: only what this release has not tried yet."""
    async with recorded(pipeline, "replay", wait) as run:
        counts = await replay(pipeline.database, run, other_release=other_release)
    return logged(pipeline, "replay", counts, run)


async def all_rejects(pipeline: Pipeline) -> AsyncIterator[rejects.Kept]:
    """Give every open reject of an account."""
    after = ""
    while batch := await rejects.open_rejects(pipeline.database, pipeline.account, after=after):
        for kept in batch:
            yield kept
        after = batch[-1].key


def logged(pipeline: Pipeline, kind: str, counts: Counts, run: leases.Run) -> Counts:
    """Log the one event of a run that was good."""
    _log.info(
        "run_finished",
        account=pipeline.account,
        kind=kind,
        run_id=run.id,
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged,
        rejected=counts.rejected,
        deleted=run.vanished,
        pages=counts.pages,
        requests=run.traffic.requests,
        retries=run.traffic.retries,
        paging=run.paging,
        seconds=round(time.monotonic() - run.began, 3),
        api_seconds=round(run.traffic.api_seconds, 3),
        decode_seconds=round(run.traffic.decode_seconds, 3),
        map_seconds=round(run.map_seconds, 3),
        store_seconds=round(run.store_seconds, 3),
    )
    return counts
