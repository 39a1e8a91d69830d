"""A referral as the server holds it, and its JSON rendered once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from worker.demo import ticks
from worker.demo.odata import CREATED, UPDATED
from worker.model.codec import encode

_CONTEXT = "https://api.partner.microsoft.com/v1.0/engagments/referrals/$metadata#Referrals/$entity"
MISSING = -1  # the tick of a row without that time: before every other


@dataclass(slots=True)
class Row:
    """One referral: the decoded record, its two times in ticks, and how often it was written.

    `raw`, when set, is sent as it stands, whatever it is; `record` then holds the sort keys alone.
    """

    id: str
    record: dict[str, Any]
    writes: int = 0
    raw: bytes | None = None
    etag: str = ""
    created: int = MISSING
    updated: int = MISSING
    _rendered: dict[tuple[bool, bool], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the sort keys and the entity tag from the record."""
        created, updated = ticks.parse(self.record.get(CREATED)), ticks.parse(self.record.get(UPDATED))
        self.created = MISSING if created is None else created
        self.updated = MISSING if updated is None else updated
        # The form of the database behind the real API, inner quotes included.
        stamp = (
            f"{self.updated & 0xFFFFFFFF:08x}-0000-{self.writes & 0xFFFF:04x}-0000-{crc32(self.id.encode()):08x}0000"
        )
        self.etag = str(self.record.get("eTag") or f'"{stamp}"')

    def listed(self, *, etag: bool, thin: bool) -> bytes:
        """Return the JSON of a listing."""
        if self.raw is not None:
            return self.raw
        body = self._rendered.get((etag, thin))
        if body is None:
            body = self._rendered[etag, thin] = encode(_listed(self.record, self.etag if etag else None, thin=thin))
        return body

    def single(self) -> bytes:
        """Return the JSON of the record asked for by id: with `eTag`, its links malformed like the real ones."""
        if self.raw is not None:
            return self.raw
        record = {"@odata.context": _CONTEXT, **self.record, "eTag": self.etag}
        links = record.get("links")
        if isinstance(links, dict):
            record["links"] = {name: _slip(link) for name, link in links.items()}
        return encode(record)


def full(row: Row) -> dict[str, Any]:
    """Return the record as a by-id answer means it, without the context and the slips in its links."""
    return {**row.record, "eTag": row.etag}


def _listed(record: dict[str, Any], etag: str | None, *, thin: bool) -> dict[str, Any]:
    shown = {name: value for name, value in record.items() if name != "eTag"}
    if etag is not None:
        shown["eTag"] = etag
    if thin:
        shown.pop("registrations", None)
        profile = shown.get("customerProfile")
        if isinstance(profile, dict):
            shown["customerProfile"] = {name: value for name, value in profile.items() if name != "team"}
    return shown


def _slip(link: Any) -> Any:
    if not isinstance(link, dict) or not isinstance(link.get("uri"), str):
        return link
    return {**link, "uri": link["uri"].replace("referrals/", "referrals").replace("referrals?", "referrals")}
