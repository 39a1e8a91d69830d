"""One made-up referral that looks like the real ones, quirks included.

Companies and people are invented, mail domains are reserved ones. Money is `Decimal`, so that a writer of JSON can
send the very digits. Members that real answers leave out or send as null are left out or null here too.
"""

from __future__ import annotations

import re
from decimal import Decimal
from random import Random
from typing import Any

from worker.demo import ticks
from worker.demo import vocabulary as words
from worker.demo.dice import below, chance, code, guid, money, pick, some
from worker.demo.lifecycle import Life

ORGANISATION = ("6f9619ff-8b86-4011-b42d-00c04fc964ff", "Meridian &amp; Finch Cloud Services")
REGISTERED_FROM = 25_000  # US dollars in truth; no rates here
LOCATIONS = ("1000101", "1000102", "1000207")
_PATH = "https://api.partner.microsoft.com/v1.0/engagements/referrals"
# Never shown to be present in every answer, so each is left out of some.
OPTIONAL = (
    *("externalReferenceId", "salesStage", "tags", "favorite", "campaignId", "lastRunId", "quality", "createdVia"),
    *("referralProgram", "dealSensitivity", "expirationDateTime", "lastModifiedVia", "callToAction"),
)


def referral(rng: Random, category: str, life: Life, updated: int) -> dict[str, Any]:
    """Make up what the API shows of a deal of a category and a life, last changed at `updated` (ticks)."""
    identity, engagement = guid(rng), guid(rng)
    place = pick(rng, words.PLACES)
    company = f"{pick(rng, words.COMPANY_FIRST)}{pick(rng, words.COMPANY_MIDDLE)} {pick(rng, words.COMPANY_LAST)}"
    shared = category in {"inbound", "outbound"}
    value = money(rng)
    closing = life.created // ticks.DAY * ticks.DAY + (20 + below(rng, 280)) * ticks.DAY
    closing += place.midnight[0] * ticks.HOUR + place.midnight[1] * ticks.MINUTE
    registered = shared and life.substatus == "Won" and value is not None and value >= REGISTERED_FROM
    registration = pick(rng, ("ReviewPending", "ActionRequired", "Passed", "Failed", "Approved"))
    invitation, invited_by = _invitation(rng, category)
    record: dict[str, Any] = {
        "id": identity,
        "engagementId": engagement,
        "name": f"{company}: {pick(rng, words.SOLUTIONS)}" if chance(rng, 0.97) else None,
        "organizationId": ORGANISATION[0],
        "organizationName": ORGANISATION[1],
        "externalReferenceId": pick(rng, ("", None, f"CRM-{below(rng, 10**6):06d}")),
        **_course(rng, life, updated),
        **_kind(rng, category),
        "registrationStatus": registration if registered else "None",
        "customerProfile": _customer(rng, company, place, expired=life.substatus == "Expired"),
        "details": _details(rng, category, place, value=value, closing=closing),
        "consent": {
            "consentToToShareInfoWithOthers": chance(rng, 0.8),
            "consentToContact": pick(rng, (True, True, None)),
            "consentToShareReferralWithMicrosoftSellers": shared,
        },
        "inviteContext": {
            "notes": pick(rng, (None, "Please answer within the week; the customer has a deadline.")),
            "invitedMpnId": pick(rng, (None, *LOCATIONS)),
            "assistanceRequestCode": invitation,
            "invitedBy": invited_by,
        },
        "target": [{"type": "BusinessProfileLocation", "id": guid(rng)}] if chance(rng, 0.7) else [],
        "links": {
            "relatedReferrals": {"uri": f"{_PATH}?$filter=engagementId eq {engagement}", "method": "GET"},
            "self": {"uri": f"{_PATH}/{identity}", "method": "GET"},
        },
        "trackingInfo": {
            "microsoftMsxId": f"7-{code(rng, 10)}" if shared else None,
            "microsoftUSFedOpportunityId": None,
            "migratedPSCDealId": None,
        },
        "team": _members(rng, 1 + (below(rng, 4) == 0), "sellers.example.org", "en-GB"),
    }
    if registered:
        record["registrations"] = [
            _registration(rng, life, updated, status=registration, currency=place.currency, value=value)
        ]
    elif chance(rng, 0.5):
        record["registrations"] = []
    return _with_gaps(rng, record | _only_of(rng, category))


def _course(rng: Random, life: Life, updated: int) -> dict[str, Any]:
    """Say when what happened, and how it stands."""
    return {
        "createdDateTime": _text(rng, life.created),
        "updatedDateTime": _text(rng, updated),
        "expirationDateTime": _maybe_text(life.expires),
        "acceptedDateTime": _maybe_text(life.accepted),
        "closedDateTime": _maybe_text(life.closed),
        "status": life.status,
        "substatus": life.substatus,
        "statusReason": pick(rng, words.REASONS) if life.substatus in {"Lost", "Declined", "Error"} else None,
    }


def _kind(rng: Random, category: str) -> dict[str, Any]:
    """Say what kind of deal it is, and where it came from."""
    bought = category == "marketplace"
    return {
        "qualification": _qualification(rng, category),
        "type": "Shared" if category in {"inbound", "outbound"} else "Independent",
        "direction": "Outgoing" if category in {"outbound", "independent"} else "Incoming",
        "favorite": chance(rng, 0.1),
        "campaignId": pick(rng, (None, None, "CAMP-24-01", "CAMP-25-07")),
        "referralProgram": pick(rng, (None, None, "SolutionAssessment")),
        "salesStage": pick(rng, words.STAGES),
        "quality": pick(rng, ("High", "Medium", "Low", "Unknown")),
        "isSpam": bought and chance(rng, 0.08),
        "mpnId": pick(rng, LOCATIONS),
        "dealSensitivity": "None",
        "createdVia": pick(rng, ("PartnerCenter", "Api", "Connector")),
        "lastModifiedVia": pick(rng, (None, "Api", "PartnerCenter", "System")),
        "lastRunId": None,
        "tags": _tags(rng),
        "callToAction": pick(rng, words.CALLS) if bought else None,
        "referralSource": pick(rng, words.ORIGINS) if bought else None,
    }


def _customer(rng: Random, company: str, place: words.Place, *, expired: bool) -> dict[str, Any]:
    """Make up a company; of a lead that expired the people are not shown."""
    domain = re.sub(r"[^a-z]+", "-", company.lower().replace("&amp;", "and")).strip("-") + ".example.com"
    return {
        "name": company,
        "address": {
            "addressLine1": f"{1 + below(rng, 240)} {pick(rng, words.STREETS)}",
            "addressLine2": pick(rng, ("", "", "", "Floor 3", None)),
            "city": place.city,
            "state": place.state,
            "postalCode": place.postal_code,
            "country": place.country,
            "region": place.region,
        },
        "size": pick(rng, (*words.SIZES, "", None)),
        "isMatchingComplete": chance(rng, 0.6),
        "ids": _company_ids(rng),
        "team": [] if expired else _members(rng, 1, domain, place.locale),
    }


def _details(rng: Random, category: str, place: words.Place, *, value: Decimal | None, closing: int) -> dict[str, Any]:
    """Say what the deal is worth, when it closes (ticks), and what the customer needs."""
    return {
        "notes": pick(rng, words.NOTES),
        "dealValue": value,
        "currency": place.currency,
        "closingDateTime": ticks.render(closing, 0),
        "customerRequestedContact": pick(rng, (True, False, None)),
        "customerAction": None,
        "incentiveLevel": pick(rng, (None, None, "Level1")),
        "requirements": _requirements(rng, place.currency, category),
    }


def _only_of(rng: Random, category: str) -> dict[str, Any]:
    """Make up the members that only deals of one category have."""
    if category == "marketplace":
        return {"offerId": f"meridian.{code(rng, 6).lower()}"}
    if category in {"inbound", "outbound"} and chance(rng, 0.3):
        return {"customerMarketplaceIntent": pick(rng, ("Yes", "No", "NotDecided"))}
    return {}


def _with_gaps(rng: Random, record: dict[str, Any]) -> dict[str, Any]:
    """Leave out optional members of some records, and send null where the schema lets objects be null."""
    for name in OPTIONAL if chance(rng, 0.4) else some(rng, OPTIONAL, 0, 2):
        del record[name]
    if chance(rng, 0.02):
        del record["direction"]
    if chance(rng, 0.02):
        del record["consent"]["consentToToShareInfoWithOthers"]
    if chance(rng, 0.01):
        record["inviteContext"] = None
    if chance(rng, 0.01):
        record["trackingInfo"] = None
    return record


def _invitation(rng: Random, category: str) -> tuple[str, dict[str, Any]]:
    """Return the kind of help asked for, and who invited: `msft`, a partner, the own organisation, or nobody."""
    own = {"organizationId": ORGANISATION[0], "organizationName": ORGANISATION[1]}
    microsoft = {"organizationId": "msft", "organizationName": "Microsoft"}
    nobody = {"organizationId": None, "organizationName": None}
    partner = {"organizationId": "0b6d1c1e-52a4-4c39-9c59-1d2f3a4b5c6d", "organizationName": "Hollow Pine Systems"}
    asked = pick(rng, words.ASSISTANCE)
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        "inbound": (asked, pick(rng, (microsoft, microsoft, partner, own))),
        "outbound": (asked, own),
        "lead": ("Unknown", microsoft),
        "marketplace": ("Unknown", pick(rng, (microsoft, nobody))),
        "independent": ("Unknown", own),
    }
    return choices[category]


def _qualification(rng: Random, category: str) -> str:
    if category == "marketplace":
        return "Direct"
    if category == "lead":
        return pick(rng, ("SalesQualified", "MarketingQualified"))
    return pick(rng, ("SalesQualified", "None"))


def _requirements(rng: Random, currency: str, category: str) -> dict[str, Any] | None:
    if chance(rng, 0.03):
        return None
    solutions = [
        {
            "id": pick(rng, words.SOLUTIONS) if chance(rng, 0.6) else f"SOL-{code(rng, 8)}",
            "name": pick(rng, words.PLAYS),
            "type": pick(rng, ("Category", "Name")),
            "price": money(rng),
            "quantity": 1 + below(rng, 40),
            "currency": currency,
            "publisherName": pick(rng, (ORGANISATION[1], "Microsoft")),
        }
        for _ in range(below(rng, 2))
    ]
    offers = [{"id": f"OFFER-{code(rng, 5)}", "name": pick(rng, words.PLAYS)}] if category == "marketplace" else []
    return {
        "industries": [{"id": each} for each in some(rng, words.INDUSTRIES, 1, 2)],
        "products": [{"id": each} for each in some(rng, words.PRODUCTS, 1, 2)],
        "services": [{"id": each} for each in some(rng, words.SERVICES, 0, 2)] if chance(rng, 0.95) else None,
        "solutions": solutions,
        "offers": offers,
        "salesPlays": [{"id": pick(rng, words.PLAYS)}] if chance(rng, 0.3) else [],
        "additionalRequirements": {
            "iot": None,
            "attributes": [
                {"type": "PartnerRole", "id": "ServicesPartner"},
                {"type": "SolutionArea", "id": pick(rng, words.AREAS)},
                {"type": "SolutionPlay", "id": pick(rng, words.PLAYS)},
            ]
            if chance(rng, 0.5)
            else [],
        },
    }


def _registration(
    rng: Random, life: Life, updated: int, *, status: str, currency: str, value: Decimal | None
) -> dict[str, Any]:
    signed = life.closed or life.created
    decided = ticks.render(min(signed + ticks.DAY, updated))
    start = ticks.render(signed // ticks.DAY * ticks.DAY, 0)
    return {
        "id": guid(rng),
        "registrationDateTime": ticks.render(signed),
        "type": "AzureIPCoSell",
        "contract": {
            "value": value,
            "currency": currency,
            "startDateTime": start,
            "endDateTime": ticks.render(signed // ticks.DAY * ticks.DAY + 365 * ticks.DAY, 0),
            "signDateTime": start,
            "term": pick(rng, ("Finite", "Perpetual")),
        },
        "solutionDetails": [
            {
                "id": f"SOL-{code(rng, 8)}",
                "name": pick(rng, words.PLAYS),
                "value": value,
                "currency": currency,
                "isDeployedOnAzure": chance(rng, 0.8),
                "primaryDeploymentOn": pick(rng, ("Customer", "Partner")),
                "pricingModel": pick(rng, ("PayAsYouGo", "Other")),
                "marketplaceTransactionDetails": {
                    "isMarketplaceTransacted": False,
                    "marketplaceTransactionDateTime": None,
                },
            }
        ],
        "statusHistory": {
            "reviewPendingDateTime": ticks.render(signed),
            "actionRequiredDateTime": decided if status == "ActionRequired" else None,
            "passedDateTime": decided if status in {"Passed", "Approved"} else None,
            "failedDateTime": decided if status == "Failed" else None,
            "approvedDateTime": decided if status == "Approved" else None,
            "resubmissionDateTime": None,
        },
    }


def _members(rng: Random, most: int, domain: str, locale: str) -> list[dict[str, Any]]:
    return [_member(rng, domain, locale) for _ in range(1 + below(rng, most))]


def _member(rng: Random, domain: str, locale: str) -> dict[str, Any]:
    first, last = pick(rng, words.FIRST_NAMES), pick(rng, words.LAST_NAMES)
    mailbox = re.sub(r"[^a-z.]+", "", f"{first}.{last}".lower()) + str(below(rng, 100))
    return {
        "firstName": first,
        "lastName": last,
        "phoneNumber": f"+1 206 555 01{below(rng, 100):02d}",
        "email": f"{mailbox}@{domain}",
        "title": pick(rng, words.TITLES),
        "emailValidationStatus": pick(rng, ("Valid", "Unknown")),
        "phoneValidationStatus": pick(rng, ("Valid", "Unknown", "Invalid")),
        "contactPreference": {"locale": locale, "disableNotifications": pick(rng, (True, False, None))}
        if chance(rng, 0.9)
        else None,
    }


def _company_ids(rng: Random) -> list[dict[str, str]]:
    if chance(rng, 0.4):
        return []
    duns = {"profileType": "Duns", "id": f"{below(rng, 10**9):09d}"}
    return [duns, {"profileType": "External", "id": f"C-{below(rng, 10**5)}"}] if chance(rng, 0.4) else [duns]


def _tags(rng: Random) -> list[Any]:
    """Return tags in either shape: the connector's schema contradicts itself, so both occur."""
    chosen = some(rng, words.TAGS, 0, 2)
    return [{"tag": each} for each in chosen] if chance(rng, 0.5) else list(chosen)


def _text(rng: Random, when: int) -> str:
    """Write seven digits; one time in ten, where the last is a zero, six."""
    return ticks.render(when, 6) if when % 10 == 0 and chance(rng, 0.5) else ticks.render(when)


def _maybe_text(when: int | None) -> str | None:
    return None if when is None else ticks.render(when)
