"""Sealing what the database keeps of a sign-in, with keys that the database does not have."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from worker.config.values import exposed
from worker.errors import ConfigError, StoreError


class Seal:
    """The keys of `security.key_file`: the first one seals, any of them opens, so that keys can be rotated."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])
        self._first = keys[0].encode()
        self._newest = Fernet(keys[0])

    def close(self, secret: str) -> bytes:
        """Seal a secret."""
        return self._keys.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Open what was sealed; raises StoreError when no key fits."""
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise StoreError(
                "The stored sign-in cannot be opened with the keys of `security.key_file`.",
                "Put the former key back, below the new one; or sign in again with `referral-sync login`.",
            ) from None

    def open_newest(self, sealed: bytes) -> str | None:
        """Open what was sealed with the first key; None where another one sealed it, so that it is made anew."""
        try:
            return self._newest.decrypt(sealed).decode()
        except InvalidToken:
            return None

    def digest(self, *secrets: str) -> str:
        """Return what secrets can be recognised by, as long as the first key stays, and only by who has it."""
        text = "\0".join(("recognise", *secrets)).encode()
        return hmac.new(self._first, text, hashlib.sha256).hexdigest()


def read_keys(path: Path) -> list[str]:
    """Read a key file: one key on a line, the newest first. Raises ValueError, which quotes nothing of it."""
    try:
        with path.open(encoding="ascii") as file:
            if fault := exposed(path, os.fstat(file.fileno()).st_mode):
                raise ConfigError([f"security.key_file: {fault}"])
            keys = file.read().split()
        for key in keys:
            Fernet(key)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("holds a line that is no key of 32 bytes in URL-safe base64") from None
    if not keys:
        raise ValueError("holds no key")
    return keys
