-- What dashboards read. Tables below may evolve; these views keep their names and columns.
CREATE SCHEMA bi;
COMMENT ON SCHEMA bi IS 'Stable, documented views for dashboards.';

CREATE VIEW bi.referrals AS
SELECT
    r.account,
    r.id,
    r.engagement_id,
    r.name,
    CASE
        WHEN r.type = 'Shared' THEN 'Co-sell'
        WHEN r.type = 'Independent' AND r.qualification = 'Direct' AND coalesce(r.invited_by_organization_id, 'msft') = 'msft' THEN 'Marketplace lead'
        WHEN r.type = 'Independent' AND r.qualification IN ('SalesQualified', 'MarketingQualified') AND r.invited_by_organization_id = 'msft' THEN 'Qualified lead'
        WHEN r.type = 'Independent' AND r.qualification IN ('SalesQualified', 'None') AND r.invited_by_organization_id IS DISTINCT FROM 'msft' THEN 'Co-sell'
        ELSE 'Other'
    END AS category,
    r.type,
    r.direction,
    r.qualification,
    r.status,
    r.substatus,
    r.status_reason,
    r.sales_stage,
    r.registration_status,
    r.deal_value,
    r.currency,
    r.customer_name,
    r.customer_size,
    r.customer_country,
    r.customer_city,
    r.created_at,
    r.updated_at,
    r.accepted_at,
    r.closed_at,
    r.closing_at,
    CASE WHEN r.status = 'New' AND r.direction = 'Incoming' THEN coalesce(r.expires_at, r.created_at + interval '14 days') END AS respond_by,
    r.mpn_id,
    r.external_reference_id,
    r.microsoft_msx_id,
    coalesce(r.is_spam, false) AS is_spam,
    r.changed_at
FROM partner_center.referrals r
WHERE r.deleted_at IS NULL;
COMMENT ON VIEW bi.referrals IS 'One row for each referral that the source lists now.';
COMMENT ON COLUMN bi.referrals.category IS 'Co-sell, Marketplace lead, Qualified lead or Other, by the documented rules on type, qualification and inviter; any Shared referral is Co-sell.';
COMMENT ON COLUMN bi.referrals.respond_by IS 'When an unanswered incoming referral expires: as the source says, else 14 days after creation.';
COMMENT ON COLUMN bi.referrals.deal_value IS 'In the deal''s own currency: never add across currencies.';

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
FROM partner_center.referral_versions v
LEFT JOIN LATERAL (
    SELECT b.status, b.substatus FROM partner_center.referral_versions b
    WHERE b.account = v.account AND b.referral_id = v.referral_id AND b.valid_from < v.valid_from
    ORDER BY b.valid_from DESC LIMIT 1
) before ON true
WHERE v.change <> 'changed' OR v.changed_columns && ARRAY['status', 'substatus'];
COMMENT ON VIEW bi.status_changes IS 'Each change of status or substatus since the referral was first seen; the first sight, gone and back are changes too.';

CREATE VIEW bi.freshness AS
SELECT account, health, watermark, fresh_as_of, verified_through, live_referrals, open_rejects FROM sync.status;
COMMENT ON VIEW bi.freshness IS 'How old the data is, and through when it was verified complete.';
COMMENT ON COLUMN bi.freshness.fresh_as_of IS 'Every change that the source showed before this moment is in the copy.';
COMMENT ON COLUMN bi.freshness.verified_through IS 'A full listing agreed with the copy about everything updated before this moment.';
