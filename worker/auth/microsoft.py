"""The identity service: what it grants for a refresh token, a password, a device code or an authorization code.

MSAL speaks the protocol (partner-center-api.md section 5). It is synchronous, so it runs in a thread; what it sends
goes through a client of ours, which follows no redirect and bounds time and size. Nothing that it is given or gives is
logged.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msal
import requests
from requests.adapters import HTTPAdapter

from worker.auth.tokens import Granted
from worker.errors import SignInError, SourceUnavailable

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 30.0
MAX_ANSWER_BYTES = 1 << 20
_CHUNK = 1 << 16

_FIXES = {
    7000215: "Put the secret's value, not its id, into `accounts.{name}.client_secret`.",
    7000222: "The client secret has expired: make a new one and put it into `accounts.{name}.client_secret`.",
    50076: "The tenant asks for MFA: sign in again with `referral-sync login --account {name}`, with MFA.",
    50079: "The user has to register for MFA first: then `referral-sync login --account {name}`, with MFA.",
    50158: "A rule asks for more than MFA here: sign in again with `referral-sync login --account {name}`.",
    53000: "A rule of conditional access wants a compliant device; an administrator has to let this application in.",
    53003: "A rule of conditional access blocks this sign-in; the sign-in log of Entra names it.",
    50126: "Fix `accounts.{name}.username` and `.password`.",
    65001: "An administrator has to consent to the application for this tenant.",
    700016: "Fix `accounts.{name}.client_id` and `.tenant_id`.",
    90002: "Fix `accounts.{name}.tenant_id`.",
}


class MicrosoftIdentity:
    """The Microsoft identity platform. `name` is the account's, for messages; `scope` is the API's `/.default`."""

    def __init__(
        self,
        *,
        name: str,
        authority: str,
        tenant_id: str,
        client_id: str,
        client_secret: str,
        scope: str,
        ca_file: Path | None,
    ) -> None:
        self._name, self._authority = name, f"{authority}/{tenant_id}"
        self._client_id, self._client_secret = client_id, client_secret
        self._scopes, self._ca_file = [scope], ca_file
        self._origin = _origin(authority)
        self._application: Any = None
        self._http: _Http | None = None

    async def by_refresh_token(self, refresh_token: str, claims: str) -> Granted:
        """Redeem a refresh token; `claims` is a claims challenge to answer, as JSON, or empty."""
        data = {"claims": claims} if claims else {}
        return await self._ask(
            lambda app: app.acquire_token_by_refresh_token(refresh_token, scopes=self._scopes, data=data)
        )

    async def by_password(self, username: str, password: str, claims: str) -> Granted:
        """Sign in with a password, which cannot do MFA."""
        return await self._ask(
            lambda app: app.acquire_token_by_username_password(
                username, password, scopes=self._scopes, claims_challenge=claims or None
            )
        )

    async def by_device(self, show: Callable[[str], None]) -> Granted:
        """Let a person sign in on another device within the time that the service gives; `show` displays how."""
        flow = await asyncio.to_thread(self._work, lambda app: app.initiate_device_flow(scopes=self._scopes))
        if "message" not in flow:
            return self._read(flow)
        show(flow["message"])
        try:
            return await self._ask(lambda app: app.acquire_token_by_device_flow(flow))
        except asyncio.CancelledError:
            flow["expires_at"] = 0  # which ends the thread that still asks
            raise

    async def begin_code(self, redirect_uri: str) -> dict[str, Any]:
        """Begin a sign-in with a browser; the person opens its `auth_uri`."""
        flow: dict[str, Any] = await asyncio.to_thread(
            self._work, lambda app: app.initiate_auth_code_flow(self._scopes, redirect_uri=redirect_uri)
        )
        return flow

    async def finish_code(self, flow: dict[str, Any], address: str) -> Granted:
        """End a sign-in with the address that the browser was led to."""
        answer = {name: values[0] for name, values in parse_qs(urlsplit(address.strip()).query).items()}
        if "code" not in answer and "error" not in answer:
            raise SignInError(
                "That address holds no authorization code.",
                "Paste the whole address that the browser ended at, from http on, even if the page did not load.",
            )
        return await self._ask(lambda app: app.acquire_token_by_auth_code_flow(flow, answer))

    async def _ask(self, work: Callable[[Any], Any]) -> Granted:
        return self._read(await asyncio.to_thread(self._work, work))

    def _work(self, work: Callable[[Any], Any]) -> Any:
        try:
            if self._application is None:
                self._application = self._connect()
            return work(self._application)
        except requests.exceptions.SSLError as error:
            raise SourceUnavailable(
                f"The certificate of {self._authority} cannot be verified.",
                "Behind a proxy that opens TLS, name its certificate authority in `api.ca_file`.",
            ) from error
        except (requests.RequestException, OSError) as error:
            raise SourceUnavailable(
                f"{self._authority} cannot be reached or broke off ({type(error).__name__}).",
                "Check `api.authority`, the network, and any proxy; the next run tries again.",
            ) from error
        except ValueError as error:
            # MSAL says so of a tenant that it cannot find, of a state that is not its own, and of what is not JSON.
            page = self._http is not None and self._http.answered_otherwise
            if page or isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                raise _not_understood(self._authority) from error
            raise SignInError(
                f"{self._authority} does not know this tenant, or this sign-in did not begin here.",
                f"Fix `api.authority` and `accounts.{self._name}.tenant_id`, and begin again.",
            ) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise _not_understood(self._authority) from error

    def _connect(self) -> Any:
        self._http = _Http(self._ca_file, self._origin)
        settings: dict[str, Any] = {
            "authority": self._authority,
            "instance_discovery": False,
            "http_client": self._http,
        }
        application = (
            msal.ConfidentialClientApplication(self._client_id, client_credential=self._client_secret, **settings)
            if self._client_secret
            else msal.PublicClientApplication(self._client_id, **settings)
        )
        found = application.authority
        for endpoint in (found.token_endpoint, found.authorization_endpoint, found.device_authorization_endpoint):
            if endpoint is not None and _origin(endpoint) != self._origin:
                raise _elsewhere(self._authority, endpoint)
        return application

    def _read(self, answer: Any) -> Granted:
        if not isinstance(answer, dict):
            raise _not_understood(self._authority)
        if "error" in answer:
            raise self._refusal(answer)
        try:
            access, expires_in = answer["access_token"], float(answer["expires_in"])
        except (KeyError, TypeError, ValueError) as error:
            raise _not_understood(self._authority) from error
        refresh, refresh_expires_in = answer.get("refresh_token"), answer.get("refresh_token_expires_in")
        if not _is_token(access) or not 0 < expires_in < 10**9 or not (refresh is None or _is_token(refresh)):
            raise _not_understood(self._authority)
        lasts = float(refresh_expires_in) if isinstance(refresh_expires_in, int | float) else None
        return Granted(access, expires_in, refresh, lasts)

    def _refusal(self, answer: dict[str, Any]) -> SignInError | SourceUnavailable:
        """Translate an OAuth error by its codes; its description may name people, so it is not quoted."""
        error = str(answer["error"])
        word = error if len(error) <= 40 and error.replace("_", "").isalnum() else "an error"  # noqa: PLR2004
        codes = answer.get("error_codes")
        number = codes[0] if isinstance(codes, list) and codes and isinstance(codes[0], int) else 0
        reason = f"{word}{f', AADSTS{number}' if number else ''}"
        if word in ("temporarily_unavailable", "server_error"):
            return SourceUnavailable(f"{self._authority} is busy or failing ({reason}).", "The next run tries again.")
        fix = _FIXES.get(number, "Sign in again with `referral-sync login --account {name}`.")
        return SignInError(f"The sign-in of {self._name} was refused ({reason}).", fix.format(name=self._name))


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < MAX_ANSWER_BYTES and value.isascii() and value.isprintable()


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or 443


def _elsewhere(authority: str, url: str) -> SignInError:
    return SignInError(
        f"{authority} leads to {urlsplit(url).hostname}, another origin; no secret was sent there.",
        "Name the identity service that issues the tokens itself in `api.authority`. A user that signs in elsewhere "
        "(federated) needs another `auth` than password.",
    )


def _not_understood(authority: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{authority} answered with something that is no token.",
        "Usually a proxy or an outage in between; if it stays, fix `api.authority`.",
    )


@dataclass(frozen=True, slots=True)
class _Response:
    """What MSAL needs of an answer."""

    status_code: int
    text: str
    headers: dict[str, str]

    def raise_for_status(self) -> None:
        if self.status_code >= 400:  # noqa: PLR2004 - refusals begin there
            raise requests.HTTPError(f"HTTP {self.status_code}")


class _Http:
    """The client that MSAL sends through: to one origin, without redirects, bounded, retried by our own runs only.

    Whatever the service names as its endpoints, or MSAL would follow besides, a secret goes to the authority alone.
    """

    answered_otherwise = False
    """Whether the last answer was no JSON object: a proxy's page, an outage."""

    def __init__(self, ca_file: Path | None, origin: tuple[str, str, int]) -> None:
        self._origin = origin
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        self._session = requests.Session()
        self._session.trust_env = False  # else ~/.netrc is read, and its password sent
        self._session.mount("https://", _Verified(context))

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> _Response:
        return self._send("GET", url, params=params, headers=headers)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> _Response:
        return self._send("POST", url, params=params, data=data, headers=headers)

    def close(self) -> None:
        self._session.close()

    def _send(self, method: str, url: str, **content: Any) -> _Response:
        if not url.startswith("https://"):
            raise requests.exceptions.InvalidURL("a sign-in goes over https only")
        if _origin(url) != self._origin:
            raise _elsewhere(self._origin[1], url)
        deadline = time.monotonic() + ANSWER_SECONDS
        proxies = requests.utils.get_environ_proxies(url)
        with self._session.request(
            method,
            url,
            proxies=proxies,
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
            **content,
        ) as response:
            body = bytearray()
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise requests.exceptions.ContentDecodingError("an answer out of bounds")
            status = response.status_code
            if status == 429 or status >= 500:  # noqa: PLR2004 - busy or failing
                raise SourceUnavailable(
                    f"The identity service is busy or failing (HTTP {status}).", "The next run tries again."
                )
            self.answered_otherwise = not body.lstrip().startswith(b"{")
            return _Response(status, body.decode("utf-8", "replace"), dict(response.headers))


class _Verified(HTTPAdapter):
    """Connections verified with the system's certificate authorities, and one of ours where there is any."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, **settings, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **settings: Any) -> Any:
        return super().proxy_manager_for(*args, **settings, ssl_context=self._context)
