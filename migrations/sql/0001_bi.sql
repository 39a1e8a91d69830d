-- What dashboards read. The tables below may evolve; these views keep their names and columns.
DO $$
BEGIN
    IF to_regnamespace('bi') IS NULL THEN -- else an administrator has made it
        CREATE SCHEMA bi;
        COMMENT ON SCHEMA bi IS 'Stable, documented views for dashboards.';
    END IF;
END
$$;

CREATE VIEW bi.settings AS
SELECT value AS timezone FROM sync.settings WHERE name = 'bi.timezone';
COMMENT ON VIEW bi.settings IS 'How these views are set.';
COMMENT ON COLUMN bi.settings.timezone IS 'Time zone in which days begin and end, from [bi] timezone.';

CREATE FUNCTION bi.decode_entities(encoded text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
    entity text;
    sign text;
    decoded text := '';
    rest text := encoded;
BEGIN
    LOOP
        entity := substring(rest FROM '&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,7});');
        EXIT WHEN entity IS NULL;
        sign := CASE
            WHEN entity ~ '^&#[0-9]' THEN bi.sign_of(substring(entity FROM '[0-9]+')::integer)
            WHEN entity ~ '^&#[xX]' THEN bi.sign_of(('x' || lpad(substring(entity FROM '[0-9A-Fa-f]+(?=;)'), 8, '0'))::bit(32)::integer)
            ELSE '{"amp": "&", "lt": "<", "gt": ">", "quot": "\"", "apos": "''", "nbsp": " ", "copy": "©", "reg": "®",
                "trade": "™", "ndash": "–", "mdash": "—", "lsquo": "‘", "rsquo": "’", "ldquo": "“", "rdquo": "”",
                "hellip": "…", "bull": "•", "euro": "€", "pound": "£", "szlig": "ß", "auml": "ä", "ouml": "ö", "uuml": "ü",
                "Auml": "Ä", "Ouml": "Ö", "Uuml": "Ü", "aring": "å", "Aring": "Å", "aelig": "æ", "AElig": "Æ", "oslash": "ø",
                "Oslash": "Ø", "eacute": "é", "Eacute": "É", "egrave": "è", "Egrave": "È", "ecirc": "ê", "Ecirc": "Ê",
                "aacute": "á", "agrave": "à", "acirc": "â", "atilde": "ã", "iacute": "í", "icirc": "î", "iuml": "ï",
                "oacute": "ó", "ocirc": "ô", "otilde": "õ", "uacute": "ú", "ugrave": "ù", "ucirc": "û", "ntilde": "ñ",
                "ccedil": "ç", "Ccedil": "Ç", "euml": "ë"}'::jsonb ->> substr(entity, 2, length(entity) - 2)
        END;
        decoded := decoded || split_part(rest, entity, 1) || coalesce(sign, entity);
        rest := substr(rest, strpos(rest, entity) + length(entity));
    END LOOP;
    RETURN decoded || rest;
END
$$;
COMMENT ON FUNCTION bi.decode_entities(text) IS 'A text with its HTML entities decoded, once: what the source sends as &amp;amp; reads &amp;.';

CREATE FUNCTION bi.sign_of(code integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN CASE WHEN code BETWEEN 32 AND 1114111 AND code NOT BETWEEN 55296 AND 57343 AND code NOT BETWEEN 127 AND 159 THEN chr(code) END;
COMMENT ON FUNCTION bi.sign_of(integer) IS 'The character of a code point; null where there is none that can be shown.';

-- What most texts have is decoded without a loop; the ampersand last, so that nothing is decoded twice.
CREATE FUNCTION bi.decoded(encoded text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN strpos(encoded, '&') = 0 THEN encoded
        WHEN strpos(replace(encoded, '&amp;', ''), '&') = 0 THEN replace(encoded, '&amp;', '&')
        WHEN encoded ~ '&(?!amp;|lt;|gt;|quot;|#39;)[#A-Za-z]' THEN bi.decode_entities(encoded)
        ELSE replace(replace(replace(replace(replace(encoded, '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&#39;', ''''), '&amp;', '&')
    END;
COMMENT ON FUNCTION bi.decoded(text) IS 'As decode_entities, and quick where there is nothing to decode or only what is usual.';

CREATE FUNCTION bi.local_day(at timestamptz, country text) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN at IS NULL THEN NULL
        WHEN date_trunc('minute', at AT TIME ZONE 'UTC') <> at AT TIME ZONE 'UTC' OR date_part('minute', at AT TIME ZONE 'UTC')::integer % 15 <> 0
            THEN (at AT TIME ZONE 'UTC')::date
        WHEN country IN ('NZ', 'TO', 'WS', 'KI', 'FJ') THEN (at AT TIME ZONE 'UTC' + interval '14 hours')::date
        ELSE (at AT TIME ZONE 'UTC' + interval '12 hours')::date
    END;
COMMENT ON FUNCTION bi.local_day(timestamptz, text) IS 'The calendar day that a local midnight, sent in UTC, stands for: the nearest midnight (in the countries east of UTC+12 the next one); a time that is no quarter of an hour is no midnight anywhere, and keeps its UTC date.';

CREATE FUNCTION bi.category(type text, qualification text, inviter text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN type = 'Shared' THEN 'Co-sell'
        WHEN type = 'Independent' AND qualification = 'Direct' AND coalesce(inviter, 'msft') = 'msft' THEN 'Marketplace lead'
        WHEN type = 'Independent' AND qualification IN ('SalesQualified', 'MarketingQualified') AND inviter = 'msft' THEN 'Qualified lead'
        WHEN type = 'Independent' AND qualification IN ('SalesQualified', 'None') AND inviter IS DISTINCT FROM 'msft' THEN 'Co-sell'
        ELSE 'Other'
    END;
COMMENT ON FUNCTION bi.category(text, text, text) IS 'Co-sell, Marketplace lead, Qualified lead or Other, by the documented rules on type, qualification and inviter; any Shared referral is Co-sell.';

CREATE FUNCTION bi.deal_type(category text, type text, inviter text, own text, is_shared boolean, assistance text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN category <> 'Co-sell' THEN NULL
        WHEN inviter NOT IN ('msft', '') AND inviter IS DISTINCT FROM own THEN 'Partner-to-partner'
        WHEN is_shared IS FALSE AND coalesce(assistance, '') IN ('', 'None', 'Unknown') THEN 'Private'
        WHEN coalesce(assistance, '') NOT IN ('', 'None', 'Unknown') OR (type = 'Shared' AND inviter = 'msft') THEN 'Co-sell'
        WHEN is_shared THEN 'Partner-led'
        ELSE 'Unknown'
    END;
COMMENT ON FUNCTION bi.deal_type(text, text, text, text, boolean, text) IS 'Co-sell (help asked, or offered by Microsoft), Partner-led (shared with Microsoft, no help asked), Private (not shared), Partner-to-partner (invited by another partner), or Unknown where the members that tell are missing; null for leads. The rules are those of creating a deal; the raw members stand beside it.';

CREATE FUNCTION bi.is_awaiting(status text, substatus text, accepted_at timestamptz, closed_at timestamptz) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN status = 'New' AND accepted_at IS NULL AND closed_at IS NULL
        AND coalesce(substatus, 'Pending') NOT IN ('Accepted', 'Won', 'Lost', 'Declined', 'Expired', 'Error');
COMMENT ON FUNCTION bi.is_awaiting(text, text, timestamptz, timestamptz) IS 'Whether a referral still waits for an answer: New, and neither accepted, declined nor closed, whatever else its substatus is. The one definition that views, report, metrics and messages read.';

CREATE VIEW bi.referrals AS
SELECT
    r.account,
    r.id,
    r.engagement_id,
    bi.decoded(r.name) AS name,
    bi.category(r.type, r.qualification, r.invited_by_organization_id) AS category,
    r.type,
    coalesce(r.direction, 'Unknown') AS direction,
    r.qualification,
    r.status,
    r.substatus,
    r.status_reason,
    r.sales_stage,
    r.registration_status,
    r.deal_value,
    r.currency,
    bi.decoded(r.customer_name) AS customer_name,
    r.customer_size,
    r.customer_country,
    bi.decoded(r.customer_city) AS customer_city,
    r.created_at,
    r.updated_at,
    r.accepted_at,
    r.closed_at,
    r.closing_at,
    CASE WHEN r.direction = 'Incoming' AND bi.is_awaiting(r.status, r.substatus, r.accepted_at, r.closed_at)
        THEN coalesce(r.expires_at, r.created_at + interval '14 days') END AS respond_by,
    r.mpn_id,
    r.external_reference_id,
    r.microsoft_msx_id,
    coalesce(r.is_spam, false) AS is_spam,
    r.changed_at,
    r.status IS DISTINCT FROM 'Closed' AS is_open,
    r.status = 'Closed' AND r.substatus = 'Won' AS is_won,
    round((extract(epoch FROM now() - r.created_at) / 86400)::numeric, 1) AS age_days,
    round((extract(epoch FROM r.accepted_at - r.created_at) / 3600)::numeric, 1) AS hours_to_accept,
    r.quality,
    r.campaign_id,
    r.referral_program,
    coalesce(a.label, r.account) AS account_label,
    bi.is_awaiting(r.status, r.substatus, r.accepted_at, r.closed_at) AS is_awaiting,
    bi.local_day(r.closing_at, r.customer_country) AS closing_on,
    r.status IS DISTINCT FROM 'Closed'
        AND bi.local_day(r.closing_at, r.customer_country) < (now() AT TIME ZONE (SELECT timezone FROM bi.settings))::date AS is_past_expected_close,
    bi.deal_type(
        bi.category(r.type, r.qualification, r.invited_by_organization_id), r.type, r.invited_by_organization_id,
        r.organization_id, r.consent_to_share_with_microsoft_sellers, r.invite_assistance_request_code
    ) AS deal_type,
    CASE
        WHEN r.direction = 'Outgoing' THEN 'Us'
        WHEN r.direction = 'Incoming' AND coalesce(r.invited_by_organization_id, 'msft') = 'msft' THEN 'Microsoft'
        WHEN r.direction = 'Incoming' THEN 'Partner'
        ELSE 'Unknown'
    END AS sourced_by,
    coalesce(r.customer_marketplace_intent, q.marketplace_intent) AS marketplace_intent,
    q.solution_area,
    q.solution_play,
    r.consent_to_share_with_microsoft_sellers AS is_shared_with_microsoft,
    r.invite_assistance_request_code AS assistance_request_code,
    r.invited_by_organization_id AS inviter_id,
    bi.decoded(r.invited_by_organization_name) AS inviter,
    r.offer_id,
    r.referral_source,
    r.call_to_action,
    bi.decoded(r.customer_state) AS customer_state,
    r.customer_region,
    i.duns AS customer_duns,
    r.expires_at
FROM partner_center.referrals r
LEFT JOIN sync.accounts a ON a.account = r.account
LEFT JOIN ( -- in one pass, and not at all where none of these columns is asked for: a look for each referral takes seconds
    SELECT referral_key,
        string_agg(item_id, ', ') FILTER (WHERE attribute = 'customermarketplaceintent') AS marketplace_intent,
        string_agg(item_id, ', ') FILTER (WHERE attribute = 'solutionarea') AS solution_area,
        string_agg(item_id, ', ') FILTER (WHERE attribute = 'solutionplay') AS solution_play
    FROM (
        SELECT referral_key, item_id, lower(item_type) AS attribute FROM partner_center.referral_requirements
        WHERE kind = 'attribute' ORDER BY referral_key, position
    ) ordered
    GROUP BY referral_key
) q ON q.referral_key = r.referral_key
LEFT JOIN (
    SELECT referral_key, string_agg(external_id, ', ') AS duns
    FROM (
        SELECT referral_key, external_id FROM partner_center.referral_customer_ids
        WHERE lower(profile_type) = 'duns' ORDER BY referral_key, position
    ) ordered
    GROUP BY referral_key
) i ON i.referral_key = r.referral_key
WHERE r.deleted_at IS NULL;
COMMENT ON VIEW bi.referrals IS 'One row for each referral that the source lists now. Names are decoded; the copy itself keeps them as received.';

CREATE VIEW bi.deleted AS
SELECT r.account, r.id, r.engagement_id, bi.decoded(r.name) AS name, r.status, r.substatus, r.type,
    coalesce(r.direction, 'Unknown') AS direction, r.deal_value, r.currency, bi.decoded(r.customer_name) AS customer_name,
    r.created_at, r.updated_at, r.deleted_at
FROM partner_center.referrals r
WHERE r.deleted_at IS NOT NULL;
COMMENT ON VIEW bi.deleted IS 'Referrals that the source no longer lists: deleted, moved, or out of this sign-in''s sight. In no other view of the present.';

CREATE VIEW bi.inbound_cosell AS
SELECT * FROM bi.referrals WHERE type = 'Shared' AND direction = 'Incoming' ORDER BY created_at DESC;
COMMENT ON VIEW bi.inbound_cosell IS 'Which co-sell was offered to us? Newest first. Spam is flagged in is_spam.';

CREATE VIEW bi.awaiting_response AS
SELECT
    r.*,
    round((extract(epoch FROM r.respond_by - now()) / 86400)::numeric, 1) AS days_left,
    r.respond_by < now() AS is_overdue
FROM bi.referrals r
WHERE r.is_awaiting AND r.direction = 'Incoming'
ORDER BY r.respond_by;
COMMENT ON VIEW bi.awaiting_response IS 'What still awaits our answer? The most urgent first; an incoming referral that nobody answers in 14 days expires. Referrals whose direction the source does not say are not in it: bi.data_quality counts those that may wait.';

CREATE VIEW bi.team AS
SELECT r.account, r.id AS referral_id, m.position, bi.decoded(m.first_name) AS first_name, bi.decoded(m.last_name) AS last_name,
    lower(m.email) AS email, m.title
FROM partner_center.referral_team_members m
JOIN partner_center.referrals r ON r.referral_key = m.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.team IS 'Our own people on each referral; business data. Their phone numbers are in bi.team_phones.';

CREATE VIEW bi.active_outbound_by_seller AS
SELECT t.email AS seller_email, t.first_name AS seller_first_name, t.last_name AS seller_last_name, r.*
FROM bi.referrals r JOIN bi.team t ON t.account = r.account AND t.referral_id = r.id
WHERE r.status = 'Active' AND r.direction = 'Outgoing' AND r.type = 'Shared'
ORDER BY t.email, r.created_at DESC;
COMMENT ON VIEW bi.active_outbound_by_seller IS 'What is each seller working on? One row for each seller of a deal: count deals by id, not by rows.';

CREATE VIEW bi.customers AS
SELECT account, customer_name, customer_country,
    count(*) AS referrals,
    count(*) FILTER (WHERE is_open) AS open_referrals,
    count(*) FILTER (WHERE is_won) AS won_referrals,
    min(created_at) AS first_created_at,
    max(updated_at) AS last_updated_at
FROM bi.referrals WHERE NOT is_spam
GROUP BY account, customer_name, customer_country;
COMMENT ON VIEW bi.customers IS 'One row for each customer name and country, without spam.';

CREATE VIEW bi.solutions AS
SELECT r.account, r.id AS referral_id, s.position, s.solution_id, bi.decoded(s.name) AS name, s.solution_type, s.type, bi.decoded(s.publisher_name) AS publisher_name, s.price, s.quantity, s.currency
FROM partner_center.referral_solutions s
JOIN partner_center.referrals r ON r.referral_key = s.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.solutions IS 'The solutions of each referral.';

CREATE VIEW bi.industries AS
SELECT r.account, r.id AS referral_id, q.item_id AS industry, bi.decoded(q.item_name) AS name
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'industry';
COMMENT ON VIEW bi.industries IS 'The industries of each referral: one row for each.';

CREATE VIEW bi.products AS
SELECT r.account, r.id AS referral_id, q.item_id AS product, bi.decoded(q.item_name) AS name
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'product';
COMMENT ON VIEW bi.products IS 'The Microsoft products of each referral: one row for each.';

CREATE VIEW bi.services AS
SELECT r.account, r.id AS referral_id, q.item_id AS service, bi.decoded(q.item_name) AS name
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'service';
COMMENT ON VIEW bi.services IS 'The services of each referral: one row for each.';

CREATE VIEW bi.sales_plays AS
SELECT r.account, r.id AS referral_id, q.item_id AS sales_play, bi.decoded(q.item_name) AS name
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'sales_play';
COMMENT ON VIEW bi.sales_plays IS 'The sales plays of each referral: one row for each.';

CREATE VIEW bi.offers AS
SELECT r.account, r.id AS referral_id, q.item_id AS offer, bi.decoded(q.item_name) AS name
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'offer';
COMMENT ON VIEW bi.offers IS 'The offers of each referral: one row for each.';

CREATE VIEW bi.attributes AS
SELECT r.account, r.id AS referral_id, q.item_type AS attribute, q.item_id AS value
FROM partner_center.referral_requirements q
JOIN partner_center.referrals r ON r.referral_key = q.referral_key AND r.deleted_at IS NULL
WHERE q.kind = 'attribute';
COMMENT ON VIEW bi.attributes IS 'Further requirements of each referral by their type: partner role, solution area, solution play, marketplace intent.';

CREATE VIEW bi.tags AS
SELECT r.account, r.id AS referral_id, t.tag
FROM partner_center.referral_tags t
JOIN partner_center.referrals r ON r.referral_key = t.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.tags IS 'The tags of each referral: one row for each.';

CREATE VIEW bi.registrations AS
SELECT r.account, r.id AS referral_id, g.position, g.registration_id, g.registration_type, g.registered_at,
    g.contract_value, g.contract_currency, g.contract_term, g.contract_start_at, g.contract_end_at, g.contract_sign_at,
    r.registration_status,
    g.review_pending_at, g.action_required_at, g.passed_at, g.failed_at, g.approved_at, g.resubmission_at,
    r.created_at + interval '72 hours' AS earliest_won_at,
    g.contract_sign_at + interval '60 days' AS register_by
FROM partner_center.referral_registrations g
JOIN partner_center.referrals r ON r.referral_key = g.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.registrations IS 'Deal registrations (IP co-sell) with the moments of their review.';

CREATE VIEW bi.calendar AS
SELECT d::date AS day,
    extract(isoyear FROM d)::integer AS iso_year,
    extract(week FROM d)::integer AS iso_week,
    extract(isodow FROM d)::integer AS iso_weekday,
    date_trunc('month', d)::date AS month,
    date_trunc('quarter', d)::date AS quarter,
    date_trunc('year', d)::date AS year
FROM generate_series(
    (SELECT date_trunc('year', coalesce(min(created_at), now())) FROM partner_center.referrals WHERE created_at > '2010-01-01')::timestamp,
    date_trunc('year', now() + interval '2 years')::timestamp - interval '1 day',
    interval '1 day'
) d;
COMMENT ON VIEW bi.calendar IS 'A row for each day from the year of the first referral to the end of the next year.';

CREATE VIEW bi.status_changes AS
SELECT
    v.account,
    v.referral_id AS id,
    v.valid_from AS changed_at,
    v.change,
    before.status AS from_status,
    v.status AS to_status,
    before.substatus AS from_substatus,
    v.substatus AS to_substatus,
    v.recorded_at
FROM partner_center.referral_history v
LEFT JOIN partner_center.referral_versions before
    ON before.account = v.account AND before.referral_id = v.referral_id AND before.valid_to = v.valid_from
WHERE v.change <> 'changed' OR v.changed_columns && ARRAY['status', 'substatus'];
COMMENT ON VIEW bi.status_changes IS 'Each change of status or substatus since the referral was first seen; the first sight, deleted and back are changes too.';

CREATE FUNCTION bi.amount(written text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN written ~ '^\s*[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]{1,4})?\s*$' THEN written::numeric END;
COMMENT ON FUNCTION bi.amount(text) IS 'The amount that a text says, or null.';

CREATE VIEW bi.value_changes AS
SELECT
    v.account,
    v.referral_id,
    v.valid_from AS changed_at,
    CASE WHEN v.changes ? 'deal_value' THEN bi.amount(v.changes -> 'deal_value' ->> 0) ELSE v.deal_value END AS old_value,
    v.deal_value AS new_value,
    CASE WHEN v.changes ? 'currency' THEN v.changes -> 'currency' ->> 0 ELSE v.currency END AS old_currency,
    v.currency,
    bi.decoded(v.name) AS name,
    bi.decoded(r.customer_name) AS customer,
    v.recorded_at
FROM partner_center.referral_history v
LEFT JOIN partner_center.referrals r ON r.account = v.account AND r.id = v.referral_id
WHERE v.changes ?| '{deal_value,currency}'::text[];
COMMENT ON VIEW bi.value_changes IS 'Each change of a deal''s value since it was first seen. Values are in the currency beside them.';

-- Where in a record each column is, for showing what changed; not those that hold personal data.
CREATE VIEW sync.shown_members AS
SELECT column_name, path FROM (VALUES
    ('engagement_id', '{engagementId}'::text[]),
    ('name', '{name}'::text[]),
    ('organization_id', '{organizationId}'::text[]),
    ('organization_name', '{organizationName}'::text[]),
    ('external_reference_id', '{externalReferenceId}'::text[]),
    ('status', '{status}'::text[]),
    ('substatus', '{substatus}'::text[]),
    ('status_reason', '{statusReason}'::text[]),
    ('qualification', '{qualification}'::text[]),
    ('type', '{type}'::text[]),
    ('direction', '{direction}'::text[]),
    ('campaign_id', '{campaignId}'::text[]),
    ('referral_program', '{referralProgram}'::text[]),
    ('sales_stage', '{salesStage}'::text[]),
    ('quality', '{quality}'::text[]),
    ('mpn_id', '{mpnId}'::text[]),
    ('deal_sensitivity', '{dealSensitivity}'::text[]),
    ('created_via', '{createdVia}'::text[]),
    ('last_modified_via', '{lastModifiedVia}'::text[]),
    ('last_run_id', '{lastRunId}'::text[]),
    ('call_to_action', '{callToAction}'::text[]),
    ('referral_source', '{referralSource}'::text[]),
    ('offer_id', '{offerId}'::text[]),
    ('registration_status', '{registrationStatus}'::text[]),
    ('customer_marketplace_intent', '{customerMarketplaceIntent}'::text[]),
    ('consumption_intent', '{consumptionIntent}'::text[]),
    ('favorite', '{favorite}'::text[]),
    ('is_spam', '{isSpam}'::text[]),
    ('created_at', '{createdDateTime}'::text[]),
    ('updated_at', '{updatedDateTime}'::text[]),
    ('expires_at', '{expirationDateTime}'::text[]),
    ('accepted_at', '{acceptedDateTime}'::text[]),
    ('closed_at', '{closedDateTime}'::text[]),
    ('customer_name', '{customerProfile,name}'::text[]),
    ('customer_size', '{customerProfile,size}'::text[]),
    ('customer_is_matching_complete', '{customerProfile,isMatchingComplete}'::text[]),
    ('customer_address_line1', '{customerProfile,address,addressLine1}'::text[]),
    ('customer_address_line2', '{customerProfile,address,addressLine2}'::text[]),
    ('customer_city', '{customerProfile,address,city}'::text[]),
    ('customer_state', '{customerProfile,address,state}'::text[]),
    ('customer_postal_code', '{customerProfile,address,postalCode}'::text[]),
    ('customer_country', '{customerProfile,address,country}'::text[]),
    ('customer_region', '{customerProfile,address,region}'::text[]),
    ('currency', '{details,currency}'::text[]),
    ('customer_action', '{details,customerAction}'::text[]),
    ('incentive_level', '{details,incentiveLevel}'::text[]),
    ('deal_value', '{details,dealValue}'::text[]),
    ('customer_requested_contact', '{details,customerRequestedContact}'::text[]),
    ('closing_at', '{details,closingDateTime}'::text[]),
    ('iot_customer_license_agreement_number', '{details,requirements,additionalRequirements,iot,customerLicenseAgreementNumber}'::text[]),
    ('iot_device_category', '{details,requirements,additionalRequirements,iot,deviceCategory}'::text[]),
    ('iot_silicon_type', '{details,requirements,additionalRequirements,iot,siliconType}'::text[]),
    ('iot_azure_certified_device', '{details,requirements,additionalRequirements,iot,azureCertifiedDevice}'::text[]),
    ('iot_attach_services', '{details,requirements,additionalRequirements,iot,attachServices}'::text[]),
    ('consent_to_share_info_with_others', '{consent,consentToToShareInfoWithOthers}'::text[]),
    ('consent_to_contact', '{consent,consentToContact}'::text[]),
    ('consent_to_share_with_microsoft_sellers', '{consent,consentToShareReferralWithMicrosoftSellers}'::text[]),
    ('consent_to_microsoft_contacting_partners', '{consent,consentToMicrosoftToContactSpecificPartners}'::text[]),
    ('invited_mpn_id', '{inviteContext,invitedMpnId}'::text[]),
    ('invite_assistance_request_code', '{inviteContext,assistanceRequestCode}'::text[]),
    ('invited_by_organization_id', '{inviteContext,invitedBy,organizationId}'::text[]),
    ('invited_by_organization_name', '{inviteContext,invitedBy,organizationName}'::text[]),
    ('microsoft_msx_id', '{trackingInfo,microsoftMsxId}'::text[]),
    ('microsoft_us_fed_opportunity_id', '{trackingInfo,microsoftUSFedOpportunityId}'::text[]),
    ('microsoft_us_fed_lead_id', '{trackingInfo,microsoftUSFedLeadId}'::text[]),
    ('migrated_psc_deal_id', '{trackingInfo,migratedPSCDealId}'::text[]),
    ('migrated_psc_partner_deal_id', '{trackingInfo,migratedPSCPartnerDealId}'::text[])
) AS shown (column_name, path);
COMMENT ON VIEW sync.shown_members IS 'The path of the API member behind each column of partner_center.referrals whose changes may be shown.';

CREATE VIEW bi.changes AS
SELECT
    v.account,
    v.referral_id,
    v.valid_from AS changed_at,
    v.change,
    c.changed AS column_name,
    v.changes -> c.changed ->> 0 AS old_value,
    v.changes -> c.changed ->> 1 AS new_value,
    v.recorded_at,
    v.run_id AS run
FROM partner_center.referral_history v
CROSS JOIN LATERAL unnest(v.changed_columns) AS c (changed);
COMMENT ON VIEW bi.changes IS 'Each change of each column since the referral was first seen, as the source wrote it. For child tables, and for what holds personal data, the name alone.';

-- Before a referral was first seen, its own dates say when it was New, Active and Closed. What was observed always wins:
-- these end where the first version begins, which begins no stage of its own where the last of them goes on.
CREATE VIEW sync.first_stages AS
SELECT f.referral_key, f.account, f.referral_id, f.is_only,
    f.direction, f.type, bi.category(f.type, f.qualification, f.invited_by_organization_id) AS category,
    coalesce(f.is_spam, false) AS is_spam, f.currency, f.deal_value,
    stage.step, stage.status, stage.substatus, stage.from_at, stage.to_at, stage.is_estimated,
    stage.is_estimated AND stage.status = f.status AND had.goes_on AS goes_on
FROM (
    SELECT r.referral_key, r.account, r.id AS referral_id, r.change = 'first' AS is_only,
        CASE r.change WHEN 'first' THEN r.direction ELSE v.direction END AS direction,
        CASE r.change WHEN 'first' THEN r.type ELSE v.type END AS type,
        CASE r.change WHEN 'first' THEN r.qualification ELSE v.qualification END AS qualification,
        CASE r.change WHEN 'first' THEN r.invited_by_organization_id ELSE v.invited_by_organization_id END AS invited_by_organization_id,
        CASE r.change WHEN 'first' THEN r.is_spam ELSE v.is_spam END AS is_spam,
        CASE r.change WHEN 'first' THEN r.currency ELSE v.currency END AS currency,
        CASE r.change WHEN 'first' THEN r.deal_value ELSE v.deal_value END AS deal_value,
        CASE r.change WHEN 'first' THEN r.status ELSE v.status END AS status,
        CASE r.change WHEN 'first' THEN r.substatus ELSE v.substatus END AS substatus,
        CASE r.change WHEN 'first' THEN r.valid_from ELSE v.valid_from END AS valid_from,
        r.created_at, r.accepted_at, r.closed_at
    FROM partner_center.referrals r
    LEFT JOIN LATERAL (
        SELECT * FROM partner_center.referral_versions
        WHERE r.change <> 'first' AND referral_key = r.referral_key AND change = 'first' LIMIT 1
    ) v ON true
    WHERE r.change = 'first' OR v.change = 'first'
) f
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN f.created_at < f.valid_from THEN f.created_at END AS created_at,
        CASE WHEN f.created_at < f.valid_from AND f.status IS DISTINCT FROM 'New' AND f.accepted_at IS NOT NULL
            THEN greatest(f.accepted_at, f.created_at) END AS accepted_at,
        CASE WHEN f.created_at < f.valid_from AND f.status = 'Closed' AND f.closed_at IS NOT NULL
            THEN greatest(f.closed_at, f.created_at) END AS closed_at
    OFFSET 0
) d
CROSS JOIN LATERAL (
    SELECT
        coalesce(d.created_at < least(d.accepted_at, d.closed_at, f.valid_from), false) AS new,
        coalesce(d.accepted_at < least(d.closed_at, f.valid_from), false) AS active,
        coalesce(d.closed_at < f.valid_from, false) AS closed
    OFFSET 0
) was
CROSS JOIN LATERAL (
    SELECT CASE f.status WHEN 'New' THEN was.new WHEN 'Active' THEN was.active WHEN 'Closed' THEN was.closed ELSE false END AS goes_on
) had
CROSS JOIN (VALUES ('New'), ('Active'), ('Closed'), ('first version')) AS k (began)
CROSS JOIN LATERAL (
    SELECT
        k.began <> 'first version' AS is_estimated,
        CASE k.began WHEN 'first version' THEN f.status ELSE k.began END AS status,
        CASE WHEN k.began = 'New' AND f.status IS DISTINCT FROM 'New' THEN 'Pending' WHEN k.began = 'Active' AND f.status IS DISTINCT FROM 'Active' THEN 'Accepted'
            ELSE f.substatus END AS substatus,
        CASE k.began WHEN 'New' THEN 1 WHEN 'Active' THEN 1 + was.new::int WHEN 'Closed' THEN 1 + was.new::int + was.active::int
            ELSE 1 + was.new::int + was.active::int + was.closed::int END AS step,
        CASE k.began WHEN 'New' THEN d.created_at WHEN 'Active' THEN d.accepted_at WHEN 'Closed' THEN d.closed_at
            ELSE f.valid_from END AS from_at,
        CASE k.began WHEN 'New' THEN least(d.accepted_at, d.closed_at, f.valid_from) WHEN 'Active' THEN least(d.closed_at, f.valid_from)
            WHEN 'Closed' THEN f.valid_from END AS to_at
) stage
WHERE CASE k.began WHEN 'New' THEN was.new WHEN 'Active' THEN was.active WHEN 'Closed' THEN was.closed ELSE NOT had.goes_on END;
COMMENT ON VIEW sync.first_stages IS 'What the first version of each referral and its own dates say of its stages, in their order. is_only: it has no other version.';

-- Finding where stages begin in all of history takes seconds where there are a million versions, and few referrals
-- change in a minute: so the stages of those are kept, and replaced when they change again. Of a referral that has its
-- first version alone nothing is kept: a first backfill writes nothing here.
CREATE TABLE sync.stale_stages (
    referral_key bigint NOT NULL
);
COMMENT ON TABLE sync.stale_stages IS 'Referrals whose history has changed since their stages were brought up to date, some of them more than once.';

CREATE FUNCTION sync.note_stale_stages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sync.stale_stages SELECT DISTINCT referral_key FROM touched WHERE referral_key IS NOT NULL;
    IF TG_OP = 'UPDATE' THEN -- an erased referral that came back goes on under another number
        INSERT INTO sync.stale_stages SELECT DISTINCT referral_key FROM earlier WHERE referral_key IS NOT NULL;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER referral_versions_inserted AFTER INSERT ON partner_center.referral_versions
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION sync.note_stale_stages();
CREATE TRIGGER referral_versions_updated AFTER UPDATE ON partner_center.referral_versions
    REFERENCING OLD TABLE AS earlier NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION sync.note_stale_stages();
CREATE TRIGGER referral_versions_deleted AFTER DELETE ON partner_center.referral_versions
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION sync.note_stale_stages();

CREATE VIEW sync.estimates AS
SELECT account, referral_id, referral_key, direction, type, category, is_spam, currency, deal_value,
    status, substatus, from_at, to_at, goes_on
FROM sync.first_stages WHERE is_estimated AND NOT is_only;
COMMENT ON VIEW sync.estimates IS 'What sync.estimated_stages holds of a referral once it is brought up to date.';

CREATE TABLE sync.estimated_stages (
    account text NOT NULL,
    referral_id text NOT NULL,
    referral_key bigint,
    direction text,
    type text,
    category text,
    is_spam boolean,
    currency text,
    deal_value numeric,
    status text,
    substatus text,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    goes_on boolean,
    PRIMARY KEY (referral_key, status)
);
COMMENT ON TABLE sync.estimated_stages IS 'Stages before the first sight of each referral that changed since, derived from its own dates with the values of the first sight; brought up to date as sync.stages.';
COMMENT ON COLUMN sync.estimated_stages.goes_on IS 'Whether the first version that was seen is of this very stage, and so begins none.';

-- What was observed, and before the first sight what the record's own dates say. Each row begins a stage, so one pass in
-- order is enough: that is why first versions which an estimated stage goes on into are left out beforehand.
CREATE VIEW sync.stages_of AS
SELECT referral_key, step, account, id AS referral_id, status, substatus, entered_at, left_at, is_estimated
FROM (
    SELECT referral_key, account, id, status, substatus, is_deleted, entered_at, is_estimated,
        row_number() OVER h AS step, lead(entered_at) OVER h AS left_at
    FROM (
        SELECT v.referral_key, v.account, v.referral_id AS id, v.valid_from AS entered_at, v.status, v.substatus,
            v.change = 'deleted' AS is_deleted, false AS is_estimated
        FROM partner_center.referral_history v
        WHERE (v.change <> 'changed' OR v.changed_columns && '{status,substatus}'::text[])
            AND (v.change <> 'first' OR v.valid_to IS NOT NULL AND NOT EXISTS (
                SELECT FROM sync.estimated_stages e WHERE e.referral_key = v.referral_key AND e.goes_on
            ))
        UNION ALL
        SELECT referral_key, account, referral_id, from_at, status, substatus, false, true FROM sync.estimated_stages
    ) s
    WINDOW h AS (PARTITION BY referral_key ORDER BY entered_at)
) s
WHERE NOT is_deleted;
COMMENT ON VIEW sync.stages_of IS 'What sync.stages holds of a referral once it is brought up to date.';

CREATE TABLE sync.stages (
    referral_key bigint,
    step bigint,
    account text NOT NULL,
    referral_id text NOT NULL,
    status text,
    substatus text,
    entered_at timestamptz NOT NULL,
    left_at timestamptz,
    is_estimated boolean NOT NULL,
    PRIMARY KEY (referral_key, step)
);
CREATE INDEX stages_referral ON sync.stages (account, referral_id);
COMMENT ON TABLE sync.stages IS 'Stages of each referral that changed since it was first seen; the worker replaces those of referrals that changed, after runs that changed something.';

CREATE VIEW sync.unkept_stages AS
SELECT f.* FROM sync.first_stages f
WHERE f.is_only OR (
    f.referral_key IN (SELECT referral_key FROM sync.stale_stages)
    AND NOT EXISTS (SELECT FROM sync.stages s WHERE s.referral_key = f.referral_key)
);
COMMENT ON VIEW sync.unkept_stages IS 'Stages of each referral that has none in sync.stages: it has its first version alone, or had when they were brought up to date.';

CREATE VIEW sync.all_stages AS
SELECT referral_key, step, account, referral_id, status, substatus, entered_at, left_at, is_estimated
FROM sync.stages
UNION ALL
SELECT f.referral_key, f.step, f.account, f.referral_id, f.status, f.substatus, f.from_at,
    CASE WHEN NOT f.goes_on THEN f.to_at END, f.is_estimated
FROM sync.unkept_stages f;
COMMENT ON VIEW sync.all_stages IS 'Stages of each referral, as of the last time that they were brought up to date.';

CREATE VIEW sync.all_estimates AS
SELECT account, direction, type, category, is_spam, currency, deal_value, status, from_at, to_at
FROM sync.estimated_stages
UNION ALL
SELECT f.account, f.direction, f.type, f.category, f.is_spam, f.currency, f.deal_value, f.status, f.from_at, f.to_at
FROM sync.unkept_stages f WHERE f.is_estimated;
COMMENT ON VIEW sync.all_estimates IS 'Stages before the first sight of each referral, as of the last time that they were brought up to date.';

CREATE VIEW bi.stage_durations AS
SELECT account, referral_id AS id, step, status, substatus, entered_at, left_at,
    round((extract(epoch FROM coalesce(left_at, now()) - entered_at) / 86400)::numeric, 2) AS days,
    is_estimated
FROM sync.all_stages;
COMMENT ON VIEW bi.stage_durations IS 'How long each referral was in each status and substatus; a reopened deal enters a stage again. While it was not listed it was in none. Stages that began before the referral was first seen begin at the record''s own dates: is_estimated. Brought up to date within a minute of a change, later where that takes longer than six seconds.';

-- The pipeline between the days on which it moved: adding up all versions takes seconds where there are a million. What
-- is unknown is empty here, so that it can be part of a key.
CREATE VIEW sync.pipeline_spans_of AS
WITH zone AS (SELECT value AS timezone FROM sync.settings WHERE name = 'bi.timezone'),
open AS (
    SELECT v.account, v.direction, v.type, bi.category(v.type, v.qualification, v.invited_by_organization_id) AS category,
        coalesce(v.is_spam, false) AS is_spam, v.status, v.currency, v.deal_value, v.valid_from, v.valid_to, false AS is_estimated
    FROM partner_center.referral_history v WHERE v.change <> 'deleted' AND v.status IS DISTINCT FROM 'Closed'
    UNION ALL
    SELECT account, direction, type, category, is_spam, status, currency, deal_value, from_at, to_at, true
    FROM sync.all_estimates WHERE status IS DISTINCT FROM 'Closed'
),
moves AS (
    SELECT o.*, (m.at AT TIME ZONE (SELECT timezone FROM zone))::date AS day, m.sign
    FROM open o CROSS JOIN LATERAL (VALUES (o.valid_from, 1), (o.valid_to, -1)) AS m (at, sign) WHERE m.at IS NOT NULL
),
days AS (
    SELECT account, coalesce(direction, '') AS direction, coalesce(type, '') AS type, category, is_spam,
        coalesce(status, '') AS status, coalesce(currency, '') AS currency, is_estimated, day,
        sum(sign) AS deals, sum(sign * deal_value) AS value
    FROM moves GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
)
SELECT account, direction, type, category, is_spam, status, currency, is_estimated, day AS from_day,
    lead(day) OVER g AS to_day,
    sum(deals) OVER g AS deals,
    trim_scale(sum(value) OVER g) AS deal_value -- a deal of many digits that was closed leaves its zeros in the sum
FROM days
-- What differs most comes first here, and in the key: comparing rows ends there.
WINDOW g AS (PARTITION BY currency, is_estimated, status, direction, category, type, is_spam, account ORDER BY day);
COMMENT ON VIEW sync.pipeline_spans_of IS 'What sync.pipeline_spans holds once it is brought up to date.';

CREATE TABLE sync.pipeline_spans (
    account text,
    direction text,
    type text,
    category text,
    is_spam boolean,
    status text,
    currency text,
    is_estimated boolean,
    from_day date,
    to_day date,
    deals numeric NOT NULL,
    deal_value numeric,
    -- By day first: what moves today is written to the same few pages.
    PRIMARY KEY (from_day, currency, is_estimated, status, direction, category, type, is_spam, account)
);
COMMENT ON TABLE sync.pipeline_spans IS 'The open pipeline from one day on which it moved to the next; the worker replaces what differs, after runs that changed something.';

-- A source may date a record in the year 9999: days are bounded by what can be a day of a pipeline.
CREATE VIEW bi.pipeline_daily AS
SELECT s.account, c::date AS day, coalesce(nullif(s.direction, ''), 'Unknown') AS direction, nullif(s.type, '') AS type,
    s.category, s.is_spam, nullif(s.status, '') AS status, nullif(s.currency, '') AS currency, s.is_estimated, s.deals::bigint AS deals, s.deal_value
FROM sync.pipeline_spans s
CROSS JOIN (SELECT (now() AT TIME ZONE timezone)::date AS today FROM bi.settings) t
CROSS JOIN LATERAL generate_series(
    greatest(s.from_day, '2010-01-01')::timestamp, least(s.to_day - 1, t.today)::timestamp, interval '1 day'
) c
WHERE s.deals <> 0;
COMMENT ON VIEW bi.pipeline_daily IS 'The open pipeline as it stood at the end of each day. Rows with is_estimated are of deals that were not seen yet on that day: they stand where the record''s own dates of creation, acceptance and closing put them, with the values of the first sight. Values are in each row''s currency: never add across currencies.';

CREATE VIEW bi.conversion AS
SELECT
    account, direction, category, counted_by, date_trunc('quarter', month)::date AS quarter, month,
    count(*) AS referrals,
    count(*) FILTER (WHERE is_open) AS open_referrals,
    count(*) FILTER (WHERE is_won) AS won,
    count(*) FILTER (WHERE substatus = 'Lost') AS lost,
    count(*) FILTER (WHERE substatus = 'Declined') AS declined,
    count(*) FILTER (WHERE substatus = 'Expired') AS expired,
    round(count(*) FILTER (WHERE is_won)::numeric / nullif(count(*) FILTER (WHERE is_won OR substatus = 'Lost'), 0), 4) AS win_rate,
    round((percentile_cont(0.5) WITHIN GROUP (ORDER BY hours_to_accept) FILTER (WHERE direction = 'Incoming'))::numeric, 1) AS median_hours_to_accept,
    count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting) AS unanswered,
    counted_by = 'closed' AND month < this_month
        OR counted_by = 'created' AND month < this_month AND count(*) FILTER (WHERE direction = 'Incoming' AND is_awaiting) = 0 AS is_complete
FROM (
    SELECT r.account, r.direction, r.category, r.is_open, r.is_won, r.substatus, r.hours_to_accept, r.is_awaiting, p.counted_by,
        date_trunc('month', p.at AT TIME ZONE z.timezone)::date AS month,
        date_trunc('month', now() AT TIME ZONE z.timezone)::date AS this_month
    FROM bi.referrals r CROSS JOIN bi.settings z
    CROSS JOIN LATERAL (VALUES ('created', r.created_at), ('closed', r.closed_at)) AS p (counted_by, at)
    WHERE NOT r.is_spam AND p.at IS NOT NULL
) counted
GROUP BY account, direction, category, counted_by, month, this_month;
COMMENT ON VIEW bi.conversion IS 'What became of referrals, without spam: by the month in which they were created, and again (counted_by) by the month in which they were closed. Never add both.';

CREATE VIEW bi.data_quality AS
SELECT
    s.account,
    count(r.id) AS referrals,
    count(*) FILTER (WHERE r.direction = 'Unknown') AS unknown_direction,
    count(*) FILTER (WHERE r.direction = 'Unknown' AND r.is_awaiting) AS awaiting_with_unknown_direction,
    count(*) FILTER (WHERE r.is_open AND r.deal_value IS NULL) AS missing_value,
    count(*) FILTER (WHERE r.deal_value IS NOT NULL AND r.currency IS NULL) AS missing_currency,
    count(*) FILTER (WHERE r.is_past_expected_close) AS past_expected_close,
    count(*) FILTER (WHERE r.is_open AND NOT r.has_contacts) AS missing_contacts,
    count(*) FILTER (WHERE r.has_unreadable) AS unreadable_members,
    s.open_rejects AS rejected_records,
    (
        SELECT count(DISTINCT field) FROM sync.runs u CROSS JOIN LATERAL unnest(u.unknown_fields) AS field
        WHERE u.account = s.account AND u.started_at > now() - interval '30 days' AND u.unknown_fields <> '{}'
    ) AS unknown_members
FROM sync.status s
LEFT JOIN (
    SELECT b.*, p.unreadable IS NOT NULL AS has_unreadable,
        EXISTS (SELECT FROM partner_center.referral_customer_contacts c WHERE c.referral_key = p.referral_key) AS has_contacts -- noqa: LT01,LT06,CP03
    FROM bi.referrals b JOIN partner_center.referrals p ON p.account = b.account AND p.id = b.id
) r ON r.account = s.account
GROUP BY s.account, s.open_rejects;
COMMENT ON VIEW bi.data_quality IS 'Where a wrong picture would come from: what is missing, odd or rejected, for each account.';

CREATE VIEW bi.customer_contacts AS
SELECT r.account, r.id AS referral_id, c.position, bi.decoded(c.first_name) AS first_name, bi.decoded(c.last_name) AS last_name, c.email, c.phone_number, c.title
FROM partner_center.referral_customer_contacts c
JOIN partner_center.referrals r ON r.referral_key = c.referral_key AND r.deleted_at IS NULL;
COMMENT ON VIEW bi.customer_contacts IS 'People at the customer. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.notes AS
SELECT r.account, r.id, r.notes, r.invite_notes FROM partner_center.referrals r
WHERE r.deleted_at IS NULL AND coalesce(r.notes, r.invite_notes) IS NOT NULL;
COMMENT ON VIEW bi.notes IS 'Free text of each referral, which often names people. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.team_phones AS
SELECT r.account, r.id AS referral_id, m.position, m.phone_number FROM partner_center.referral_team_members m
JOIN partner_center.referrals r ON r.referral_key = m.referral_key AND r.deleted_at IS NULL
WHERE m.phone_number IS NOT NULL;
COMMENT ON VIEW bi.team_phones IS 'Phone numbers of our own people. Personal data: only for bi_reader_pii.';

CREATE VIEW bi.runs AS
SELECT account, id AS run, kind, outcome, started_at, finished_at,
    round(extract(epoch FROM coalesce(finished_at, now()) - started_at)::numeric, 1) AS seconds,
    inserted, updated, unchanged, rejected, deleted, pages, requests, retries,
    lag_p50 AS lag_seconds
FROM sync.runs;
COMMENT ON VIEW bi.runs IS 'What the worker did, and what came of it; finished runs go after [sync] keep_runs.';
COMMENT ON COLUMN bi.runs.account IS 'Account of the configuration.';
COMMENT ON COLUMN bi.runs.run IS 'Number of the run.';
COMMENT ON COLUMN bi.runs.kind IS 'incremental, backfill, reconcile, refresh or replay.';
COMMENT ON COLUMN bi.runs.outcome IS 'running, done, failed, refused (action required), stopped (asked to) or abandoned (its process died).';
COMMENT ON COLUMN bi.runs.started_at IS 'When it began (time of this database).';
COMMENT ON COLUMN bi.runs.finished_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN bi.runs.seconds IS 'How long it took, or has taken until now.';
COMMENT ON COLUMN bi.runs.inserted IS 'Referrals stored for the first time.';
COMMENT ON COLUMN bi.runs.updated IS 'Referrals that changed.';
COMMENT ON COLUMN bi.runs.unchanged IS 'Records read that were stored already.';
COMMENT ON COLUMN bi.runs.rejected IS 'Rejected records: they could not be stored.';
COMMENT ON COLUMN bi.runs.deleted IS 'Referrals marked as deleted at the source.';
COMMENT ON COLUMN bi.runs.pages IS 'Pages read.';
COMMENT ON COLUMN bi.runs.requests IS 'Requests to the API.';
COMMENT ON COLUMN bi.runs.retries IS 'Requests that had to be repeated.';
COMMENT ON COLUMN bi.runs.lag_seconds IS 'Seconds from a change at the source until it was read here, the median; null where nothing changed.';

CREATE VIEW bi.freshness AS
SELECT s.account, s.health, s.watermark, s.fresh_as_of, s.verified_through, s.live_referrals, s.open_rejects,
    coalesce(a.label, s.account) AS account_label
FROM sync.status s LEFT JOIN sync.accounts a ON a.account = s.account;
COMMENT ON VIEW bi.freshness IS 'How old the data is, and through when it was verified complete.';
COMMENT ON COLUMN bi.freshness.fresh_as_of IS 'Every change that the source showed before this moment is in the copy.';
COMMENT ON COLUMN bi.freshness.verified_through IS 'A full listing agreed with the copy about everything updated before this moment.';

-- Each column of bi says what it is: its own words where it has any, else those of the column of the copy.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN
        WITH words (view_name, column_name, text) AS (VALUES
            (NULL, 'account', 'Account of the configuration that the referral was read with.'),
            (NULL, 'account_label', 'The account''s name as people read it, from its label; else the account.'),
            (NULL, 'is_awaiting', 'Whether it still waits for an answer: New, and neither accepted, declined nor closed.'),
            (NULL, 'closing_on', 'The day of the expected close: closing_at is a local midnight of the customer in UTC, so the nearest midnight counts.'),
            (NULL, 'is_past_expected_close', 'Whether it is open although the day of its expected close is over.'),
            (NULL, 'deal_type', 'Co-sell, Partner-led, Private, Partner-to-partner, or Unknown where the members that tell are missing; null for leads. Derived from rules about creating deals.'),
            (NULL, 'sourced_by', 'Us (outgoing), Microsoft (invited by msft) or Partner (invited by another), else Unknown. Who influenced a deal no document tells.'),
            (NULL, 'marketplace_intent', 'Whether the customer means to buy on the marketplace, as received: the record''s own member, else its requirement attribute.'),
            (NULL, 'solution_area', 'Solution areas among its requirements.'),
            (NULL, 'solution_play', 'Solution plays among its requirements.'),
            (NULL, 'is_shared_with_microsoft', 'Whether the deal is shared with Microsoft''s sellers; null where the source does not say.'),
            (NULL, 'assistance_request_code', 'Kind of help that was asked for.'),
            (NULL, 'inviter_id', 'Who sent the invitation: msft or the id of an organization.'),
            (NULL, 'inviter', 'Name of who sent the invitation.'),
            (NULL, 'customer_duns', 'DUNS number of the customer.'),
            (NULL, 'is_estimated', 'Whether it was derived from the record''s own dates because the referral was not seen yet.'),
            (NULL, 'product', 'Product id, such as Azure.'),
            (NULL, 'service', 'Service id, such as ManagedServices.'),
            (NULL, 'sales_play', 'Id of the sales play.'),
            (NULL, 'offer', 'Id of the offer.'),
            ('industries', 'name', 'Its name, where the source gives one.'),
            ('products', 'name', 'Its name, where the source gives one.'),
            ('services', 'name', 'Its name, where the source gives one.'),
            ('sales_plays', 'name', 'Its name, where the source gives one.'),
            ('offers', 'name', 'Its name, where the source gives one.'),
            (NULL, 'attribute', 'Type of the requirement, such as SolutionArea.'),
            (NULL, 'value', 'What it says.'),
            (NULL, 'tag', 'A tag.'),
            (NULL, 'earliest_won_at', 'When the deal may be won at the earliest to be registered: 72 hours after its creation.'),
            (NULL, 'register_by', 'Until when it must be registered: 60 days after the contract was signed.'),
            ('value_changes', 'changed_at', 'When the new value began.'),
            ('value_changes', 'old_value', 'Value before, in old_currency.'),
            ('value_changes', 'new_value', 'Value from then on, in currency.'),
            ('value_changes', 'old_currency', 'Currency before.'),
            ('value_changes', 'customer', 'Customer''s company.'),
            ('changes', 'changed_at', 'When the change took effect.'),
            ('changes', 'column_name', 'Column of partner_center.referrals, or a child table without its prefix; payload where only members without a column changed.'),
            ('changes', 'old_value', 'What the source''s record said before.'),
            ('changes', 'new_value', 'What it said from then on.'),
            (NULL, 'run', 'The run that stored it, as in bi.runs.'),
            (NULL, 'counted_by', 'created: by the month of creation; closed: by the month of closing.'),
            (NULL, 'unanswered', 'How many incoming referrals still wait for an answer; they are not in the median yet.'),
            (NULL, 'is_complete', 'Whether the month is over and nothing of it can change the figures by being answered.'),
            ('data_quality', 'referrals', 'How many referrals the source lists.'),
            (NULL, 'unknown_direction', 'Referrals whose direction the source does not say.'),
            (NULL, 'awaiting_with_unknown_direction', 'Those of them that may wait for an answer; in no other count of what waits.'),
            (NULL, 'missing_value', 'Open referrals without a value.'),
            (NULL, 'missing_currency', 'Values without a currency.'),
            (NULL, 'past_expected_close', 'Open referrals whose expected day of closing is over.'),
            (NULL, 'missing_contacts', 'Open referrals without a contact at the customer.'),
            (NULL, 'rejected_records', 'Records that could not be stored.'),
            (NULL, 'unknown_members', 'Members of the API that no document names, in the last 30 days.'),
            (NULL, 'id', 'Id of the referral.'),
            (NULL, 'referral_id', 'Id of the referral, as id in bi.referrals.'),
            (NULL, 'position', 'Place in the source''s list, from 0.'),
            (NULL, 'category', 'Co-sell, Marketplace lead, Qualified lead or Other, by the documented rules on type, qualification and inviter; any Shared referral is Co-sell.'),
            (NULL, 'respond_by', 'Until when an incoming referral that still waits must be answered: as the source says, else 14 days after creation. Null for all others.'),
            (NULL, 'deal_value', 'Value of the deal, in the row''s currency: never add across currencies.'),
            (NULL, 'is_spam', 'Whether the source calls the lead spam; false where it says nothing.'),
            (NULL, 'is_open', 'Whether the status is anything but Closed.'),
            (NULL, 'is_won', 'Whether the referral is closed as won.'),
            (NULL, 'age_days', 'Days since creation, as of now.'),
            (NULL, 'hours_to_accept', 'Hours from creation until it was accepted; null until then, and about 0 for outgoing deals.'),
            (NULL, 'changed_at', 'When the copy of this referral last changed (time of this database).'),
            (NULL, 'deleted_at', 'When a reconcile found that the source no longer lists it (time of this database).'),
            (NULL, 'days_left', 'Days until respond_by, as of now; negative when it is over.'),
            (NULL, 'is_overdue', 'Whether respond_by is over.'),
            (NULL, 'seller_email', 'E-mail of one of our sellers on the deal, in lower case.'),
            (NULL, 'seller_first_name', 'First name of that seller.'),
            (NULL, 'seller_last_name', 'Last name of that seller.'),
            (NULL, 'day', 'A day.'),
            ('pipeline_daily', 'day', 'The day at whose end the pipeline stood so, in the time zone of bi.settings.'),
            ('pipeline_daily', 'deals', 'How many open referrals there were.'),
            ('pipeline_daily', 'deal_value', 'The sum of their values, in this row''s currency.'),
            (NULL, 'step', 'Which stage of the referral this is, from 1.'),
            (NULL, 'entered_at', 'When the stage began.'),
            (NULL, 'left_at', 'When it ended; null while it lasts.'),
            (NULL, 'days', 'How long it lasted, or has lasted until now, in days.'),
            (NULL, 'month', 'First day of the month.'),
            (NULL, 'quarter', 'First day of the quarter.'),
            (NULL, 'year', 'First day of the year.'),
            (NULL, 'iso_year', 'Year of the ISO week.'),
            (NULL, 'iso_week', 'ISO week, 1 to 53.'),
            (NULL, 'iso_weekday', '1 for Monday to 7 for Sunday.'),
            (NULL, 'referrals', 'How many referrals.'),
            (NULL, 'open_referrals', 'How many of them are open.'),
            (NULL, 'won_referrals', 'How many of them are won.'),
            (NULL, 'won', 'How many were won.'),
            (NULL, 'lost', 'How many were lost.'),
            (NULL, 'declined', 'How many were declined.'),
            (NULL, 'expired', 'How many expired unanswered.'),
            (NULL, 'win_rate', 'Won among those won or lost, from 0 to 1; null while none is either.'),
            (NULL, 'median_hours_to_accept', 'Median hours until incoming referrals were accepted; null for outgoing ones.'),
            (NULL, 'first_created_at', 'When their first referral was created.'),
            (NULL, 'last_updated_at', 'When the source last changed one of them.'),
            (NULL, 'industry', 'Industry id, such as Healthcare.'),
            (NULL, 'email', 'E-mail address.'),
            (NULL, 'first_name', 'First name.'),
            (NULL, 'last_name', 'Last name.'),
            (NULL, 'title', 'Job title.'),
            (NULL, 'phone_number', 'Phone number; personal data.'),
            (NULL, 'change', 'first (seen first), changed, deleted (at the source) or back (listed again).'),
            ('status_changes', 'changed_at', 'When the new status began.'),
            (NULL, 'from_status', 'Status before.'),
            (NULL, 'to_status', 'Status from then on.'),
            (NULL, 'from_substatus', 'Substatus before.'),
            (NULL, 'to_substatus', 'Substatus from then on.'),
            (NULL, 'recorded_at', 'When this database stored it.'),
            (NULL, 'health', 'ok, loading, never ran, failing, or action required.'),
            (NULL, 'watermark', 'The newest change at the source that the copy has.'),
            (NULL, 'live_referrals', 'Rows that the source lists.'),
            (NULL, 'open_rejects', 'Rejected records: they could not be stored.'),
            (NULL, 'solution_id', 'Id of the solution: a category or a catalogue id.'),
            ('solutions', 'name', 'Name of the solution.'),
            ('solutions', 'currency', 'Currency of the price.'),
            (NULL, 'publisher_name', 'Publisher of the solution.'),
            (NULL, 'solution_type', 'Type of the solution, such as 3P.'),
            ('solutions', 'type', 'How it is named: Category or Name (a catalogue id).'),
            ('data_quality', 'unreadable_members', 'Referrals with a member that is not what its column takes.'),
            (NULL, 'price', 'Price in the row''s currency.'),
            (NULL, 'quantity', 'How many.')
        )
        SELECT c.relname AS view_name, a.attname AS column_name,
            coalesce(own.text, word.text, col_description('partner_center.referrals'::regclass, r.attnum),
                col_description('partner_center.referral_registrations'::regclass, g.attnum)) AS text
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN words own ON own.view_name = c.relname AND own.column_name = a.attname
        LEFT JOIN words word ON word.view_name IS NULL AND word.column_name = a.attname
        LEFT JOIN pg_attribute r ON r.attrelid = 'partner_center.referrals'::regclass AND r.attname = a.attname
        LEFT JOIN pg_attribute g ON g.attrelid = 'partner_center.referral_registrations'::regclass AND g.attname = a.attname
        WHERE c.relnamespace = 'bi'::regnamespace AND c.relkind = 'v' AND col_description(c.oid, a.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN bi.%I.%I IS %L', col.view_name, col.column_name, col.text);
    END LOOP;
END
$$;
