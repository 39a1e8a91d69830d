"""A simulator that speaks TLS, in a process of its own: what the identity service needs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import trustme

from tests.support.simulator import running_simulator
from worker.demo.control import Control

ROOT = Path(__file__).parents[2]
CONFIGURED = "simulator"
SECRET = "a-client-secret"


@dataclass(frozen=True, slots=True)
class Secure:
    """Where it is, and the certificate authority that vouches for it."""

    origin: str
    ca_file: Path

    def control(self) -> Control:
        """Give control of it."""
        return Control(self.origin, tls=ssl.create_default_context(cafile=str(self.ca_file)))


@contextmanager
def secure_simulator(folder: Path, *, expired: bool = False) -> Iterator[Secure]:
    """Run one with a certificate of an authority of its own, which may have expired."""
    authority = trustme.CA()
    end = datetime.now(UTC) + timedelta(days=-1 if expired else 30)
    certificate = authority.issue_cert("127.0.0.1", not_after=end)
    chain, key, ca_file = folder / "chain.pem", folder / "key.pem", folder / "ca.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(ca_file))
    with running_simulator("--count", "30", "--tls", str(chain), str(key)) as origin:
        yield Secure(origin, ca_file)


async def browse(secure: Secure, address: str) -> str:
    """Do what the browser of a person does who is signed in already; return where it ends."""
    tls = ssl.create_default_context(cafile=str(secure.ca_file))
    async with aiohttp.ClientSession() as session, session.get(address, ssl=tls, allow_redirects=False) as answer:
        return answer.headers["Location"]


def environment(database_url: str, secure: Secure, key_file: Path, **account: str) -> dict[str, str]:
    """Give the variables of a worker that signs in there."""
    given = {
        "AUTH": "refresh_token", "TENANT_ID": "contoso.example", "CLIENT_ID": "an-application", "CLIENT_SECRET": SECRET,
        "REFRESH_TOKEN": CONFIGURED,
    } | account  # fmt: skip
    return {
        "REFERRAL_SYNC_DATABASE__URL": database_url,
        "REFERRAL_SYNC_API__BASE_URL": secure.origin,
        "REFERRAL_SYNC_API__AUTHORITY": secure.origin,
        "REFERRAL_SYNC_API__CA_FILE": str(secure.ca_file),
        "REFERRAL_SYNC_SECURITY__KEY_FILE": str(key_file),
        **{f"REFERRAL_SYNC_ACCOUNTS__CONTOSO__{name}": value for name, value in given.items() if value},
    }
