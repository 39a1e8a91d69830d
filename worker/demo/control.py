"""A client of the simulator's control endpoint, for tests and the demo."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from worker.errors import SyncError
from worker.model.codec import decode, encode


class Control:
    """Steers the simulator at `origin`; an async context manager. SyncError where an order is refused.

    Numbers with a fraction are Decimal both ways, so that money stays exact.
    """

    def __init__(self, origin: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.origin = origin
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def create(self, records: Iterable[Mapping[str, Any]] = ({},)) -> list[dict[str, Any]]:
        """Add referrals made of partial records; returns the whole ones."""
        created: list[dict[str, Any]] = await self._order("POST", "referrals", list(records))
        return created

    async def update(
        self, row_id: str, changes: Mapping[str, Any], *, silent: bool = False, remove: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Change a referral; `silent` leaves `updatedDateTime` where it was. Returns the whole record."""
        body = {**changes, "silent": silent, "remove": list(remove)}
        updated: dict[str, Any] = await self._order("PATCH", f"referrals/{quote(row_id, safe='')}", body)
        return updated

    async def delete(self, row_id: str) -> None:
        """Take a referral away."""
        await self._order("DELETE", f"referrals/{quote(row_id, safe='')}")

    async def raw(self, row_id: str, body: bytes, *, created: str | None = None, updated: str | None = None) -> None:
        """Store bytes as a record; the times, API texts, are what it is sorted and filtered by (now, if not given)."""
        times = {"createdDateTime": created, "updatedDateTime": updated}
        query = "&".join(f"{name}={quote(text)}" for name, text in times.items() if text is not None)
        await self._order("PUT", f"raw/{quote(row_id, safe='')}?{query}", raw=body)

    async def behaviour(self, **changes: Any) -> dict[str, Any]:
        """Change options of `Behaviour`; returns all of them."""
        options: dict[str, Any] = await self._order("POST", "behaviour", changes)
        return options

    async def faults(self, *faults: Mapping[str, Any]) -> None:
        """Order faults (members of `Fault`) for the requests to come."""
        await self._order("POST", "faults", list(faults))

    async def clear_faults(self) -> None:
        """Forget the faults that still wait."""
        await self._order("DELETE", "faults")

    async def tokens(self, **changes: Any) -> dict[str, Any]:
        """Change tokens by `add`, `revoke`, `expire`, `add_refresh`, `revoke_refresh`; returns those that are good."""
        tokens: dict[str, Any] = await self._order("POST", "tokens", changes)
        return tokens

    async def clock(self, offset: float) -> None:
        """Put the `Date` header `offset` seconds ahead."""
        await self._order("POST", "clock", {"offset": offset})

    async def reveal(self) -> int:
        """Show the late rows; returns how many there were."""
        answer = await self._order("POST", "reveal", {})
        return int(answer["revealed"])

    async def requests(self) -> list[dict[str, Any]]:
        """Return the log of requests to the API and the sign-in service."""
        log: list[dict[str, Any]] = await self._order("GET", "requests")
        return log

    async def clear_requests(self) -> None:
        """Empty the log."""
        await self._order("DELETE", "requests")

    async def state(self, *, full: bool = False) -> dict[str, Any]:
        """Return ids with `updatedDateTime` under `referrals`, and with `full` the records by id under `records`."""
        state: dict[str, Any] = await self._order("GET", "state?full=1" if full else "state")
        return state

    async def reset(self, count: int, seed: int = 1) -> None:
        """Replace all data by `count` fresh referrals."""
        await self._order("POST", "reset", {"count": count, "seed": seed})

    async def _order(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        data = raw if raw is not None else (None if body is None else encode(body))
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        async with self._session.request(method, f"{self.origin}/_control/{path}", data=data, **options) as answer:
            value = decode(await answer.read())
            if answer.status != 200:  # noqa: PLR2004 - the one good status
                raise SyncError(f"The simulator refused: {value['error']}")
            return value
