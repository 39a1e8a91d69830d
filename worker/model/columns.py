"""The values of each table's columns, from a structure: written from `schema.py` by `make columns`."""

from __future__ import annotations

from typing import Any

from worker.model.documented import empty
from worker.model.instant import floored
from worker.model.values import BOOLEANS, Values, number

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


def referrals(o: Any) -> Values:
    """Return the values of the columns."""
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
        o.m_engagementId,
        o.m_name,
        o.m_organizationId,
        o.m_organizationName,
        o.m_externalReferenceId,
        o.m_status,
        o.m_substatus,
        o.m_statusReason,
        o.m_qualification,
        o.m_type,
        o.m_direction,
        o.m_campaignId,
        o.m_referralProgram,
        o.m_salesStage,
        o.m_quality,
        o.m_mpnId,
        o.m_dealSensitivity,
        o.m_createdVia,
        o.m_lastModifiedVia,
        o.m_lastRunId,
        o.m_callToAction,
        o.m_referralSource,
        o.m_offerId,
        o.m_registrationStatus,
        o.m_customerMarketplaceIntent,
        o.m_consumptionIntent,
        BOOLEANS[o.m_favorite],
        BOOLEANS[o.m_isSpam],
        floored(v) if (v := o.m_createdDateTime) else None,
        floored(v) if (v := o.m_updatedDateTime) else None,
        floored(v) if (v := o.m_expirationDateTime) else None,
        floored(v) if (v := o.m_acceptedDateTime) else None,
        floored(v) if (v := o.m_closedDateTime) else None,
        o_customer_profile.m_name,
        o_customer_profile.m_size,
        BOOLEANS[o_customer_profile.m_isMatchingComplete],
        o_customer_profile_address.m_addressLine1,
        o_customer_profile_address.m_addressLine2,
        o_customer_profile_address.m_city,
        o_customer_profile_address.m_state,
        o_customer_profile_address.m_postalCode,
        o_customer_profile_address.m_country,
        o_customer_profile_address.m_region,
        o_details.m_notes,
        o_details.m_currency,
        o_details.m_customerAction,
        o_details.m_incentiveLevel,
        None if (v := o_details.m_dealValue) is None else number(v),
        BOOLEANS[o_details.m_customerRequestedContact],
        floored(v) if (v := o_details.m_closingDateTime) else None,
        o_details_requirements_additional_requirements_iot.m_customerLicenseAgreementNumber,
        o_details_requirements_additional_requirements_iot.m_deviceCategory,
        o_details_requirements_additional_requirements_iot.m_siliconType,
        o_details_requirements_additional_requirements_iot.m_azureCertifiedDevice,
        o_details_requirements_additional_requirements_iot.m_attachServices,
        BOOLEANS[o_consent.m_consentToToShareInfoWithOthers] or BOOLEANS[o_consent.m_consentToShareInfoWithOthers],
        BOOLEANS[o_consent.m_consentToContact],
        BOOLEANS[o_consent.m_consentToShareReferralWithMicrosoftSellers],
        BOOLEANS[o_consent.m_consentToMicrosoftToContactSpecificPartners],
        o_invite_context.m_notes,
        o_invite_context.m_invitedMpnId,
        o_invite_context.m_assistanceRequestCode,
        o_invite_context_invited_by.m_organizationId,
        o_invite_context_invited_by.m_organizationName,
        o_tracking_info.m_microsoftMsxId,
        o_tracking_info.m_microsoftUSFedOpportunityId,
        o_tracking_info.m_microsoftUSFedLeadId,
        o_tracking_info.m_migratedPSCDealId,
        o_tracking_info.m_migratedPSCPartnerDealId,
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


def referral_team_members(o: Any) -> Values:
    """Return the values of the columns."""
    o_contact_preference = o.m_contactPreference or _REFERRAL_TEAM_MEMBERS_CONTACT_PREFERENCE
    return (
        o.m_firstName,
        o.m_lastName,
        o.m_email,
        o.m_phoneNumber,
        o.m_title,
        o.m_emailValidationStatus,
        o.m_phoneValidationStatus,
        o_contact_preference.m_locale,
        BOOLEANS[o_contact_preference.m_disableNotifications],
    )


_REFERRAL_CUSTOMER_CONTACTS_CONTACT_PREFERENCE = empty("referral_customer_contacts", ("contactPreference",))


def referral_customer_contacts(o: Any) -> Values:
    """Return the values of the columns."""
    o_contact_preference = o.m_contactPreference or _REFERRAL_CUSTOMER_CONTACTS_CONTACT_PREFERENCE
    return (
        o.m_firstName,
        o.m_lastName,
        o.m_email,
        o.m_phoneNumber,
        o.m_title,
        o.m_emailValidationStatus,
        o.m_phoneValidationStatus,
        o_contact_preference.m_locale,
        BOOLEANS[o_contact_preference.m_disableNotifications],
    )


def referral_customer_ids(o: Any) -> Values:
    """Return the values of the columns."""
    return (
        o.m_profileType,
        o.m_id,
    )


def referral_requirements(o: Any) -> Values:
    """Return the values of the columns."""
    return (
        o.m_id,
        o.m_name,
        o.m_type,
    )


def referral_solutions(o: Any) -> Values:
    """Return the values of the columns."""
    return (
        o.m_id,
        o.m_name,
        o.m_currency,
        o.m_publisherName,
        o.m_solutionType,
        o.m_type,
        None if (v := o.m_price) is None else number(v),
        None if (v := o.m_quantity) is None else number(v),
        floored(v) if (v := o.m_closingDateTime) else None,
    )


def referral_targets(o: Any) -> Values:
    """Return the values of the columns."""
    return (
        o.m_type,
        o.m_id,
    )


_REFERRAL_REGISTRATIONS_CONTRACT = empty("referral_registrations", ("contract",))
_REFERRAL_REGISTRATIONS_STATUS_HISTORY = empty("referral_registrations", ("statusHistory",))


def referral_registrations(o: Any) -> Values:
    """Return the values of the columns."""
    o_contract = o.m_contract or _REFERRAL_REGISTRATIONS_CONTRACT
    o_status_history = o.m_statusHistory or _REFERRAL_REGISTRATIONS_STATUS_HISTORY
    return (
        o.m_id,
        o.m_type,
        floored(v) if (v := o.m_registrationDateTime) else None,
        o_contract.m_currency,
        o_contract.m_term,
        None if (v := o_contract.m_value) is None else number(v),
        floored(v) if (v := o_contract.m_startDateTime) else None,
        floored(v) if (v := o_contract.m_endDateTime) else None,
        floored(v) if (v := o_contract.m_signDateTime) else None,
        floored(v) if (v := o_status_history.m_reviewPendingDateTime) else None,
        floored(v) if (v := o_status_history.m_actionRequiredDateTime) else None,
        floored(v) if (v := o_status_history.m_passedDateTime) else None,
        floored(v) if (v := o_status_history.m_failedDateTime) else None,
        floored(v) if (v := o_status_history.m_approvedDateTime) else None,
        floored(v) if (v := o_status_history.m_resubmissionDateTime) else None,
    )


def referral_registrations_arrays(o: Any) -> Arrays:
    """Return the arrays."""
    return (o.m_solutionDetails,)


def referral_tags(o: Any) -> Values:
    """Return the values of the columns."""
    return (o.m_tag,)


_REFERRAL_REGISTRATION_SOLUTIONS_MARKETPLACE_TRANSACTION_DETAILS = empty(
    "referral_registration_solutions", ("marketplaceTransactionDetails",)
)


def referral_registration_solutions(o: Any) -> Values:
    """Return the values of the columns."""
    o_marketplace_transaction_details = (
        o.m_marketplaceTransactionDetails or _REFERRAL_REGISTRATION_SOLUTIONS_MARKETPLACE_TRANSACTION_DETAILS
    )
    return (
        o.m_id,
        o.m_name,
        o.m_currency,
        o.m_primaryDeploymentOn,
        o.m_pricingModel,
        None if (v := o.m_value) is None else number(v),
        BOOLEANS[o.m_isDeployedOnAzure],
        BOOLEANS[o_marketplace_transaction_details.m_isMarketplaceTransacted],
        floored(v) if (v := o_marketplace_transaction_details.m_marketplaceTransactionDateTime) else None,
    )
