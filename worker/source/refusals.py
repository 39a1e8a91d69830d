"""What an answer of the API says beside its records: refusals, translated once into our errors, and headers.

Facts about headers, status codes and error bodies: partner-center-api.md section 6.
"""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from worker.errors import MFA_ASKED, PermissionRefused, SignInError, SourceError, SourceRejected, SourceUnavailable
from worker.model import instant
from worker.model.codec import REFUSED
from worker.model.instant import Instant

MAX_HEADER_BYTES = 64 * 1024
MAX_PAUSE = 3600.0
"""No answer silences an account for longer than this, whatever it asks for."""

_TRY_AGAIN = frozenset({408, 423, 425, 429, 449, 500, 502, 503, 504, 509, *range(520, 531)})
_EPOCH_SINCE = 1_000_000_000
"""A number of seconds beyond this is no pause but a moment, in seconds since 1970."""
_CLAIMS = re.compile(r'\bclaims="([A-Za-z0-9+/_-]+)=*"')
_INSUFFICIENT_CLAIMS = frozenset({"insufficient_claims", "insufficent_claims"})
"""The second is how the documents spell it (partner-center-api.md section 6.2)."""
_MAX_VALUE, _DIGITS = 128, 12


class TokenRefusedError(Exception):
    """The API answered 401, or 403 with a claims challenge: a fresh token may help, once.

    `claims` is the challenge, as JSON, or empty; `asks_for_mfa`: Partner Center wants a sign-in with MFA.
    """

    def __init__(self, reason: str, claims: str = "", *, asks_for_mfa: bool = False) -> None:
        super().__init__(reason)
        self.claims, self.asks_for_mfa = claims, asks_for_mfa


def mfa_asked(refusal: TokenRefusedError) -> SignInError:
    """Say that a sign-in with MFA is asked for."""
    return SignInError(
        f"Partner Center asks for a sign-in with MFA ({refusal}).",
        "Sign in again with `referral-sync login`, with MFA; an identity provider that is federated has to pass on the "
        "claim amr.",
    )


def unreachable(error: Exception, base_url: str) -> SourceUnavailable:
    """Translate an error of the connection."""
    if isinstance(error, aiohttp.ClientConnectorSSLError) and _is_no_tls(error):
        return SourceUnavailable(
            f"{base_url} answers without TLS: that port speaks plain HTTP, or no HTTP at all.",
            "Check the port in `api.base_url`, and the proxy if there is one.",
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return SourceUnavailable(
            f"The certificate of {base_url} cannot be verified.",
            "Behind a proxy that opens TLS, name its certificate authority in `api.ca_file`.",
        )
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{base_url} did not answer in time.", "The next run tries again.")
    kind = type(error).__name__
    return SourceUnavailable(
        f"{base_url} cannot be reached or broke off ({kind}).", "Check `api.base_url`, the network, and any proxy."
    )


def _is_no_tls(error: aiohttp.ClientConnectorSSLError) -> bool:
    """Return whether what came in answer to a handshake was no TLS; the reasons are OpenSSL's names."""
    return getattr(error.os_error, "reason", None) in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def refusal_of(
    response: aiohttp.ClientResponse, body: bytes, request_id: str
) -> SourceError | SignInError | TokenRefusedError:
    """Translate an answer that is not 200; only its code is quoted, for a body may hold personal data."""
    status = response.status
    code = error_code(body)
    detail = f"HTTP {status}{f' {code}' if code else ''}, request id {request_id}"
    if status in (401, 403) and (claims := _claims(response.headers.get("WWW-Authenticate", ""))):
        return TokenRefusedError(f"{detail}, insufficient_claims", claims)
    if status == 401:  # noqa: PLR2004
        return TokenRefusedError(detail, asks_for_mfa=code == MFA_ASKED)
    if status == 403 and code.lower() in _INSUFFICIENT_CLAIMS:  # noqa: PLR2004
        return SignInError(
            f"A rule of conditional access asks for more than this sign-in gives ({detail}), and does not say what.",
            "Sign in again with `referral-sync login`, with MFA and from where the rule allows it; "
            "an administrator sees the rule in the sign-in log of Entra.",
        )
    if status == 403:  # noqa: PLR2004
        return PermissionRefused(
            f"The API refused the permission ({detail}).",
            "The signed-in user needs the role Referrals admin (or Referrals user) in Partner Center.",
        )
    if status in _TRY_AGAIN:
        retry_after = _retry_after(response.headers.get("Retry-After"))
        waits = f" It asks to wait {retry_after:.0f} s." if retry_after is not None else ""
        return SourceUnavailable(
            f"The API is busy or failing ({detail}).{waits}", "The next run tries again.", retry_after, status
        )
    if 300 <= status < 400:  # noqa: PLR2004
        return SourceRejected(
            f"The API redirected a request, which is not followed with a token ({detail}).",
            status,
            "Fix `api.base_url`; it is https://api.partner.microsoft.com.",
        )
    hint = "Is `api.base_url` the referrals host https://api.partner.microsoft.com?" if status in (404, 405) else ""
    return SourceRejected(f"The API refused the request ({detail}).", status, hint)


def _claims(challenge: str) -> str:
    """Return the claims that a challenge asks for, as JSON; nothing where it asks for none, or cannot be read."""
    found = _CLAIMS.search(challenge[:MAX_HEADER_BYTES])
    if found is None:
        return ""
    try:
        text = base64.urlsafe_b64decode(found[1].replace("+", "-").replace("/", "_") + "==").decode()
        return text if isinstance(msgspec.json.decode(text), dict) else ""
    except (ValueError, msgspec.MsgspecError):
        return ""


def error_code(body: bytes) -> str:
    """Return the code of an error body in any of its three documented shapes, or nothing."""
    try:
        tree: Any = msgspec.json.decode(body)
    except REFUSED:
        return ""
    if not isinstance(tree, dict):
        return ""
    inner = tree.get("error")
    code = inner.get("code") if isinstance(inner, dict) else tree.get("code", tree.get("statusCode"))
    text = str(code) if isinstance(code, str | int) else ""
    return text if len(text) <= 80 and text.isascii() and text.replace("_", "").isalnum() else ""  # noqa: PLR2004


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After as seconds from now, at most `MAX_PAUSE`: a number, a date, or a moment in epoch seconds."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:_DIGITS])
        if len(text) < _DIGITS and seconds > _EPOCH_SINCE:
            seconds -= time.time()
    else:
        moment = _moment(text)
        if moment is None:
            return None
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_PAUSE)


def _moment(text: str) -> datetime | None:
    """Read the date of a header; None where it is none, or none that there can be."""
    try:
        moment = parsedate_to_datetime(text[:_MAX_VALUE])
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def bounded(value: str | None) -> str:
    """Return a header's value as far as it can be shown: bounded, printable ASCII, else escaped."""
    text = (value or "")[:_MAX_VALUE]
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def server_time(response: aiohttp.ClientResponse) -> Instant | None:
    """Return the server's own clock, where it says."""
    moment = _moment(response.headers.get("Date", ""))
    return None if moment is None else instant.from_datetime(moment)
