"""Stored sign-ins: for each account the chains of refresh tokens, each begun by a configured token or a person.

The chain that began last is in force. A configured token that is not known yet begins one; a token that began an
earlier chain is stale and never comes back into force.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from worker.store.database import Database


@dataclass(frozen=True, slots=True)
class Access:
    """An access token for all workers, sealed; it is to be renewed, and expires, after so many seconds from now."""

    sealed: bytes = field(repr=False)
    renew_in: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain: its key, the newest token sealed, how often it was rotated (None: not stored yet), and a refusal.

    `issued_for` names the identity service, tenant and application that its tokens are good for, and go to.
    `refused_for` is the time since the refusal in seconds, `refused_with` the fingerprint of what was refused.
    `access` is the access token that came with the newest one, as long as it need not be renewed.
    """

    key: str
    sealed: bytes | None = field(repr=False, default=None)
    rotations: int | None = None
    refused_for: float | None = None
    refused_with: str | None = None
    refused_because: str | None = None
    issued_for: str = ""
    access: Access | None = None


@lru_cache(maxsize=64)
def fingerprint(account: str, *secrets: str) -> str:
    """Return what a secret can be recognised by, and not guessed from; slow on purpose."""
    text = "\0".join(secrets).encode()
    return hashlib.scrypt(text, salt=f"referral-sync {account}".encode(), n=1 << 14, r=8, p=1, dklen=16).hex()


async def chains(database: Database, account: str) -> list[Chain]:
    """Return the account's chains, the one that began last first."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            """
            SELECT chain, sealed, rotations, extract(epoch FROM now() - refused_at)::float8, refused_with,
                refused_because, issued_for,
                CASE WHEN access_renew_at > now() THEN access_token END,
                extract(epoch FROM access_renew_at - now())::float8,
                extract(epoch FROM access_expires_at - now())::float8
            FROM sync.tokens WHERE account = $1 ORDER BY began_at DESC, chain
            """,
            account,
        )
    return [_chain(*row.values()) for row in rows]


def _chain(*values: Any) -> Chain:
    *chain, access, renew_in, expires_in = values
    return replace(Chain(*chain), access=None if access is None else Access(access, renew_in, expires_in))


async def put(
    database: Database,
    account: str,
    chain: str,
    sealed: bytes | None,
    *,
    issued_for: str,
    read: int | None,
    lapses_at: datetime | None,
    access: Access | None = None,
) -> bool:
    """Store the newest token of a chain, its access token and what they are good for, and forget its refusal.

    `read` is how often the chain had been rotated when its token was read, None for a chain that begins. Returns
    whether it was stored: False when another process was faster, whose token is as good.
    """
    async with database.transaction() as connection:
        status = await connection.execute(
            """
            INSERT INTO sync.tokens AS t (account, chain, sealed, lapses_at, rotations, issued_for,
                access_token, access_renew_at, access_expires_at)
            SELECT $1, $2, $3, $4, 0, $6, $7, now() + make_interval(secs => $8), now() + make_interval(secs => $9)
            WHERE $5::bigint IS NULL
            ON CONFLICT (account, chain) DO NOTHING
            """
            if read is None
            else """
            UPDATE sync.tokens SET sealed = coalesce($3, sealed), lapses_at = coalesce($4, lapses_at),
                rotations = rotations + 1, rotated_at = now(), refused_at = NULL, refused_with = NULL,
                refused_because = NULL, issued_for = $6, access_token = $7,
                access_renew_at = now() + make_interval(secs => $8),
                access_expires_at = now() + make_interval(secs => $9)
            WHERE account = $1 AND chain = $2 AND rotations = $5
            """,
            account,
            chain,
            sealed,
            lapses_at,
            read,
            issued_for,
            access.sealed if access else None,
            access.renew_in if access else None,
            access.expires_in if access else None,
        )
    return not status.endswith(" 0")


async def put_refusal(
    database: Database, account: str, chain: str, refused_with: str, because: str, *, issued_for: str
) -> None:
    """Remember that a chain's token was refused, and why; a chain that was refused at once begins with that.

    Its access token is used no more.
    """
    async with database.transaction() as connection:
        await connection.execute(
            """
            INSERT INTO sync.tokens AS t (account, chain, refused_at, refused_with, refused_because, issued_for)
            VALUES ($1, $2, now(), $3, $4, $5)
            ON CONFLICT (account, chain) DO UPDATE SET refused_at = excluded.refused_at,
                refused_with = excluded.refused_with, refused_because = excluded.refused_because,
                issued_for = excluded.issued_for, access_token = NULL, access_renew_at = NULL, access_expires_at = NULL
            """,
            account,
            chain,
            refused_with,
            because,
            issued_for,
        )


async def drop_access(database: Database, account: str, chain: str) -> None:
    """Forget a chain's access token, which the API refused."""
    async with database.transaction() as connection:
        await connection.execute(
            """
            UPDATE sync.tokens SET access_token = NULL, access_renew_at = NULL, access_expires_at = NULL
            WHERE account = $1 AND chain = $2
            """,
            account,
            chain,
        )
