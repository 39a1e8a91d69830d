"""Everything that can go wrong and be understood, as one tree.

::

    SyncError                 failed; a sentence, and what to do next            exit 1
    ├── ConfigError           every fault of the configuration at once           exit 2
    ├── SignInError           sign-in refused: action required                  exit 3
    │   └── PermissionRefused the sign-in is good, and may not see this
    ├── SourceError           the API cannot be reached or answered badly
    │   ├── SourceUnavailable it may work later: outage, throttling, time limit
    │   ├── SourceRejected    it refused what we asked (4xx)
    │   └── SourceContradicted it answered, and the answer contradicts itself
    ├── StoreError            the database refused or is in the wrong state
    │   └── StoreUnavailable  it may work later: connection lost, starting up
    │       └── CommitsLost   it came back without what it had confirmed
    ├── LeaseError            another process holds this work, or took it over
    └── DeletionCapError      more rows are no longer listed than may be marked at once; action required

An error is translated into this tree once, at the edge that met it. Whatever is not of this tree is a bug and ends
the run loudly. Messages name what to do; they never hold a token, a password or a customer's data.
"""

from __future__ import annotations

from datetime import datetime

MFA_ASKED = "900421"
"""The code of a refusal for want of MFA; it may come at any time (partner-center-api.md section 11)."""


class SyncError(Exception):
    """A failure that an operator can act on.

    `hint` is the next step in the imperative; it is printed under the message.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(SyncError):
    """The configuration is wrong; `faults` holds one line for each fault, each beginning with its key."""

    exit_code = 2

    def __init__(self, faults: list[str], hint: str = "") -> None:
        super().__init__("\n".join(faults), hint)
        self.faults = faults


class SignInError(SyncError):
    """Sign-in or permission was refused; waiting does not help: action required."""

    exit_code = 3


class PermissionRefused(SignInError):
    """The API knows who asks, and does not let them see this (HTTP 403)."""


class SourceError(SyncError):
    """The API could not be reached or answered badly."""


class SourceUnavailable(SourceError):
    """The API may answer later.

    `retry_after` is how many seconds it asked us to wait, when it said; `status` the HTTP status, 0 without an answer.
    """

    def __init__(self, message: str, hint: str = "", retry_after: float | None = None, status: int = 0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.status = status


class SourceRejected(SourceError):
    """The API refused the request itself; `status` is the HTTP status."""

    def __init__(self, message: str, status: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class SourceContradicted(SourceError):
    """The answers contradict each other, so this paging strategy cannot be relied on.

    `lasting` is false where it may have been a single bad answer: then the strategy is probed again soon.
    """

    def __init__(self, message: str, hint: str = "", *, lasting: bool = True) -> None:
        super().__init__(message, hint)
        self.lasting = lasting


class StoreError(SyncError):
    """The database refused, or is not in the state that we need."""


class StoreUnavailable(StoreError):
    """The database may answer later."""


class CommitsLost(StoreUnavailable):
    """The database crashed, or a standby took over, without the latest commits of this run, which ends there."""


class LeaseError(SyncError):
    """Another process holds the right to do this work.

    `holder` names it, `expires_at` is until when it holds the lease unless it renews it, and `seconds_left` how long
    that is; None where a write found the lease taken over.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        holder: str = "",
        expires_at: datetime | None = None,
        seconds_left: float | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.holder = holder
        self.expires_at = expires_at
        self.seconds_left = seconds_left


class DeletionCapError(SyncError):
    """More rows are no longer listed than may be marked as deleted at once; none was, and action is required."""
