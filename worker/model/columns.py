"""The rows of each table as lines, from a structure: written from `schema.py` by `make columns`.

`t` stands between values, and `n` for each that is null.
"""

from __future__ import annotations

from typing import Any

from worker.model.documented import empty
from worker.model.instant import floored
from worker.model.values import BOOLEANS, number

Arrays = tuple[Any, ...]

_REFERRALS_CONSENT = empty("referrals", ("consent",))
_REFERRALS_CUSTOMER_PROFILE = empty("referrals", ("customerProfile",))
_REFERRALS_CUSTOMER_PROFILE_ADDRESS = empty("referrals", ("customerProfile", "address"))
_REFERRALS_DETAILS = empty("referrals", ("details",))
_REFERRALS_DETAILS_REQUIREMENTS = empty("referrals", ("details", "requirements"))
_REFERRALS_DETAILS_REQUIREMENTS_ADDITIONAL_REQUIREMENTS = empty(
    "referrals", ("details", "requirements", "additionalRequirements")
)
_REFERRALS_DETAILS_REQUIREMENTS_ADDITIONAL_REQUIREMENTS_IOT = empty(
    "referrals", ("details", "requirements", "additionalRequirements", "iot")
)
_REFERRALS_INVITE_CONTEXT = empty("referrals", ("inviteContext",))
_REFERRALS_INVITE_CONTEXT_INVITED_BY = empty("referrals", ("inviteContext", "invitedBy"))
_REFERRALS_TRACKING_INFO = empty("referrals", ("trackingInfo",))


def referrals(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    o_consent = o.m_consent or _REFERRALS_CONSENT
    o_customer_profile = o.m_customerProfile or _REFERRALS_CUSTOMER_PROFILE
    o_customer_profile_address = o_customer_profile.m_address or _REFERRALS_CUSTOMER_PROFILE_ADDRESS
    o_details = o.m_details or _REFERRALS_DETAILS
    o_details_requirements = o_details.m_requirements or _REFERRALS_DETAILS_REQUIREMENTS
    o_details_requirements_additional_requirements = (
        o_details_requirements.m_additionalRequirements or _REFERRALS_DETAILS_REQUIREMENTS_ADDITIONAL_REQUIREMENTS
    )
    o_details_requirements_additional_requirements_iot = (
        o_details_requirements_additional_requirements.m_iot
        or _REFERRALS_DETAILS_REQUIREMENTS_ADDITIONAL_REQUIREMENTS_IOT
    )
    o_invite_context = o.m_inviteContext or _REFERRALS_INVITE_CONTEXT
    o_invite_context_invited_by = o_invite_context.m_invitedBy or _REFERRALS_INVITE_CONTEXT_INVITED_BY
    o_tracking_info = o.m_trackingInfo or _REFERRALS_TRACKING_INFO
    return (
        f"{n if (v := o.m_engagementId) is None else v}{t}"
        f"{n if (v := o.m_name) is None else v}{t}"
        f"{n if (v := o.m_organizationId) is None else v}{t}"
        f"{n if (v := o.m_organizationName) is None else v}{t}"
        f"{n if (v := o.m_externalReferenceId) is None else v}{t}"
        f"{n if (v := o.m_status) is None else v}{t}"
        f"{n if (v := o.m_substatus) is None else v}{t}"
        f"{n if (v := o.m_statusReason) is None else v}{t}"
        f"{n if (v := o.m_qualification) is None else v}{t}"
        f"{n if (v := o.m_type) is None else v}{t}"
        f"{n if (v := o.m_direction) is None else v}{t}"
        f"{n if (v := o.m_campaignId) is None else v}{t}"
        f"{n if (v := o.m_referralProgram) is None else v}{t}"
        f"{n if (v := o.m_salesStage) is None else v}{t}"
        f"{n if (v := o.m_quality) is None else v}{t}"
        f"{n if (v := o.m_mpnId) is None else v}{t}"
        f"{n if (v := o.m_dealSensitivity) is None else v}{t}"
        f"{n if (v := o.m_createdVia) is None else v}{t}"
        f"{n if (v := o.m_lastModifiedVia) is None else v}{t}"
        f"{n if (v := o.m_lastRunId) is None else v}{t}"
        f"{n if (v := o.m_callToAction) is None else v}{t}"
        f"{n if (v := o.m_referralSource) is None else v}{t}"
        f"{n if (v := o.m_offerId) is None else v}{t}"
        f"{n if (v := o.m_registrationStatus) is None else v}{t}"
        f"{n if (v := o.m_customerMarketplaceIntent) is None else v}{t}"
        f"{n if (v := o.m_consumptionIntent) is None else v}{t}"
        f"{n if (v := o.m_favorite) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o.m_isSpam) is None else BOOLEANS[v]}{t}"
        f"{n if not (v := o.m_createdDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o.m_updatedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o.m_expirationDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o.m_acceptedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o.m_closedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if (v := o_customer_profile.m_name) is None else v}{t}"
        f"{n if (v := o_customer_profile.m_size) is None else v}{t}"
        f"{n if (v := o_customer_profile.m_isMatchingComplete) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_customer_profile_address.m_addressLine1) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_addressLine2) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_city) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_state) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_postalCode) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_country) is None else v}{t}"
        f"{n if (v := o_customer_profile_address.m_region) is None else v}{t}"
        f"{n if (v := o_details.m_notes) is None else v}{t}"
        f"{n if (v := o_details.m_currency) is None else v}{t}"
        f"{n if (v := o_details.m_customerAction) is None else v}{t}"
        f"{n if (v := o_details.m_incentiveLevel) is None else v}{t}"
        f"{n if (v := o_details.m_dealValue) is None or (v := number(v)) is None else v}{t}"
        f"{n if (v := o_details.m_customerRequestedContact) is None else BOOLEANS[v]}{t}"
        f"{n if not (v := o_details.m_closingDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if (v := o_details_requirements_additional_requirements_iot.m_customerLicenseAgreementNumber) is None else v}{t}"
        f"{n if (v := o_details_requirements_additional_requirements_iot.m_deviceCategory) is None else v}{t}"
        f"{n if (v := o_details_requirements_additional_requirements_iot.m_siliconType) is None else v}{t}"
        f"{n if (v := o_details_requirements_additional_requirements_iot.m_azureCertifiedDevice) is None else v}{t}"
        f"{n if (v := o_details_requirements_additional_requirements_iot.m_attachServices) is None else v}{t}"
        f"{n if (v := o_consent.m_consentToToShareInfoWithOthers) is None and (v := o_consent.m_consentToShareInfoWithOthers) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_consent.m_consentToContact) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_consent.m_consentToShareReferralWithMicrosoftSellers) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_consent.m_consentToMicrosoftToContactSpecificPartners) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_invite_context.m_notes) is None else v}{t}"
        f"{n if (v := o_invite_context.m_invitedMpnId) is None else v}{t}"
        f"{n if (v := o_invite_context.m_assistanceRequestCode) is None else v}{t}"
        f"{n if (v := o_invite_context_invited_by.m_organizationId) is None else v}{t}"
        f"{n if (v := o_invite_context_invited_by.m_organizationName) is None else v}{t}"
        f"{n if (v := o_tracking_info.m_microsoftMsxId) is None else v}{t}"
        f"{n if (v := o_tracking_info.m_microsoftUSFedOpportunityId) is None else v}{t}"
        f"{n if (v := o_tracking_info.m_microsoftUSFedLeadId) is None else v}{t}"
        f"{n if (v := o_tracking_info.m_migratedPSCDealId) is None else v}{t}"
        f"{n if (v := o_tracking_info.m_migratedPSCPartnerDealId) is None else v}"
    )


def referrals_arrays(o: Any) -> Arrays:
    """Return the arrays."""
    o_customer_profile = o.m_customerProfile or _REFERRALS_CUSTOMER_PROFILE
    o_details = o.m_details or _REFERRALS_DETAILS
    o_details_requirements = o_details.m_requirements or _REFERRALS_DETAILS_REQUIREMENTS
    o_details_requirements_additional_requirements = (
        o_details_requirements.m_additionalRequirements or _REFERRALS_DETAILS_REQUIREMENTS_ADDITIONAL_REQUIREMENTS
    )
    return (
        o.m_team,
        o_customer_profile.m_team,
        o_customer_profile.m_ids,
        o_details_requirements.m_industries,
        o_details_requirements.m_products,
        o_details_requirements.m_services,
        o_details_requirements.m_offers,
        o_details_requirements.m_salesPlays,
        o_details_requirements_additional_requirements.m_attributes,
        o_details_requirements.m_solutions,
        o.m_target,
        o.m_registrations,
        o.m_tags,
    )


_REFERRAL_TEAM_MEMBERS_CONTACT_PREFERENCE = empty("referral_team_members", ("contactPreference",))


def referral_team_members(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    o_contact_preference = o.m_contactPreference or _REFERRAL_TEAM_MEMBERS_CONTACT_PREFERENCE
    return (
        f"{n if (v := o.m_firstName) is None else v}{t}"
        f"{n if (v := o.m_lastName) is None else v}{t}"
        f"{n if (v := o.m_email) is None else v}{t}"
        f"{n if (v := o.m_phoneNumber) is None else v}{t}"
        f"{n if (v := o.m_title) is None else v}{t}"
        f"{n if (v := o.m_emailValidationStatus) is None else v}{t}"
        f"{n if (v := o.m_phoneValidationStatus) is None else v}{t}"
        f"{n if (v := o_contact_preference.m_locale) is None else v}{t}"
        f"{n if (v := o_contact_preference.m_disableNotifications) is None else BOOLEANS[v]}"
    )


_REFERRAL_CUSTOMER_CONTACTS_CONTACT_PREFERENCE = empty("referral_customer_contacts", ("contactPreference",))


def referral_customer_contacts(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    o_contact_preference = o.m_contactPreference or _REFERRAL_CUSTOMER_CONTACTS_CONTACT_PREFERENCE
    return (
        f"{n if (v := o.m_firstName) is None else v}{t}"
        f"{n if (v := o.m_lastName) is None else v}{t}"
        f"{n if (v := o.m_email) is None else v}{t}"
        f"{n if (v := o.m_phoneNumber) is None else v}{t}"
        f"{n if (v := o.m_title) is None else v}{t}"
        f"{n if (v := o.m_emailValidationStatus) is None else v}{t}"
        f"{n if (v := o.m_phoneValidationStatus) is None else v}{t}"
        f"{n if (v := o_contact_preference.m_locale) is None else v}{t}"
        f"{n if (v := o_contact_preference.m_disableNotifications) is None else BOOLEANS[v]}"
    )


def referral_customer_ids(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    return f"{n if (v := o.m_profileType) is None else v}{t}{n if (v := o.m_id) is None else v}"


def referral_requirements(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    return (
        f"{n if (v := o.m_id) is None else v}{t}"
        f"{n if (v := o.m_name) is None else v}{t}"
        f"{n if (v := o.m_type) is None else v}"
    )


def referral_solutions(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    return (
        f"{n if (v := o.m_id) is None else v}{t}"
        f"{n if (v := o.m_name) is None else v}{t}"
        f"{n if (v := o.m_currency) is None else v}{t}"
        f"{n if (v := o.m_publisherName) is None else v}{t}"
        f"{n if (v := o.m_solutionType) is None else v}{t}"
        f"{n if (v := o.m_type) is None else v}{t}"
        f"{n if (v := o.m_price) is None or (v := number(v)) is None else v}{t}"
        f"{n if (v := o.m_quantity) is None or (v := number(v)) is None else v}{t}"
        f"{n if not (v := o.m_closingDateTime) or (v := floored(v)) is None else v}"
    )


def referral_targets(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    return f"{n if (v := o.m_type) is None else v}{t}{n if (v := o.m_id) is None else v}"


_REFERRAL_REGISTRATIONS_CONTRACT = empty("referral_registrations", ("contract",))
_REFERRAL_REGISTRATIONS_STATUS_HISTORY = empty("referral_registrations", ("statusHistory",))


def referral_registrations(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    o_contract = o.m_contract or _REFERRAL_REGISTRATIONS_CONTRACT
    o_status_history = o.m_statusHistory or _REFERRAL_REGISTRATIONS_STATUS_HISTORY
    return (
        f"{n if (v := o.m_id) is None else v}{t}"
        f"{n if (v := o.m_type) is None else v}{t}"
        f"{n if not (v := o.m_registrationDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if (v := o_contract.m_currency) is None else v}{t}"
        f"{n if (v := o_contract.m_term) is None else v}{t}"
        f"{n if (v := o_contract.m_value) is None or (v := number(v)) is None else v}{t}"
        f"{n if not (v := o_contract.m_startDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_contract.m_endDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_contract.m_signDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_reviewPendingDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_actionRequiredDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_passedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_failedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_approvedDateTime) or (v := floored(v)) is None else v}{t}"
        f"{n if not (v := o_status_history.m_resubmissionDateTime) or (v := floored(v)) is None else v}"
    )


def referral_registrations_arrays(o: Any) -> Arrays:
    """Return the arrays."""
    return (o.m_solutionDetails,)


def referral_tags(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    return f"{n if (v := o.m_tag) is None else v}"


_REFERRAL_REGISTRATION_SOLUTIONS_MARKETPLACE_TRANSACTION_DETAILS = empty(
    "referral_registration_solutions", ("marketplaceTransactionDetails",)
)


def referral_registration_solutions(o: Any, t: str, n: str) -> str:
    """Return the line of a row."""
    o_marketplace_transaction_details = (
        o.m_marketplaceTransactionDetails or _REFERRAL_REGISTRATION_SOLUTIONS_MARKETPLACE_TRANSACTION_DETAILS
    )
    return (
        f"{n if (v := o.m_id) is None else v}{t}"
        f"{n if (v := o.m_name) is None else v}{t}"
        f"{n if (v := o.m_currency) is None else v}{t}"
        f"{n if (v := o.m_primaryDeploymentOn) is None else v}{t}"
        f"{n if (v := o.m_pricingModel) is None else v}{t}"
        f"{n if (v := o.m_value) is None or (v := number(v)) is None else v}{t}"
        f"{n if (v := o.m_isDeployedOnAzure) is None else BOOLEANS[v]}{t}"
        f"{n if (v := o_marketplace_transaction_details.m_isMarketplaceTransacted) is None else BOOLEANS[v]}{t}"
        f"{n if not (v := o_marketplace_transaction_details.m_marketplaceTransactionDateTime) or (v := floored(v)) is None else v}"
    )
