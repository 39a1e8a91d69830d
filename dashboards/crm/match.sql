-- Makes the view crm_match: referrals beside the opportunities of a table that you have. What to give: docs/crm-match.md.
--
--   psql -v opportunities=crm.opportunity -v id=opportunity_id -v value=amount ... -f match.sql ADDRESS
--
-- Each variable but `opportunities` and `schema` is an SQL expression over one row of that table.
\set ON_ERROR_STOP on
\set QUIET on
\if :{?opportunities} \else
    DO $$ BEGIN RAISE 'The table of opportunities is not named.' USING HINT = 'Add -v opportunities=crm.opportunity.'; END $$;
\endif
\if :{?id} \else
    DO $$ BEGIN RAISE 'The column that identifies an opportunity is not named.' USING HINT = 'Add -v id=opportunity_id.'; END $$;
\endif
\if :{?schema} \else \set schema crm
\endif
\if :{?reference} \else \set reference :id
\endif
\if :{?msx} \else \set msx NULL
\endif
\if :{?value} \else \set value NULL
\endif
\if :{?currency} \else \set currency NULL
\endif
\if :{?stage} \else \set stage NULL
\endif
\if :{?won} \else \set won NULL
\endif
\if :{?lost} \else \set lost NULL
\endif
\if :{?closing} \else \set closing NULL
\endif
\if :{?where} \else \set where true
\endif

SET client_min_messages = warning;
BEGIN;
CREATE SCHEMA IF NOT EXISTS :"schema";
DROP VIEW IF EXISTS :"schema".crm_match; -- its columns may have other types now
CREATE VIEW :"schema".crm_match AS
WITH referral AS ( -- by itself, so that nothing else of a referral is sorted
    SELECT account, id, nullif(btrim(external_reference_id), '') AS reference, nullif(btrim(microsoft_msx_id), '') AS msx
    FROM bi.referrals
    WHERE NOT is_spam AND coalesce(external_reference_id, microsoft_msx_id) IS NOT NULL
),
opportunity AS (
    SELECT (:id)::text AS id,
        nullif(btrim((:reference)::text), '') AS reference,
        nullif(btrim((:msx)::text), '') AS msx,
        (:value)::numeric AS deal_value,
        upper((:currency)::text) AS currency,
        (:stage)::text AS stage,
        CASE WHEN (:won) THEN 'Won' WHEN (:lost) THEN 'Lost' WHEN (:stage) IS NOT NULL THEN 'Open' END AS state,
        (:closing)::date AS closing_on
    FROM :opportunities
    WHERE :where
),
match AS ( -- lengths are compared too, because PostgreSQL, which knows nothing of trimmed ids, else expects a thousand times the pairs
    SELECT account, referral_id, opportunity_id,
        concat_ws(' and ', CASE WHEN bool_or(by_reference) THEN 'reference' END, CASE WHEN NOT bool_and(by_reference) THEN 'MSX id' END)
            AS matched_by,
        count(*) OVER (PARTITION BY account, referral_id) AS opportunities
    FROM (
        SELECT r.account, r.id AS referral_id, o.id AS opportunity_id, true AS by_reference
        FROM referral r JOIN opportunity o ON o.reference = r.reference AND length(o.reference) = length(r.reference)
        UNION ALL
        SELECT r.account, r.id, o.id, false FROM referral r JOIN opportunity o ON o.msx = r.msx AND length(o.msx) = length(r.msx)
    ) found
    GROUP BY account, referral_id, opportunity_id
),
beside AS (
    SELECT r.account, r.id AS referral_id, o.id AS opportunity_id,
        CASE
            WHEN r.id IS NULL THEN 'opportunity only'
            WHEN m.opportunities > 1 THEN 'ambiguous'
            WHEN m.opportunities = 1 THEN 'linked'
            WHEN r.external_reference_id IS NOT NULL THEN 'broken'
            ELSE 'unlinked'
        END AS link,
        m.matched_by, r.name, r.customer_name, r.direction, r.external_reference_id, r.microsoft_msx_id,
        r.deal_value AS referral_value, o.deal_value AS opportunity_value,
        r.currency AS referral_currency, o.currency AS opportunity_currency,
        r.state AS referral_state, o.state AS opportunity_state, o.stage AS opportunity_stage,
        r.closing_on AS referral_closing_on, o.closing_on AS opportunity_closing_on,
        coalesce(r.currency IS NOT DISTINCT FROM coalesce(o.currency, r.currency) AND r.deal_value <> o.deal_value, false)
            AS has_value_conflict,
        coalesce(r.currency <> o.currency, false) AS has_currency_conflict,
        coalesce(r.state <> o.state, false) AS has_stage_conflict,
        coalesce(r.is_open AND r.closing_on <> o.closing_on, false) AS has_date_conflict
    FROM (
        SELECT account, id, name, customer_name, direction, deal_value, currency, closing_on, is_open,
            CASE WHEN is_open THEN 'Open' WHEN is_won THEN 'Won' ELSE 'Lost' END AS state,
            nullif(btrim(external_reference_id), '') AS external_reference_id,
            nullif(btrim(microsoft_msx_id), '') AS microsoft_msx_id
        FROM bi.referrals
        WHERE NOT is_spam
    ) r
    LEFT JOIN match m ON m.account = r.account AND m.referral_id = r.id
    FULL JOIN opportunity o ON o.id = m.opportunity_id AND length(o.id) = length(m.opportunity_id)
)
SELECT *, has_value_conflict OR has_currency_conflict OR has_stage_conflict OR has_date_conflict AS has_conflict FROM beside;

COMMENT ON VIEW :"schema".crm_match IS 'Referrals beside opportunities, by equal ids alone: a row for each pair, and for each of either side that has no other. Made by dashboards/crm/match.sql; nothing is written to the CRM or to Partner Center.';
COMMENT ON COLUMN :"schema".crm_match.link IS 'linked; ambiguous: the referral finds several opportunities; broken: its external reference finds none; unlinked: it has no reference and its MSX id finds none; opportunity only: no referral finds it.';
COMMENT ON COLUMN :"schema".crm_match.matched_by IS 'reference, MSX id, or both.';
COMMENT ON COLUMN :"schema".crm_match.has_value_conflict IS 'Whether the values differ in the same currency; where the opportunity names no currency, that of the referral is meant.';
COMMENT ON COLUMN :"schema".crm_match.has_currency_conflict IS 'Whether both name a currency, and another one.';
COMMENT ON COLUMN :"schema".crm_match.has_stage_conflict IS 'Whether one is open, won or lost and the other is not. Declined, expired and faulty referrals count as lost.';
COMMENT ON COLUMN :"schema".crm_match.has_date_conflict IS 'Whether the expected days of closing differ while the referral is open.';
COMMIT;
