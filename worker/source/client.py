"""Requests to the referrals API: one GET at a time, bounded, retried where that helps, and translated into our errors.

Facts about headers, status codes and error bodies: partner-center-api.md section 6.
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import stamina
import structlog
from yarl import URL

from worker import RELEASE
from worker.config.values import is_loopback
from worker.errors import SignInError, SourceError, SourceRejected, SourceUnavailable
from worker.model.counts import Traffic
from worker.model.instant import Instant
from worker.model.record import Listing, Page, Record, parse_listing, parse_single
from worker.source.refusals import (
    MAX_HEADER_BYTES,
    TokenRefusedError,
    bounded,
    mfa_asked,
    refusal_of,
    server_time,
    unreachable,
)
from worker.source.throttle import Throttle

LIST_PATH = "/v1.0/engagements/referrals"
CONNECT_SECONDS, READ_SECONDS, ATTEMPT_SECONDS = 10, 25, 120
ATTEMPTS = 5
RETRY_BUDGET = 40
"""So many repeated requests a run may have, and one more for every ten requests; then the next run has to try."""

MAX_RETRY_AFTER = 120.0
"""A server that asks for more than this ends the run cleanly; the next sync waits instead."""

_TOO_MANY = 429
_T = TypeVar("_T")
_log = structlog.get_logger()


class TokenSource(Protocol):
    """Gives bearer tokens."""

    async def __call__(self, renew: bool, claims: str = "") -> str:
        """Return a token; `renew` says that the last one was refused, `claims` what the API asked for, as JSON."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A body, the database's clock when it was asked for, and the server's own clock when it said."""

    body: bytes = field(repr=False)
    observed_at: datetime
    server_time: Instant | None


class Client:
    """The API as one account sees it; make it with `open_client`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token: TokenSource,
        clock: Callable[[], datetime],
        max_page_bytes: int,
        admit: Callable[[Record], Record] | None,
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._proxy = proxy_of(self._base_url)
        self._token = token
        self._clock = clock
        self._max_page_bytes = max_page_bytes
        self._admit = admit
        self._throttle = Throttle()
        self.traffic = Traffic()
        self.largest_page = 0
        """The most records that an answer of this client had."""

    async def list(self, query: str) -> Listing:
        """Ask for one page of the listing; `query` is raw and is sent byte for byte."""

        def read(answer: _Answer) -> Listing:
            listing = parse_listing(answer.body, observed_at=answer.observed_at, server_time=answer.server_time)
            self.largest_page = max(self.largest_page, len(listing.records))
            if self._admit is None:
                return listing
            return replace(listing, records=[self._admit(record) for record in listing.records])

        return await self._get(f"{LIST_PATH}?{query}" if query else LIST_PATH, read)

    async def fetch(self, referral_id: str) -> Page | None:
        """Ask for one referral by id, the only answer that surely has the eTag; None when there is none to see."""

        def read(answer: _Answer) -> Page:
            record = parse_single(answer.body)
            if (record.id or "").casefold() != referral_id.casefold():  # a GUID is one whatever its case
                raise SourceUnavailable("The API answered a request for one referral with something else.")
            return Page([self._admit(record) if self._admit else record], None, answer.observed_at, by_id=True)

        try:
            return await self._get(f"{LIST_PATH}/{quote(referral_id, safe='')}", read)
        except SourceRejected as error:
            if error.status in (404, 410):
                return None
            raise

    async def _get(self, path: str, read: Callable[[_Answer], _T]) -> _T:
        """Ask until an answer can be read, as often and as far apart as helps."""
        async for attempt in stamina.retry_context(
            on=_wait_for, attempts=ATTEMPTS, wait_initial=0.5, wait_max=30, timeout=None
        ):
            with attempt:
                if attempt.num > 1:
                    self._count_retry()
                try:
                    answer = await self._attempt(path, await self._token(False))
                except TokenRefusedError as refusal:
                    answer = await self._attempt_renewed(path, refusal)
                return self._decoded(answer, read)
        raise AssertionError("unreachable")

    def _count_retry(self) -> None:
        """Count a repeated request; many of them in one run say that the next run had better try."""
        traffic = self.traffic
        if traffic.retries >= RETRY_BUDGET + traffic.requests // 10:
            raise SourceError(
                f"{traffic.retries} of {traffic.requests} requests of this run had to be repeated, its budget.",
                "The API is failing more than it answers; what was stored stands, and the next run goes on there.",
            )
        self.traffic = replace(traffic, retries=traffic.retries + 1)

    def _decoded(self, answer: _Answer, read: Callable[[_Answer], _T]) -> _T:
        started = time.perf_counter()
        try:
            return read(answer)
        finally:
            seconds = self.traffic.decode_seconds + time.perf_counter() - started
            self.traffic = replace(self.traffic, decode_seconds=seconds)

    async def _attempt_renewed(self, path: str, first: TokenRefusedError) -> _Answer:
        try:
            return await self._attempt(path, await self._token(True, first.claims))
        except TokenRefusedError as refusal:
            if refusal.claims:
                raise SignInError(
                    f"The API asks for more than this sign-in gives ({refusal}): a rule of conditional access.",
                    "Sign in again with `referral-sync login`, with MFA and from where the rule allows it.",
                ) from refusal
            if refusal.asks_for_mfa:
                raise mfa_asked(refusal) from refusal
            raise SignInError(
                f"The API refused a fresh token ({refusal}).",
                "It must be App+User, for the origin of `api.base_url`, and with MFA where the tenant asks for it.",
            ) from refusal
        except SignInError as refused:
            if first.asks_for_mfa:
                raise mfa_asked(first) from refused
            raise

    async def _attempt(self, path: str, token: str) -> _Answer:
        async with self._throttle:
            try:
                answer = await self._ask(path, token)
            except SourceUnavailable as busy:
                if busy.status == _TOO_MANY:
                    pause = min(busy.retry_after or 0.0, MAX_RETRY_AFTER)
                    self.traffic = replace(self.traffic, throttled_seconds=self.traffic.throttled_seconds + pause)
                    await self._throttle.throttled(pause)
                raise
        await self._throttle.succeeded()
        return answer

    async def _ask(self, path: str, token: str) -> _Answer:
        request_id = str(uuid.uuid4())
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "client-request-id": request_id,
            "User-Agent": f"referral-sync/{RELEASE}",
        }
        observed_at, started, status = self._clock(), time.monotonic(), 0
        server_id = ""
        try:
            async with self._session.get(
                URL(self._base_url + path, encoded=True), headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                status = response.status
                server_id = bounded(response.headers.get("request-id"))
                body = await self._read(response)
                if status == 200:  # noqa: PLR2004 - the one success that a GET here has
                    return _Answer(body, observed_at, server_time(response))
                raise refusal_of(response, body, server_id or request_id)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise unreachable(error, self._base_url) from error
        finally:
            seconds = time.monotonic() - started
            self.traffic = self.traffic.answered(status, seconds)
            _log.debug(
                "request_finished",
                path=path.partition("?")[0],
                status=status,
                seconds=round(seconds, 3),
                client_request_id=request_id,
                request_id=server_id,
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_page_bytes:
                raise SourceError(
                    f"The API answered with more than {self._max_page_bytes} bytes.",
                    "If pages are really that large, raise `api.max_page_bytes`.",
                )
            chunks.append(chunk)
        return b"".join(chunks)


@asynccontextmanager
async def open_session(ca_file: Path | None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the connections that all accounts of a process share; `ca_file` adds a certificate authority.

    One for a process: reading the system's authorities takes 40 ms of CPU, and the memory for them stays. It holds
    neither cookies nor tokens.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=64),
        timeout=aiohttp.ClientTimeout(
            total=ATTEMPT_SECONDS, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    ) as session:
        yield session


@asynccontextmanager
async def open_client(
    *,
    base_url: str,
    token: TokenSource,
    clock: Callable[[], datetime],
    ca_file: Path | None,
    max_page_bytes: int,
    admit: Callable[[Record], Record] | None = None,
    session: aiohttp.ClientSession | None = None,
) -> AsyncIterator[Client]:
    """Open the API as one account sees it, over the process's `session`, or over one of its own.

    Proxies come from the environment. `admit`, where there is any need, takes out of each record what may not be
    stored, before anybody else sees it.
    """
    async with AsyncExitStack() as stack:
        if session is None:
            session = await stack.enter_async_context(open_session(ca_file))
        yield Client(session, base_url, token, clock, max_page_bytes, admit)


def proxy_of(base_url: str) -> str | None:
    """Return the proxy that the environment names for an origin; none on this very machine.

    aiohttp's own way would also read `~/.netrc`, whose passwords are nobody's business here.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _wait_for(error: Exception) -> bool | float:
    """Return whether, or after how many seconds, to try again: Retry-After is a floor, up to the cap."""
    if not isinstance(error, SourceUnavailable):
        return False
    if error.retry_after is None or error.retry_after < 1:
        return True  # a pause of nothing is no reason to ask five times at once
    return error.retry_after if error.retry_after <= MAX_RETRY_AFTER else False
