"""The tables as data: each column once, with the path of the API member that it holds.

The fields are those of partner-center-api.md section 2. Mapping (`mapping.py`) and SQL (`store/sql.py`) are
derived from these declarations; a new field is one line here and one migration, where its comment for analysts is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a value is checked and which PostgreSQL type holds it."""

    TEXT = "text"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamptz"


@dataclass(frozen=True, slots=True)
class Column:
    """A column and the members below its object that may hold it, best first (the real doubled `ToTo`, or not)."""

    name: str
    members: tuple[str, ...]
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that share a parent object; `path` leads to it from the record, `()` being the record itself."""

    path: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """A table with one row for each element of an array.

    `arrays` are (tag, path) pairs: a tag, when not empty, goes into the column `kind`. `groups` are relative to the
    element; a bare string or number as element stands for an object whose member `scalar` it is. Where the documents
    also show one object in place of the array, its members are elements when `keyed_by` names where their names go, and
    else it is the only element. `nested` are tables of arrays inside each element.
    """

    table: str
    arrays: tuple[tuple[str, tuple[str, ...]], ...]
    groups: tuple[Group, ...]
    scalar: str = "id"
    keyed_by: str = ""
    nested: tuple[Child, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that hold members of an element, without the keys."""
        return tuple(column for group in self.groups for column in group.columns)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify the elements of one referral."""
        tagged = ("kind",) if len(self.arrays) > 1 else ()
        return ("position", *tagged, *(("parent_position",) if self in NESTED else ()))


def _texts(**members: str) -> tuple[Column, ...]:
    return tuple(Column(name, (member,)) for name, member in members.items())


def _of(kind: Kind, **members: str) -> tuple[Column, ...]:
    return tuple(Column(name, (member,), kind) for name, member in members.items())


REFERRAL: tuple[Group, ...] = (
    Group(
        (),
        (
            *_texts(
                engagement_id="engagementId",
                name="name",
                organization_id="organizationId",
                organization_name="organizationName",
                external_reference_id="externalReferenceId",
                status="status",
                substatus="substatus",
                status_reason="statusReason",
                qualification="qualification",
                type="type",
                direction="direction",
                campaign_id="campaignId",
                referral_program="referralProgram",
                sales_stage="salesStage",
                quality="quality",
                mpn_id="mpnId",
                deal_sensitivity="dealSensitivity",
                created_via="createdVia",
                last_modified_via="lastModifiedVia",
                last_run_id="lastRunId",
                call_to_action="callToAction",
                referral_source="referralSource",
                offer_id="offerId",
                registration_status="registrationStatus",
                customer_marketplace_intent="customerMarketplaceIntent",
                consumption_intent="consumptionIntent",
            ),
            *_of(Kind.BOOLEAN, favorite="favorite", is_spam="isSpam"),
            *_of(
                Kind.TIMESTAMP,
                created_at="createdDateTime",
                updated_at="updatedDateTime",
                expires_at="expirationDateTime",
                accepted_at="acceptedDateTime",
                closed_at="closedDateTime",
            ),
        ),
    ),
    Group(
        ("customerProfile",),
        (
            *_texts(customer_name="name", customer_size="size"),
            *_of(Kind.BOOLEAN, customer_is_matching_complete="isMatchingComplete"),
        ),
    ),
    Group(
        ("customerProfile", "address"),
        _texts(
            customer_address_line1="addressLine1",
            customer_address_line2="addressLine2",
            customer_city="city",
            customer_state="state",
            customer_postal_code="postalCode",
            customer_country="country",
            customer_region="region",
        ),
    ),
    Group(
        ("details",),
        (
            *_texts(
                notes="notes", currency="currency", customer_action="customerAction", incentive_level="incentiveLevel"
            ),
            *_of(Kind.NUMERIC, deal_value="dealValue"),
            *_of(Kind.BOOLEAN, customer_requested_contact="customerRequestedContact"),
            *_of(Kind.TIMESTAMP, closing_at="closingDateTime"),
        ),
    ),
    Group(
        ("details", "requirements", "additionalRequirements", "iot"),
        _texts(
            iot_customer_license_agreement_number="customerLicenseAgreementNumber",
            iot_device_category="deviceCategory",
            iot_silicon_type="siliconType",
            iot_azure_certified_device="azureCertifiedDevice",
            iot_attach_services="attachServices",
        ),
    ),
    Group(
        ("consent",),
        (
            Column(
                "consent_to_share_info_with_others",
                ("consentToToShareInfoWithOthers", "consentToShareInfoWithOthers"),
                Kind.BOOLEAN,
            ),
            *_of(
                Kind.BOOLEAN,
                consent_to_contact="consentToContact",
                consent_to_share_with_microsoft_sellers="consentToShareReferralWithMicrosoftSellers",
                consent_to_microsoft_contacting_partners="consentToMicrosoftToContactSpecificPartners",
            ),
        ),
    ),
    Group(
        ("inviteContext",),
        _texts(
            invite_notes="notes", invited_mpn_id="invitedMpnId", invite_assistance_request_code="assistanceRequestCode"
        ),
    ),
    Group(
        ("inviteContext", "invitedBy"),
        _texts(invited_by_organization_id="organizationId", invited_by_organization_name="organizationName"),
    ),
    Group(
        ("trackingInfo",),
        _texts(
            microsoft_msx_id="microsoftMsxId",
            microsoft_us_fed_opportunity_id="microsoftUSFedOpportunityId",
            microsoft_us_fed_lead_id="microsoftUSFedLeadId",
            migrated_psc_deal_id="migratedPSCDealId",
            migrated_psc_partner_deal_id="migratedPSCPartnerDealId",
        ),
    ),
)

_MEMBER = (
    Group(
        (),
        _texts(
            first_name="firstName",
            last_name="lastName",
            email="email",
            phone_number="phoneNumber",
            title="title",
            email_validation_status="emailValidationStatus",
            phone_validation_status="phoneValidationStatus",
        ),
    ),
    Group(
        ("contactPreference",),
        (*_texts(locale="locale"), *_of(Kind.BOOLEAN, disable_notifications="disableNotifications")),
    ),
)
_REQUIREMENTS = ("details", "requirements")

CHILDREN: tuple[Child, ...] = (
    Child("referral_team_members", (("", ("team",)),), _MEMBER, scalar="email"),
    Child("referral_customer_contacts", (("", ("customerProfile", "team")),), _MEMBER, scalar="email"),
    Child(
        "referral_customer_ids",
        (("", ("customerProfile", "ids")),),
        (Group((), _texts(profile_type="profileType", external_id="id")),),
        keyed_by="profileType",
    ),
    Child(
        "referral_requirements",
        (
            ("industry", (*_REQUIREMENTS, "industries")),
            ("product", (*_REQUIREMENTS, "products")),
            ("service", (*_REQUIREMENTS, "services")),
            ("offer", (*_REQUIREMENTS, "offers")),
            ("sales_play", (*_REQUIREMENTS, "salesPlays")),
            ("attribute", (*_REQUIREMENTS, "additionalRequirements", "attributes")),
        ),
        (Group((), _texts(item_id="id", item_name="name", item_type="type")),),
    ),
    Child(
        "referral_solutions",
        (("", (*_REQUIREMENTS, "solutions")),),
        (
            Group(
                (),
                (
                    *_texts(
                        solution_id="id",
                        name="name",
                        currency="currency",
                        publisher_name="publisherName",
                        solution_type="solutionType",
                        type="type",
                    ),
                    *_of(Kind.NUMERIC, price="price", quantity="quantity"),
                    *_of(Kind.TIMESTAMP, closing_at="closingDateTime"),
                ),
            ),
        ),
    ),
    Child("referral_targets", (("", ("target",)),), (Group((), _texts(target_type="type", target_id="id")),)),
    Child(
        "referral_registrations",
        (("", ("registrations",)),),
        (
            Group(
                (),
                (
                    *_texts(registration_id="id", registration_type="type"),
                    *_of(Kind.TIMESTAMP, registered_at="registrationDateTime"),
                ),
            ),
            Group(
                ("contract",),
                (
                    *_texts(contract_currency="currency", contract_term="term"),
                    *_of(Kind.NUMERIC, contract_value="value"),
                    *_of(
                        Kind.TIMESTAMP,
                        contract_start_at="startDateTime",
                        contract_end_at="endDateTime",
                        contract_sign_at="signDateTime",
                    ),
                ),
            ),
            Group(
                ("statusHistory",),
                _of(
                    Kind.TIMESTAMP,
                    review_pending_at="reviewPendingDateTime",
                    action_required_at="actionRequiredDateTime",
                    passed_at="passedDateTime",
                    failed_at="failedDateTime",
                    approved_at="approvedDateTime",
                    resubmission_at="resubmissionDateTime",
                ),
            ),
        ),
        nested=(
            Child(
                "referral_registration_solutions",
                (("", ("solutionDetails",)),),
                (
                    Group(
                        (),
                        (
                            *_texts(
                                solution_id="id",
                                name="name",
                                currency="currency",
                                primary_deployment_on="primaryDeploymentOn",
                                pricing_model="pricingModel",
                            ),
                            *_of(Kind.NUMERIC, value="value"),
                            *_of(Kind.BOOLEAN, is_deployed_on_azure="isDeployedOnAzure"),
                        ),
                    ),
                    Group(
                        ("marketplaceTransactionDetails",),
                        (
                            *_of(Kind.BOOLEAN, is_marketplace_transacted="isMarketplaceTransacted"),
                            *_of(Kind.TIMESTAMP, marketplace_transaction_at="marketplaceTransactionDateTime"),
                        ),
                    ),
                ),
            ),
        ),
    ),
    Child("referral_tags", (("", ("tags",)),), (Group((), _texts(tag="tag")),), scalar="tag"),
)

NESTED: tuple[Child, ...] = tuple(nested for child in CHILDREN for nested in child.nested)

REFERRAL_COLUMNS: tuple[Column, ...] = tuple(column for group in REFERRAL for column in group.columns)

VERSION_COLUMNS: tuple[str, ...] = (
    "name",
    "status",
    "substatus",
    "qualification",
    "type",
    "direction",
    "sales_stage",
    "deal_value",
    "currency",
    "closing_at",
    "registration_status",
    "mpn_id",
    "is_spam",
    "invited_by_organization_id",
)
"""The columns of `partner_center.referrals` that each version carries too, for history without opening payloads."""

KNOWN_UNSTORED: frozenset[str] = frozenset({"id", "eTag", "links", "exception", "businessProfileId"})
"""Top-level members that are documented and need no column of their own: the payload has them."""

ANNOTATIONS: frozenset[str] = frozenset({"@odata.context", "@odata.etag", "@odata.id", "@odata.type"})
"""What the protocol lets a server write beside every record; others are let by as well, at more cost."""

_NOT_CONTENT = frozenset({"eTag", "links"})


def is_content(member: str) -> bool:
    """Return whether a referral has changed when this member of the record itself differs between two answers."""
    return member not in _NOT_CONTENT and not member.startswith("@odata.")
