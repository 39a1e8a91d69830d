-- The copy: what the source shows, one row for each referral, its parts, and every change since the first sight.
CREATE SCHEMA partner_center;
COMMENT ON SCHEMA partner_center IS 'A faithful copy of Partner Center referrals. Dashboards read schema bi, which stays stable.';

CREATE TABLE partner_center.referrals (
    account text NOT NULL,
    id text NOT NULL,
    engagement_id text,
    name text,
    organization_id text,
    organization_name text,
    external_reference_id text,
    status text,
    substatus text,
    status_reason text,
    qualification text,
    type text,
    direction text,
    campaign_id text,
    referral_program text,
    sales_stage text,
    quality text,
    mpn_id text,
    deal_sensitivity text,
    created_via text,
    last_modified_via text,
    last_run_id text,
    call_to_action text,
    referral_source text,
    offer_id text,
    registration_status text,
    customer_marketplace_intent text,
    consumption_intent text,
    favorite boolean,
    is_spam boolean,
    created_at timestamptz,
    updated_at timestamptz,
    expires_at timestamptz,
    accepted_at timestamptz,
    closed_at timestamptz,
    customer_name text,
    customer_size text,
    customer_is_matching_complete boolean,
    customer_address_line1 text,
    customer_address_line2 text,
    customer_city text,
    customer_state text,
    customer_postal_code text,
    customer_country text,
    customer_region text,
    notes text,
    currency text,
    customer_action text,
    incentive_level text,
    deal_value numeric,
    customer_requested_contact boolean,
    closing_at timestamptz,
    iot_customer_license_agreement_number text,
    iot_device_category text,
    iot_silicon_type text,
    iot_azure_certified_device text,
    iot_attach_services text,
    consent_to_share_info_with_others boolean,
    consent_to_contact boolean,
    consent_to_share_with_microsoft_sellers boolean,
    consent_to_microsoft_contacting_partners boolean,
    invite_notes text,
    invited_mpn_id text,
    invite_assistance_request_code text,
    invited_by_organization_id text,
    invited_by_organization_name text,
    microsoft_msx_id text,
    microsoft_us_fed_opportunity_id text,
    microsoft_us_fed_lead_id text,
    migrated_psc_deal_id text,
    migrated_psc_partner_deal_id text,
    version bigint NOT NULL,
    etag text,
    content_hash uuid NOT NULL,
    payload jsonb NOT NULL,
    repaired boolean NOT NULL DEFAULT false,
    observed_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (account, id)
);
COMMENT ON TABLE partner_center.referrals IS 'One row for each referral of an account, as the source last showed it.';
COMMENT ON COLUMN partner_center.referrals.account IS 'Account of the configuration that the referral was read with.';
COMMENT ON COLUMN partner_center.referrals.id IS 'Referral id as the source gives it. API: id.';
COMMENT ON COLUMN partner_center.referrals.version IS 'updatedDateTime in ticks of 100 ns since year 1, the source''s own precision; 0 where it gave none.';
COMMENT ON COLUMN partner_center.referrals.etag IS 'Entity tag, surely current only after a read by id. API: eTag.';
COMMENT ON COLUMN partner_center.referrals.content_hash IS 'Digest of the payload without eTag, links and @odata members.';
COMMENT ON COLUMN partner_center.referrals.payload IS 'The record as received.';
COMMENT ON COLUMN partner_center.referrals.repaired IS 'Whether characters that PostgreSQL cannot hold were replaced by U+FFFD.';
COMMENT ON COLUMN partner_center.referrals.observed_at IS 'Database time when the request began that gave the stored answer.';
COMMENT ON COLUMN partner_center.referrals.changed_at IS 'Database time when the content last changed here.';
COMMENT ON COLUMN partner_center.referrals.deleted_at IS 'Database time when a complete listing no longer had it; null while the source lists it.';
COMMENT ON COLUMN partner_center.referrals.engagement_id IS 'Groups all copies of one deal; each party has a referral of its own under it. API: engagementId';
COMMENT ON COLUMN partner_center.referrals.name IS 'Name of the deal. API: name';
COMMENT ON COLUMN partner_center.referrals.organization_id IS 'Organisation that owns this copy. API: organizationId';
COMMENT ON COLUMN partner_center.referrals.organization_name IS 'Its name; may hold HTML entities as received. API: organizationName';
COMMENT ON COLUMN partner_center.referrals.external_reference_id IS 'The partner''s own CRM id. API: externalReferenceId';
COMMENT ON COLUMN partner_center.referrals.status IS 'New, Active or Closed; open text, other values may come. API: status';
COMMENT ON COLUMN partner_center.referrals.substatus IS 'Pending, Received, Accepted, Won, Lost, Declined, Expired, Error; open text. API: substatus';
COMMENT ON COLUMN partner_center.referrals.status_reason IS 'Why it was lost or declined. API: statusReason';
COMMENT ON COLUMN partner_center.referrals.qualification IS 'None, Direct, MarketingQualified, SalesQualified. API: qualification';
COMMENT ON COLUMN partner_center.referrals.type IS 'Shared (several parties) or Independent (one partner). API: type';
COMMENT ON COLUMN partner_center.referrals.direction IS 'Incoming (sent to you) or Outgoing (made by you); null where the source did not say. API: direction';
COMMENT ON COLUMN partner_center.referrals.campaign_id IS 'Marketing campaign. API: campaignId';
COMMENT ON COLUMN partner_center.referrals.referral_program IS 'Program name. API: referralProgram';
COMMENT ON COLUMN partner_center.referrals.sales_stage IS 'Sales stage: a name or a percentage as text. API: salesStage';
COMMENT ON COLUMN partner_center.referrals.quality IS 'Lead quality: Unknown, High, Medium, Low. API: quality';
COMMENT ON COLUMN partner_center.referrals.mpn_id IS 'Partner location (PartnerID) that the deal belongs to; routing can change it. API: mpnId';
COMMENT ON COLUMN partner_center.referrals.deal_sensitivity IS 'Undocumented by the source; None is usual. API: dealSensitivity';
COMMENT ON COLUMN partner_center.referrals.created_via IS 'Channel that created it. API: createdVia';
COMMENT ON COLUMN partner_center.referrals.last_modified_via IS 'Last modifier. API: lastModifiedVia';
COMMENT ON COLUMN partner_center.referrals.last_run_id IS 'Last run as the source names it. API: lastRunId';
COMMENT ON COLUMN partner_center.referrals.call_to_action IS 'What a lead asked for. API: callToAction';
COMMENT ON COLUMN partner_center.referrals.referral_source IS 'Where a lead came from. API: referralSource';
COMMENT ON COLUMN partner_center.referrals.offer_id IS 'Marketplace offer. API: offerId';
COMMENT ON COLUMN partner_center.referrals.registration_status IS 'Deal registration: None, ReviewPending, ActionRequired, Passed, Failed, Approved, Closed. API: registrationStatus';
COMMENT ON COLUMN partner_center.referrals.customer_marketplace_intent IS 'Whether the customer means to buy on the marketplace; values as received. API: customerMarketplaceIntent';
COMMENT ON COLUMN partner_center.referrals.consumption_intent IS 'Undocumented by the source; kept as received. API: consumptionIntent';
COMMENT ON COLUMN partner_center.referrals.favorite IS 'Starred in the source''s user interface. API: favorite';
COMMENT ON COLUMN partner_center.referrals.is_spam IS 'The source judged the lead to be spam. API: isSpam';
COMMENT ON COLUMN partner_center.referrals.created_at IS 'When the referral was created (UTC). API: createdDateTime';
COMMENT ON COLUMN partner_center.referrals.updated_at IS 'When the source last changed it (UTC, floored to the microsecond; exact in version). API: updatedDateTime';
COMMENT ON COLUMN partner_center.referrals.expires_at IS 'When it will expire. API: expirationDateTime';
COMMENT ON COLUMN partner_center.referrals.accepted_at IS 'When it was accepted; for outgoing deals its creation, or slightly before. API: acceptedDateTime';
COMMENT ON COLUMN partner_center.referrals.closed_at IS 'When it was closed. API: closedDateTime';
COMMENT ON COLUMN partner_center.referrals.customer_name IS 'Customer''s company; may hold HTML entities as received. API: customerProfile.name';
COMMENT ON COLUMN partner_center.referrals.customer_size IS 'Customer''s size class. API: customerProfile.size';
COMMENT ON COLUMN partner_center.referrals.customer_is_matching_complete IS 'Undocumented by the source. API: customerProfile.isMatchingComplete';
COMMENT ON COLUMN partner_center.referrals.customer_address_line1 IS 'Customer''s street address. API: customerProfile.address.addressLine1';
COMMENT ON COLUMN partner_center.referrals.customer_address_line2 IS 'Customer''s street address, second line. API: customerProfile.address.addressLine2';
COMMENT ON COLUMN partner_center.referrals.customer_city IS 'Customer''s city. API: customerProfile.address.city';
COMMENT ON COLUMN partner_center.referrals.customer_state IS 'Customer''s state or province. API: customerProfile.address.state';
COMMENT ON COLUMN partner_center.referrals.customer_postal_code IS 'Customer''s postal code. API: customerProfile.address.postalCode';
COMMENT ON COLUMN partner_center.referrals.customer_country IS 'Customer''s country, usually ISO 3166 alpha-2. API: customerProfile.address.country';
COMMENT ON COLUMN partner_center.referrals.customer_region IS 'Customer''s region. API: customerProfile.address.region';
COMMENT ON COLUMN partner_center.referrals.notes IS 'Free text about the deal; personal data. API: details.notes';
COMMENT ON COLUMN partner_center.referrals.currency IS 'ISO 4217 currency of deal_value. API: details.currency';
COMMENT ON COLUMN partner_center.referrals.customer_action IS 'What the customer did. API: details.customerAction';
COMMENT ON COLUMN partner_center.referrals.incentive_level IS 'Undocumented by the source. API: details.incentiveLevel';
COMMENT ON COLUMN partner_center.referrals.deal_value IS 'Deal value in currency, exact. API: details.dealValue';
COMMENT ON COLUMN partner_center.referrals.customer_requested_contact IS 'Whether the customer asked to be contacted. API: details.customerRequestedContact';
COMMENT ON COLUMN partner_center.referrals.closing_at IS 'Estimated close; local midnight of the customer, so its UTC date can be off by one. API: details.closingDateTime';
COMMENT ON COLUMN partner_center.referrals.iot_customer_license_agreement_number IS 'IoT: licence agreement number. API: details.requirements.additionalRequirements.iot.customerLicenseAgreementNumber';
COMMENT ON COLUMN partner_center.referrals.iot_device_category IS 'IoT: device category. API: details.requirements.additionalRequirements.iot.deviceCategory';
COMMENT ON COLUMN partner_center.referrals.iot_silicon_type IS 'IoT: silicon type. API: details.requirements.additionalRequirements.iot.siliconType';
COMMENT ON COLUMN partner_center.referrals.iot_azure_certified_device IS 'IoT: Azure certified device. API: details.requirements.additionalRequirements.iot.azureCertifiedDevice';
COMMENT ON COLUMN partner_center.referrals.iot_attach_services IS 'IoT: attached services. API: details.requirements.additionalRequirements.iot.attachServices';
COMMENT ON COLUMN partner_center.referrals.consent_to_share_info_with_others IS 'Consent to share information with others. API: consent.consentToToShareInfoWithOthers';
COMMENT ON COLUMN partner_center.referrals.consent_to_contact IS 'Consent to be contacted. API: consent.consentToContact';
COMMENT ON COLUMN partner_center.referrals.consent_to_share_with_microsoft_sellers IS 'Consent to share with Microsoft sellers; false without asking for help is a private deal. API: consent.consentToShareReferralWithMicrosoftSellers';
COMMENT ON COLUMN partner_center.referrals.consent_to_microsoft_contacting_partners IS 'Consent to Microsoft contacting specific partners. API: consent.consentToMicrosoftToContactSpecificPartners';
COMMENT ON COLUMN partner_center.referrals.invite_notes IS 'Notes of the invitation; personal data. API: inviteContext.notes';
COMMENT ON COLUMN partner_center.referrals.invited_mpn_id IS 'PartnerID that was invited. API: inviteContext.invitedMpnId';
COMMENT ON COLUMN partner_center.referrals.invite_assistance_request_code IS 'Kind of help that was asked for. API: inviteContext.assistanceRequestCode';
COMMENT ON COLUMN partner_center.referrals.invited_by_organization_id IS 'Who sent the invitation: msft or an organisation id. API: inviteContext.invitedBy.organizationId';
COMMENT ON COLUMN partner_center.referrals.invited_by_organization_name IS 'Its name. API: inviteContext.invitedBy.organizationName';
COMMENT ON COLUMN partner_center.referrals.microsoft_msx_id IS 'Opportunity id in Microsoft''s own CRM. API: trackingInfo.microsoftMsxId';
COMMENT ON COLUMN partner_center.referrals.microsoft_us_fed_opportunity_id IS 'Opportunity id in Microsoft''s federal CRM. API: trackingInfo.microsoftUSFedOpportunityId';
COMMENT ON COLUMN partner_center.referrals.microsoft_us_fed_lead_id IS 'Lead id in Microsoft''s federal CRM. API: trackingInfo.microsoftUSFedLeadId';
COMMENT ON COLUMN partner_center.referrals.migrated_psc_deal_id IS 'Deal id before migration. API: trackingInfo.migratedPSCDealId';
COMMENT ON COLUMN partner_center.referrals.migrated_psc_partner_deal_id IS 'Partner''s deal id before migration. API: trackingInfo.migratedPSCPartnerDealId';

CREATE TABLE partner_center.referral_team_members (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    first_name text,
    last_name text,
    email text,
    phone_number text,
    title text,
    email_validation_status text,
    phone_validation_status text,
    locale text,
    disable_notifications boolean,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_team_members IS 'The partner''s own people on a referral, in the source''s order (it gives them no id).';
COMMENT ON COLUMN partner_center.referral_team_members.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_team_members.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_team_members.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_team_members.first_name IS 'Given name; personal data for contacts. API: team[].firstName';
COMMENT ON COLUMN partner_center.referral_team_members.last_name IS 'Family name; personal data for contacts. API: team[].lastName';
COMMENT ON COLUMN partner_center.referral_team_members.email IS 'E-mail; business data for sellers, personal data for contacts. API: team[].email';
COMMENT ON COLUMN partner_center.referral_team_members.phone_number IS 'Phone number; personal data. API: team[].phoneNumber';
COMMENT ON COLUMN partner_center.referral_team_members.title IS 'Job title. API: team[].title';
COMMENT ON COLUMN partner_center.referral_team_members.email_validation_status IS 'Valid, Invalid, Spam or Unknown. API: team[].emailValidationStatus';
COMMENT ON COLUMN partner_center.referral_team_members.phone_validation_status IS 'Valid, Invalid, Spam or Unknown. API: team[].phoneValidationStatus';
COMMENT ON COLUMN partner_center.referral_team_members.locale IS 'Preferred language. API: team[].contactPreference.locale';
COMMENT ON COLUMN partner_center.referral_team_members.disable_notifications IS 'Whether notifications are off. API: team[].contactPreference.disableNotifications';

CREATE TABLE partner_center.referral_customer_contacts (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    first_name text,
    last_name text,
    email text,
    phone_number text,
    title text,
    email_validation_status text,
    phone_validation_status text,
    locale text,
    disable_notifications boolean,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_customer_contacts IS 'The customer''s contacts on a referral: personal data. The source hides them after a lead expires.';
COMMENT ON COLUMN partner_center.referral_customer_contacts.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_customer_contacts.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_customer_contacts.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_customer_contacts.first_name IS 'Given name; personal data for contacts. API: customerProfile.team[].firstName';
COMMENT ON COLUMN partner_center.referral_customer_contacts.last_name IS 'Family name; personal data for contacts. API: customerProfile.team[].lastName';
COMMENT ON COLUMN partner_center.referral_customer_contacts.email IS 'E-mail; business data for sellers, personal data for contacts. API: customerProfile.team[].email';
COMMENT ON COLUMN partner_center.referral_customer_contacts.phone_number IS 'Phone number; personal data. API: customerProfile.team[].phoneNumber';
COMMENT ON COLUMN partner_center.referral_customer_contacts.title IS 'Job title. API: customerProfile.team[].title';
COMMENT ON COLUMN partner_center.referral_customer_contacts.email_validation_status IS 'Valid, Invalid, Spam or Unknown. API: customerProfile.team[].emailValidationStatus';
COMMENT ON COLUMN partner_center.referral_customer_contacts.phone_validation_status IS 'Valid, Invalid, Spam or Unknown. API: customerProfile.team[].phoneValidationStatus';
COMMENT ON COLUMN partner_center.referral_customer_contacts.locale IS 'Preferred language. API: customerProfile.team[].contactPreference.locale';
COMMENT ON COLUMN partner_center.referral_customer_contacts.disable_notifications IS 'Whether notifications are off. API: customerProfile.team[].contactPreference.disableNotifications';

CREATE TABLE partner_center.referral_customer_ids (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    profile_type text,
    external_id text,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_customer_ids IS 'Ids of the customer in other registers.';
COMMENT ON COLUMN partner_center.referral_customer_ids.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_customer_ids.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_customer_ids.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_customer_ids.profile_type IS 'Duns or External. API: customerProfile.ids[].profileType';
COMMENT ON COLUMN partner_center.referral_customer_ids.external_id IS 'The customer''s id there. API: customerProfile.ids[].id';

CREATE TABLE partner_center.referral_requirements (
    account text NOT NULL,
    referral_id text NOT NULL,
    kind text NOT NULL,
    position integer NOT NULL,
    item_id text,
    item_name text,
    item_type text,
    PRIMARY KEY (account, referral_id, kind, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_requirements IS 'What the customer needs: industries, products, services, offers, sales plays and attributes.';
COMMENT ON COLUMN partner_center.referral_requirements.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_requirements.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_requirements.kind IS 'One of industry, product, service, offer, sales_play, attribute.';
COMMENT ON COLUMN partner_center.referral_requirements.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_requirements.item_id IS 'Id of the item. API: details.requirements.*[].id';
COMMENT ON COLUMN partner_center.referral_requirements.item_name IS 'Its name when given. API: details.requirements.*[].name';
COMMENT ON COLUMN partner_center.referral_requirements.item_type IS 'Its type when given; PartnerRole, SolutionArea or SolutionPlay for attributes. API: details.requirements.*[].type';

CREATE TABLE partner_center.referral_solutions (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    solution_id text,
    name text,
    currency text,
    publisher_name text,
    solution_type text,
    price numeric,
    quantity numeric,
    closing_at timestamptz,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_solutions IS 'Solutions in a deal. Joining deal values to solutions counts deals more than once.';
COMMENT ON COLUMN partner_center.referral_solutions.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_solutions.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_solutions.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_solutions.solution_id IS 'Category name or catalogue id of the solution. API: details.requirements.solutions[].id';
COMMENT ON COLUMN partner_center.referral_solutions.name IS 'Name. API: details.requirements.solutions[].name';
COMMENT ON COLUMN partner_center.referral_solutions.currency IS 'ISO 4217 currency. API: details.requirements.solutions[].currency';
COMMENT ON COLUMN partner_center.referral_solutions.publisher_name IS 'Publisher. API: details.requirements.solutions[].publisherName';
COMMENT ON COLUMN partner_center.referral_solutions.solution_type IS 'None, Category or Name. API: details.requirements.solutions[].solutionType/type';
COMMENT ON COLUMN partner_center.referral_solutions.price IS 'Price in currency. API: details.requirements.solutions[].price';
COMMENT ON COLUMN partner_center.referral_solutions.quantity IS 'Quantity. API: details.requirements.solutions[].quantity';
COMMENT ON COLUMN partner_center.referral_solutions.closing_at IS 'Estimated close of this solution. API: details.requirements.solutions[].closingDateTime';

CREATE TABLE partner_center.referral_targets (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    target_type text,
    target_id text,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_targets IS 'Whom a referral is aimed at.';
COMMENT ON COLUMN partner_center.referral_targets.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_targets.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_targets.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_targets.target_type IS 'None, BusinessProfileLocation or SolutionProfile. API: target[].type';
COMMENT ON COLUMN partner_center.referral_targets.target_id IS 'Id of the target. API: target[].id';

CREATE TABLE partner_center.referral_registrations (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    registration_id text,
    registration_type text,
    registered_at timestamptz,
    contract_currency text,
    contract_term text,
    contract_value numeric,
    contract_start_at timestamptz,
    contract_end_at timestamptz,
    contract_sign_at timestamptz,
    review_pending_at timestamptz,
    action_required_at timestamptz,
    passed_at timestamptz,
    failed_at timestamptz,
    approved_at timestamptz,
    resubmission_at timestamptz,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_registrations IS 'Deal registrations of a referral.';
COMMENT ON COLUMN partner_center.referral_registrations.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_registrations.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_registrations.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_registrations.registration_id IS 'Id of the registration. API: registrations[].id';
COMMENT ON COLUMN partner_center.referral_registrations.registration_type IS 'AzureIPCoSell is the only documented type. API: registrations[].type';
COMMENT ON COLUMN partner_center.referral_registrations.registered_at IS 'When it was registered. API: registrations[].registrationDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.contract_currency IS 'ISO 4217 currency of contract_value. API: registrations[].contract.currency';
COMMENT ON COLUMN partner_center.referral_registrations.contract_term IS 'Perpetual or Finite. API: registrations[].contract.term';
COMMENT ON COLUMN partner_center.referral_registrations.contract_value IS 'Contract value in contract_currency. API: registrations[].contract.value';
COMMENT ON COLUMN partner_center.referral_registrations.contract_start_at IS 'Contract start. API: registrations[].contract.startDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.contract_end_at IS 'Contract end. API: registrations[].contract.endDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.contract_sign_at IS 'Contract signature. API: registrations[].contract.signDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.review_pending_at IS 'When review became pending. API: registrations[].statusHistory.reviewPendingDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.action_required_at IS 'When action became required. API: registrations[].statusHistory.actionRequiredDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.passed_at IS 'When it passed. API: registrations[].statusHistory.passedDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.failed_at IS 'When it failed. API: registrations[].statusHistory.failedDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.approved_at IS 'When it was approved. API: registrations[].statusHistory.approvedDateTime';
COMMENT ON COLUMN partner_center.referral_registrations.resubmission_at IS 'When it was submitted again. API: registrations[].statusHistory.resubmissionDateTime';

CREATE TABLE partner_center.referral_registration_solutions (
    account text NOT NULL,
    referral_id text NOT NULL,
    parent_position integer NOT NULL,
    position integer NOT NULL,
    solution_id text,
    name text,
    currency text,
    primary_deployment_on text,
    pricing_model text,
    value numeric,
    is_deployed_on_azure boolean,
    is_marketplace_transacted boolean,
    marketplace_transaction_at timestamptz,
    PRIMARY KEY (account, referral_id, parent_position, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_registration_solutions IS 'Solutions in a deal registration.';
COMMENT ON COLUMN partner_center.referral_registration_solutions.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_registration_solutions.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_registration_solutions.parent_position IS 'Position of the registration in its referral.';
COMMENT ON COLUMN partner_center.referral_registration_solutions.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_registration_solutions.solution_id IS 'Category name or catalogue id of the solution. API: registrations[].solutionDetails[].id';
COMMENT ON COLUMN partner_center.referral_registration_solutions.name IS 'Name. API: registrations[].solutionDetails[].name';
COMMENT ON COLUMN partner_center.referral_registration_solutions.currency IS 'ISO 4217 currency. API: registrations[].solutionDetails[].currency';
COMMENT ON COLUMN partner_center.referral_registration_solutions.primary_deployment_on IS 'Customer or Partner. API: registrations[].solutionDetails[].primaryDeploymentOn';
COMMENT ON COLUMN partner_center.referral_registration_solutions.pricing_model IS 'PayAsYouGo or Other. API: registrations[].solutionDetails[].pricingModel';
COMMENT ON COLUMN partner_center.referral_registration_solutions.value IS 'Value in currency. API: registrations[].solutionDetails[].value';
COMMENT ON COLUMN partner_center.referral_registration_solutions.is_deployed_on_azure IS 'Whether it is deployed on Azure. API: registrations[].solutionDetails[].isDeployedOnAzure';
COMMENT ON COLUMN partner_center.referral_registration_solutions.is_marketplace_transacted IS 'Whether it was transacted on the marketplace. API: registrations[].solutionDetails[].marketplaceTransactionDetails.isMarketplaceTransacted';
COMMENT ON COLUMN partner_center.referral_registration_solutions.marketplace_transaction_at IS 'When it was transacted there. API: registrations[].solutionDetails[].marketplaceTransactionDetails.marketplaceTransactionDateTime';

CREATE TABLE partner_center.referral_tags (
    account text NOT NULL,
    referral_id text NOT NULL,
    position integer NOT NULL,
    tag text,
    PRIMARY KEY (account, referral_id, position),
    FOREIGN KEY (account, referral_id) REFERENCES partner_center.referrals (account, id) ON DELETE CASCADE
);
COMMENT ON TABLE partner_center.referral_tags IS 'Tags of a referral.';
COMMENT ON COLUMN partner_center.referral_tags.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_tags.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_tags.position IS 'Place in the source''s array, from 0.';
COMMENT ON COLUMN partner_center.referral_tags.tag IS 'The tag. API: tags[].tag';

CREATE TABLE partner_center.referral_versions (
    account text NOT NULL,
    referral_id text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    change text NOT NULL CHECK (change IN ('first', 'changed', 'gone', 'back')),
    changed_columns text[] NOT NULL DEFAULT '{}',
    version bigint NOT NULL,
    name text,
    status text,
    substatus text,
    qualification text,
    type text,
    direction text,
    sales_stage text,
    deal_value numeric,
    currency text,
    closing_at timestamptz,
    registration_status text,
    mpn_id text,
    payload jsonb,
    PRIMARY KEY (account, referral_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX referral_versions_open ON partner_center.referral_versions (account, referral_id) WHERE valid_to IS NULL;
COMMENT ON TABLE partner_center.referral_versions IS 'One row for each change of a referral since it was first seen; intervals are half-open, one is open for each referral. No foreign key: history outlives the row.';
COMMENT ON COLUMN partner_center.referral_versions.account IS 'Account of the referral.';
COMMENT ON COLUMN partner_center.referral_versions.referral_id IS 'Id of the referral.';
COMMENT ON COLUMN partner_center.referral_versions.valid_from IS 'From when this version was current (inclusive): the source''s time where it is later than the previous version''s, else when it was read.';
COMMENT ON COLUMN partner_center.referral_versions.valid_to IS 'Until when (exclusive); null for the open version.';
COMMENT ON COLUMN partner_center.referral_versions.recorded_at IS 'Database time when this version was stored.';
COMMENT ON COLUMN partner_center.referral_versions.change IS 'first, changed, gone (no longer listed) or back (listed again).';
COMMENT ON COLUMN partner_center.referral_versions.changed_columns IS 'What differs from the previous version: columns, child tables, or payload where only members without a column changed.';
COMMENT ON COLUMN partner_center.referral_versions.version IS 'updatedDateTime of this version in ticks of 100 ns since year 1.';
COMMENT ON COLUMN partner_center.referral_versions.payload IS 'The record of this version; null while it is open, when partner_center.referrals has it.';
COMMENT ON COLUMN partner_center.referral_versions.name IS 'Name of the deal, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.status IS 'New, Active or Closed; open text, other values may come, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.substatus IS 'Pending, Received, Accepted, Won, Lost, Declined, Expired, Error; open text, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.qualification IS 'None, Direct, MarketingQualified, SalesQualified, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.type IS 'Shared (several parties) or Independent (one partner), in this version.';
COMMENT ON COLUMN partner_center.referral_versions.direction IS 'Incoming (sent to you) or Outgoing (made by you); null where the source did not say, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.sales_stage IS 'Sales stage: a name or a percentage as text, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.deal_value IS 'Deal value in currency, exact, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.currency IS 'ISO 4217 currency of deal_value, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.closing_at IS 'Estimated close; local midnight of the customer, so its UTC date can be off by one, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.registration_status IS 'Deal registration: None, ReviewPending, ActionRequired, Passed, Failed, Approved, Closed, in this version.';
COMMENT ON COLUMN partner_center.referral_versions.mpn_id IS 'Partner location (PartnerID) that the deal belongs to; routing can change it, in this version.';

-- Neither of these begins with account: on a table without statistics the check of a foreign key took such an index
-- for as good as the primary key, kept that plan for the session, and a first load became quadratic.
-- A reconcile looks for rows of a window of creation time that a listing no longer has.
CREATE INDEX referrals_created ON partner_center.referrals (created_at, account);

-- A tick picks the newest row at or below its watermark, which the source must show again.
CREATE INDEX referrals_version ON partner_center.referrals (version, account);

-- pglz is most of the cost of writing payloads; lz4 halves it where the server was built with it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE partner_center.referrals ALTER COLUMN payload SET COMPRESSION lz4;
        ALTER TABLE partner_center.referral_versions ALTER COLUMN payload SET COMPRESSION lz4;
    END IF;
END
$$;
