"""The sign-in service: tokens issued and accepted, in the v1 and the v2 form."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from worker.demo.behaviour import Behaviour

Form = Mapping[str, str]
CLAIMS = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
"""What the API asks for where it challenges: an authentication context of conditional access."""

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class RefusedError(Exception):
    """A sign-in refused: the OAuth error, its AADSTS number, and the HTTP status."""

    def __init__(self, error: str, number: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.number = number
        self.status = status


@dataclass(slots=True)
class SignIn:
    """What the service remembers.

    Access tokens with their end (`time.monotonic`, None for no end), refresh tokens, which access tokens were issued
    for the claims that the API may demand, codes of interactive sign-ins, and the polls that each device code still
    answers with "pending".
    """

    access: dict[str, float | None] = field(default_factory=dict)
    refresh: set[str] = field(default_factory=set)
    with_claims: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    devices: dict[str, int] = field(default_factory=dict)

    def accepts(self, authorization: str) -> bool:
        """Return whether an `Authorization` header holds a token that is good now."""
        scheme, _, token = authorization.partition(" ")
        end = self.access.get(token, 0.0)
        return scheme.lower() == "bearer" and (end is None or end > time.monotonic())

    def has_claims(self, authorization: str) -> bool:
        """Return whether the header's token was issued for the claims that the API may demand."""
        return authorization.partition(" ")[2] in self.with_claims

    def change(self, request: Mapping[str, Any]) -> None:
        """Add or revoke tokens: `add`, `revoke`, `expire`, `add_refresh`, `revoke_refresh`; lists, or "all"."""
        unknown = set(request) - {"add", "revoke", "expire", "add_refresh", "revoke_refresh"}
        if unknown:
            raise ValueError(f"Tokens cannot be changed by {', '.join(sorted(unknown))}.")
        for name in ("revoke", "expire"):
            for token in _among(request.get(name, ()), self.access):
                self.access.pop(token, None)
        self.refresh.difference_update(_among(request.get("revoke_refresh", ()), self.refresh))
        self.access.update((str(token), None) for token in request.get("add", ()))
        self.refresh.update(map(str, request.get("add_refresh", ())))

    def redeem(self, form: Form, behaviour: Behaviour, *, version: int) -> dict[str, Any]:
        """Answer a token request; RefusedError where it is refused."""
        grant = form.get("grant_type", "")
        needed = "scope" if version == 2 else "resource"  # noqa: PLR2004 - the two versions of the protocol
        for name in ("client_id", *(() if grant == _DEVICE else (needed,))):
            if not form.get(name):
                raise RefusedError("invalid_request", 900144, f"The request body must contain '{name}'.")
        if behaviour.client_secret and form.get("client_secret") != behaviour.client_secret:
            raise RefusedError("invalid_client", 7000215, "Invalid client secret provided.", 401)
        grants: dict[str, Callable[[Form, Behaviour], None]] = {
            "refresh_token": self._by_refresh_token,
            "password": _by_password,
            "authorization_code": self._by_code,
            _DEVICE: self._by_device,
            "client_credentials": lambda _form, _behaviour: None,
        }
        if form.get("claims") and not behaviour.grant_claims:
            raise RefusedError("interaction_required", 50076, "Multi-factor authentication is needed.")
        if grant not in grants:
            raise RefusedError("unsupported_grant_type", 70003, f"The grant type '{grant}' is not supported.")
        grants[grant](form, behaviour)
        return self._issue(form, behaviour, version=version, user=grant != "client_credentials")

    def begin_device(self, behaviour: Behaviour, origin: str) -> dict[str, Any]:
        """Start a device sign-in that nobody has to finish."""
        code = f"device-{uuid.uuid4().hex}"
        self.devices[code] = behaviour.device_polls
        return {
            "device_code": code,
            "user_code": "SIMULATE",
            "verification_uri": f"{origin}/device",
            "expires_in": 900,
            "interval": 1,
            "message": f"To sign in, open {origin}/device and enter the code SIMULATE.",
        }

    def begin_code(self, query: Form) -> str:
        """Return where a browser goes after an interactive sign-in that nobody had to type."""
        code = f"code-{uuid.uuid4().hex}"
        self.codes.add(code)
        answer = urlencode({"code": code, "state": query.get("state", "")})
        return f"{query.get('redirect_uri', 'http://localhost')}?{answer}"

    def _by_refresh_token(self, form: Form, behaviour: Behaviour) -> None:
        token = form.get("refresh_token", "")
        if token not in self.refresh:
            raise RefusedError("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
        if behaviour.refresh_tokens == "single_use":
            self.refresh.discard(token)

    def _by_code(self, form: Form, _behaviour: Behaviour) -> None:
        if form.get("code", "") not in self.codes:
            raise RefusedError("invalid_grant", 54005, "The authorization code was already redeemed.")
        self.codes.discard(form["code"])

    def _by_device(self, form: Form, _behaviour: Behaviour) -> None:
        code = form.get("device_code", "")
        if code not in self.devices:
            raise RefusedError("invalid_grant", 70020, "The device code is unknown or was used.")
        if self.devices[code]:
            self.devices[code] -= 1
            raise RefusedError("authorization_pending", 70016, "The user has not finished signing in.")
        del self.devices[code]

    def _issue(self, form: Form, behaviour: Behaviour, *, version: int, user: bool) -> dict[str, Any]:
        access = f"access-{uuid.uuid4().hex}"
        if user:  # a token of the application alone is issued as well, and the API accepts none of those
            self.access[access] = time.monotonic() + behaviour.token_lifetime
            if form.get("claims") == CLAIMS:
                self.with_claims.add(access)
        lifetime = int(behaviour.token_lifetime)
        answer: dict[str, Any] = {"token_type": "Bearer", "access_token": access}
        if version == 1:
            now = int(time.time())
            answer |= {"expires_in": str(lifetime), "ext_expires_in": str(lifetime), "resource": form["resource"]}
            answer |= {"expires_on": str(now + lifetime), "not_before": str(now - 300), "scope": "user_impersonation"}
        else:
            answer |= {"expires_in": lifetime, "ext_expires_in": lifetime, "scope": form.get("scope", "")}
        if user and (behaviour.refresh_tokens != "keep" or form.get("grant_type") != "refresh_token"):
            answer["refresh_token"] = f"refresh-{uuid.uuid4().hex}"
            self.refresh.add(answer["refresh_token"])
        return answer


def _by_password(form: Form, behaviour: Behaviour) -> None:
    if not form.get("username") or (behaviour.password and form.get("password") != behaviour.password):
        raise RefusedError("invalid_grant", 50126, "Error validating credentials due to invalid username or password.")


def _among(wanted: Any, known: Any) -> list[str]:
    return list(known) if wanted == "all" else [str(token) for token in wanted]


def refusal(refused: RefusedError) -> web.Response:
    """Return the answer to a refused sign-in."""
    body = {
        "error": refused.error,
        "error_description": f"AADSTS{refused.number}: {refused}",
        "error_codes": [refused.number],
        "trace_id": str(uuid.uuid4()),
        "correlation_id": str(uuid.uuid4()),
    }
    return web.json_response(body, status=refused.status)


def discovery(origin: str, tenant: str) -> dict[str, Any]:
    """Return the OpenID configuration of a tenant."""
    base = f"{origin}/{tenant}"
    return {
        "issuer": f"{base}/v2.0",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        "jwks_uri": f"{base}/discovery/v2.0/keys",
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
