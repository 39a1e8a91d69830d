-- A lease's fence becomes part of a key: then PostgreSQL tells a takeover, which changes it, from a renewal, which does not.
CREATE UNIQUE INDEX leases_fence ON sync.leases (account, kind, fence);

-- Parts are found by their referral alone, and a hash of it is a third of the size of the primary key and half the work.
-- First the new indexes, under locks that readers do not feel, and taken in the order in which writers take theirs.
LOCK TABLE partner_center.referral_team_members, partner_center.referral_customer_contacts,
    partner_center.referral_customer_ids, partner_center.referral_requirements, partner_center.referral_solutions,
    partner_center.referral_targets, partner_center.referral_registrations, partner_center.referral_tags,
    partner_center.referral_registration_solutions IN SHARE MODE;
CREATE INDEX referral_team_members_of ON partner_center.referral_team_members USING hash (referral_id);
CREATE INDEX referral_customer_contacts_of ON partner_center.referral_customer_contacts USING hash (referral_id);
CREATE INDEX referral_customer_ids_of ON partner_center.referral_customer_ids USING hash (referral_id);
CREATE INDEX referral_requirements_of ON partner_center.referral_requirements USING hash (referral_id);
CREATE INDEX referral_solutions_of ON partner_center.referral_solutions USING hash (referral_id);
CREATE INDEX referral_targets_of ON partner_center.referral_targets USING hash (referral_id);
CREATE INDEX referral_registrations_of ON partner_center.referral_registrations USING hash (referral_id);
CREATE INDEX referral_tags_of ON partner_center.referral_tags USING hash (referral_id);
CREATE INDEX referral_registration_solutions_of ON partner_center.referral_registration_solutions USING hash (referral_id);
