"""Writes `docs/messages.md` from the code that makes messages, and `docs/digest.png` of one: `make messages`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from worker.model.events import EventKind
from worker.notify import messages
from worker.notify.facts import Deal, Health, Occurrence, Waiting
from worker.notify.messages import Frame, MessagePage

DOCS = Path(__file__).parent.parent / "docs"
NOW = datetime(2026, 3, 3, 7, 0, tzinfo=UTC)
HEALTH = Health("contoso", "Contoso EMEA", True, NOW - timedelta(minutes=2), NOW - timedelta(hours=4), is_fresh=True)
OLD = replace(HEALTH, fresh_as_of=NOW - timedelta(hours=9), verified_through=NOW - timedelta(hours=28), is_fresh=False)
DEAL = Deal(
    account="contoso",
    label="Contoso EMEA",
    id="0f8fad5b-d9cb-469f-a165-70867728950e",
    engagement_id="7c9e6679-7425-40de-944b-e07fc1f90ae7",
    name="Move to the cloud & support",
    customer="Fabrikam GmbH",
    country="DE",
    value=Decimal(120000),
    currency="EUR",
    direction="Incoming",
    status="New",
    substatus="Pending",
    deal_type="Co-sell",
    mpn_id="1234567",
    created_at=NOW - timedelta(days=11),
    respond_by=NOW + timedelta(days=2, hours=5),
    is_awaiting=True,
    accepted_at=None,
    sellers=(("Seller One", "one@contoso.example"),),
)
HEAD = """# Messages

Made from the code by `make messages`. How to set channels up is in `config.example.toml`, under `[notify]`; `notify
preview` prints what yours would send now. Names of deals and customers are written by strangers: markup, links,
mentions and characters that are not seen do not come through, and no name is longer than 120 characters. No message
holds a customer's contacts, notes or phone numbers.

E-mail gets HTML with the same words:

![A digest by e-mail](digest.png)
"""


def frame(*accounts: Health) -> Frame:
    """Return what holds for the examples."""
    return Frame(NOW, ZoneInfo("Europe/Berlin"), "https://partner.example.com/referrals/{id}", accounts or (HEALTH,))


def happening(kind: EventKind, deal: Deal | None = DEAL, /, **more: str | None) -> Occurrence:
    """Make an event of the examples."""
    at = NOW - timedelta(minutes=7)
    referral = deal.id if deal else ""
    return Occurrence(1, "contoso", "Contoso EMEA", kind, referral, "", at, at, "incremental", more, deal)


def examples() -> dict[str, MessagePage]:
    """Make one message of each kind."""
    closed = replace(DEAL, status="Closed", substatus="Won", is_awaiting=False, respond_by=None)
    other = replace(
        DEAL, name="Analytics for 40 plants", customer="Northwind", country="FR", value=Decimal(80500), sellers=()
    )
    late = replace(other, name="Backup, first phase", respond_by=NOW - timedelta(hours=30))
    value = {"old_value": "90000", "old_currency": "EUR", "new_value": "120000", "new_currency": "EUR"}
    mfa = "Partner Center asks for a sign-in with MFA (HTTP 401 900421)."
    began = (NOW - timedelta(hours=9)).isoformat()
    won = replace(closed, name="Data platform", customer="Tailspin Toys", country="US", currency="USD")
    waiting = Waiting(3, 1, [late, DEAL, replace(other, respond_by=NOW + timedelta(days=13, hours=20))])
    came = [
        happening(EventKind.NEW, waiting.first[2]),
        happening(EventKind.CLOSED, won),
        happening(EventKind.VALUE_CHANGED, **value),
    ]
    single = {
        "new": happening(EventKind.NEW),
        "due": happening(EventKind.DUE),
        "overdue": happening(EventKind.OVERDUE, late),
        "expired": happening(EventKind.EXPIRED, replace(closed, substatus="Expired")),
        "closed": happening(EventKind.CLOSED, closed),
        "value_changed": happening(EventKind.VALUE_CHANGED, **value),
        "action_required": happening(EventKind.ACTION_REQUIRED, None, why=mfa),
        "stale": replace(happening(EventKind.STALE, None), happened_at=NOW - timedelta(hours=9)),
        "recovered": happening(EventKind.RECOVERED, None, kind="stale", began_at=began),
    }
    pages = {kind: messages.single(event, frame(), ["Message 1b4e28ba."]) for kind, event in single.items()}
    title = messages.awaiting_title(waiting, frame())
    pages["a digest"] = messages.digest(title, waiting, came, frame(), ["Message 6fa459ea."])
    nothing = Waiting(0, 0, [])
    pages["a digest, and nothing awaits an answer"] = messages.digest(
        messages.awaiting_title(nothing, frame()), nothing, [], frame()
    )
    pages["the same from a copy that is old"] = messages.digest(
        messages.awaiting_title(nothing, frame(OLD)), nothing, [], frame(OLD)
    )
    pages["due, from a copy that is old"] = messages.single(happening(EventKind.DUE), frame(OLD))
    pages["more than ten at once"] = messages.digest("Referrals: 3 changes", None, came, frame())
    return pages


def document() -> str:
    """Write the page of docs."""
    parts = [HEAD]
    for kind, page in examples().items():
        parts.append(f"\n## {kind}\n\n```text\n{page.title}\n\n{page.text(32_768)}\n```\n")
    return "".join(parts)


def draw(target: Path, chromium: str = "chromium") -> None:
    """Draw the digest as a reader of e-mail sees it."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "digest.html"
        page.write_text(examples()["a digest"].html(), encoding="utf-8")
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=760,1000",
                f"--user-data-dir={folder}/profile", f"--screenshot={target}", page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    (DOCS / "messages.md").write_text(document(), encoding="utf-8")
    if "--picture" in sys.argv:
        draw(DOCS / "digest.png")
