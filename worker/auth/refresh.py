"""An account's access token, kept fresh: renewed early, one renewal at a time, and no rotated refresh token lost.

A refresh token is read and redeemed under a lease, and the one that comes back is stored before either is used. So any
replica finds the newest, and a process that dies leaves a token that is good. The access token is stored beside it,
sealed as it is, so that one worker redeems for all of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import stamina
import structlog

from worker.auth.tokens import Granted
from worker.errors import LeaseError, SignInError, SourceUnavailable, StoreError, StoreUnavailable
from worker.store import leases, tokens
from worker.store.database import Database
from worker.store.tokens import Access, Chain, fingerprint

if TYPE_CHECKING:
    from worker.source.client import TokenSource
    from worker.store.seal import Seal

RENEW_AT = 0.8
"""A token is renewed after so much of its life, so that it never ends in the middle of a request."""

SHARED_SECONDS = 86_400.0
"""An access token is shared for no longer than this, whatever the service says of its life."""

REFRESH_TOKEN_LIFE = timedelta(days=90)
"""How long a refresh token lives unused where the service does not say (partner-center-api.md section 5.2)."""

ASK_AGAIN_SECONDS = 900.0
"""A sign-in that was refused is tried again after so long, unless something about it was changed."""

_PASSWORD = "password"  # noqa: S105 - the word
LEASE_WAIT_SECONDS = 60.0
STOP_SECONDS = 5.0
"""How long a stop waits for a renewal under way."""

_log = structlog.get_logger()

Redeem = Callable[[str, str], Awaitable[Granted]]
"""Given a refresh token (or password) and the claims asked for, returns what the identity service granted."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """How one account signs in.

    `configured` is the refresh token or password of the configuration, empty where a person signs in by hand;
    `issued_for` names where its tokens may go: the identity service, the tenant and the application, and `api` the
    origin that its access tokens are for; `others` are the other secrets that the service is sent. `seal` has the keys
    of `security.key_file`, where there is one. Where it is not `stores`, as for a password, nothing is kept that comes
    from `configured`.
    """

    account: str
    redeem: Redeem
    configured: str = field(repr=False)
    issued_for: str
    api: str
    others: tuple[str, ...] = field(repr=False)
    seal: Seal | None = field(repr=False, default=None)
    stores: bool = True

    @property
    def store(self) -> Seal | None:
        """What tokens are sealed with, None where none is stored."""
        return self.seal if self.stores else None

    def chain(self) -> str:
        """Return what the chain of the configured secret is known by; slow. A password's shows nothing of it."""
        return fingerprint(self.account, self.configured) if self.stores else _PASSWORD

    def attempt(self) -> str:
        """Return what an attempt to sign in is known by, so that a refused one is not repeated.

        It identifies every secret that is sent, by a keyed digest; without a key none of them, for it could be guessed.
        """
        if self.seal is None:
            return fingerprint(self.account, self.issued_for)
        password = () if self.stores else (self.configured,)
        return self.seal.digest(self.account, self.issued_for, *self.others, *password)


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """An access token, the claims that it was asked for with, and when it is to be renewed and ends (monotonic)."""

    token: str = field(repr=False)
    claims: str
    renew_at: float
    ends_at: float


def kept_fresh(database: Database, sign_in: SignIn, *, force: bool = False) -> TokenSource:
    """Return where the account's access tokens come from; `force` asks again even when it was just refused."""
    lock = asyncio.Lock()
    cached: _CachedToken | None = None

    async def current(renew: bool, claims: str = "") -> str:
        nonlocal cached
        refused = cached if renew else None
        async with lock:
            if (
                cached is not None
                and cached is not refused
                and claims in ("", cached.claims)
                and time.monotonic() < cached.renew_at
            ):
                return cached.token
            wanted = claims or (cached.claims if cached is not None else "")
            try:
                cached = await _finished(_renewed(database, sign_in, wanted, refused, force=force))
            except (SourceUnavailable, StoreError, LeaseError) as error:
                if cached is None or cached is refused or time.monotonic() >= cached.ends_at:
                    raise
                _log.warning("token_rotation_failed", account=sign_in.account, error=str(error))
            return cached.token

    return current


async def _finished(renewal: Coroutine[Any, Any, _CachedToken]) -> _CachedToken:
    """Let a renewal come to its end when we are asked to stop, so that a token that is on its way is stored."""
    task = asyncio.create_task(renewal)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        task.cancel()
        raise


async def begin(database: Database, sign_in: SignIn, granted: Granted) -> None:
    """Store what a person's sign-in gave, as a new chain; raises SignInError when that was no refresh token."""
    if granted.refresh_token is None or sign_in.store is None:
        raise SignInError(
            f"The sign-in of {sign_in.account} gave no refresh token, so it would end within the hour.",
            "Allow the application offline access, and sign in again.",
        )
    async with leases.short_lease(database, sign_in.account, "sign-in", wait_seconds=LEASE_WAIT_SECONDS):
        chain = await asyncio.to_thread(fingerprint, sign_in.account, granted.refresh_token)
        sealed = sign_in.store.close(granted.refresh_token)
        lapses_at, issued_for = _lapses_at(granted), sign_in.issued_for
        await tokens.put(
            database, sign_in.account, chain, sealed, issued_for=issued_for, read=None, lapses_at=lapses_at
        )


async def _renewed(
    database: Database, sign_in: SignIn, claims: str, refused: _CachedToken | None, *, force: bool
) -> _CachedToken:
    """Return the access token that workers share, or redeem for a new one; `refused` is what the API has refused.

    In force is the configured token until it has begun a chain, and then the newest of the last chain.

    A configured token that is refused at once does not end a chain that is still good. A token that was accepted for
    one identity service, tenant and application is sent to no other, nor is the client secret with it.
    """
    account = sign_in.account
    async with leases.short_lease(database, account, "sign-in", wait_seconds=LEASE_WAIT_SECONDS):
        chains = await tokens.chains(database, account)
        credentials = await asyncio.to_thread(sign_in.attempt)
        accepted = [chain for chain in chains if chain.sealed is not None and sign_in.stores]
        kept = next((chain for chain in accepted if chain.issued_for == sign_in.issued_for), None)
        if sign_in.configured:
            key = await asyncio.to_thread(sign_in.chain)
            own = next((chain for chain in chains if chain.key == key), None)
            if own is None or own.sealed is None:
                try:
                    return await _redeemed(database, sign_in, own or Chain(key), claims, credentials, force=force)
                except SignInError as error:
                    if kept is None:
                        raise
                    _log.warning("configured_token_refused", account=account, error=str(error))
        if kept is None and accepted:
            raise SignInError(
                f"The stored sign-in of {account} was issued for {accepted[0].issued_for}, and the configuration now "
                f"names {sign_in.issued_for}; nothing was sent there.",
                f"Run `referral-sync login --account {account}`, configure a new refresh token, or put back "
                "`api.authority`, `tenant_id` and `client_id`.",
            )
        if kept is None:
            raise SignInError(
                f"Nobody has signed in for {account} yet.", f"Run `referral-sync login --account {account}`."
            )
        shared = _shared(sign_in, kept)
        if shared is not None and refused is not None and shared.token == refused.token:
            await tokens.drop_access(database, account, kept.key)
        elif shared is not None and claims in ("", shared.claims) and not force:
            return shared
        wanted = claims or (shared.claims if shared is not None else "")
        return await _redeemed(database, sign_in, kept, wanted, credentials, force=force)


def _shared(sign_in: SignIn, chain: Chain) -> _CachedToken | None:
    """Return the access token that is stored for all workers; None where there is none for this sign-in and this API.

    What it is good for is sealed with it, so that nobody who can write to the database sends it elsewhere. One that an
    earlier key sealed is not used: redeeming anew seals the refresh token with the newest key as well.
    """
    if chain.access is None or sign_in.store is None:
        return None
    opened = sign_in.store.open_newest(chain.access.sealed)
    if opened is None:
        return None
    *bound, claims, token = json.loads(opened)
    if bound != [sign_in.account, sign_in.issued_for, sign_in.api]:
        return None
    now = time.monotonic()
    return _CachedToken(token, claims, now + chain.access.renew_in, now + chain.access.expires_in)


def _sealed_access(sign_in: SignIn, held: _CachedToken) -> Access | None:
    """Seal an access token for all workers; None where nothing is stored."""
    if sign_in.store is None:
        return None
    bound = [sign_in.account, sign_in.issued_for, sign_in.api, held.claims, held.token]
    now = time.monotonic()
    renew_in, ends_in = (min(at - now, SHARED_SECONDS) for at in (held.renew_at, held.ends_at))
    return Access(sign_in.store.close(json.dumps(bound)), renew_in, ends_in)


async def _redeemed(
    database: Database, sign_in: SignIn, chain: Chain, claims: str, credentials: str, *, force: bool
) -> _CachedToken:
    """Redeem a chain's token, and store what came back before it is used.

    `credentials` is the fingerprint of what else the service is sent: what it refused with the same a moment ago is
    not sent again, unless `force`.
    """
    minutes = (ASK_AGAIN_SECONDS - chain.refused_for) / 60 if chain.refused_for is not None else 0.0
    if minutes > 0 and chain.refused_with == credentials and not force:
        again = f"; `referral-sync login --account {sign_in.account}` signs in again" if sign_in.stores else ""
        raise SignInError(
            f"{chain.refused_because} It is asked again in {max(1, round(minutes))} minutes.",
            f"`referral-sync check` asks at once{again}.",
        )
    opened = sign_in.store.open(chain.sealed) if sign_in.store is not None and chain.sealed is not None else None
    asked = time.monotonic()
    try:
        granted = await sign_in.redeem(opened or sign_in.configured, claims)
    except SignInError as refused:
        await tokens.put_refusal(
            database, sign_in.account, chain.key, credentials, str(refused), issued_for=sign_in.issued_for
        )
        raise
    sealed, lapses_at = None, None
    if granted.refresh_token is not None and sign_in.store is not None:
        sealed, lapses_at = sign_in.store.close(granted.refresh_token), _lapses_at(granted)
    elif opened is None and sign_in.store is not None:
        sealed, lapses_at = sign_in.store.close(sign_in.configured), _lapses_at(granted)
    life = granted.expires_in
    held = _CachedToken(granted.access_token, claims, asked + life * RENEW_AT, asked + life)
    stored = await _stored(database, sign_in, chain, sealed, lapses_at, _sealed_access(sign_in, held))
    _log.info("token_redeemed", account=sign_in.account, rotated=granted.refresh_token is not None, stored=stored)
    return held


@stamina.retry(on=StoreUnavailable, attempts=5, wait_initial=0.2, wait_max=5, timeout=30)
async def _stored(
    database: Database,
    sign_in: SignIn,
    chain: Chain,
    sealed: bytes | None,
    lapses_at: datetime | None,
    access: Access | None,
) -> bool:
    """Store what came back; a database that is unreachable for a moment must not cost a token."""
    return await tokens.put(
        database,
        sign_in.account,
        chain.key,
        sealed,
        issued_for=sign_in.issued_for,
        read=chain.rotations,
        lapses_at=lapses_at,
        access=access,
    )


def _lapses_at(granted: Granted) -> datetime:
    life = timedelta(seconds=granted.refresh_expires_in) if granted.refresh_expires_in else REFRESH_TOKEN_LIFE
    return datetime.now(UTC) + life
