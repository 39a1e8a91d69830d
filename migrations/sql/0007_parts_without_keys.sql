-- Parts are written only under the lock of their referral's row, which is what keeps them whole: the keys that checked it
-- again, row by row, were half of what PostgreSQL did in a first load (docs/decisions). Deleting a referral still takes them along.
LOCK TABLE partner_center.referrals, partner_center.referral_team_members, partner_center.referral_customer_contacts,
    partner_center.referral_customer_ids, partner_center.referral_requirements, partner_center.referral_solutions,
    partner_center.referral_targets, partner_center.referral_registrations, partner_center.referral_tags,
    partner_center.referral_registration_solutions IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE one record;
BEGIN
    FOR one IN
        SELECT conrelid::regclass AS part, conname FROM pg_constraint
        WHERE connamespace = 'partner_center'::regnamespace AND conrelid <> 'partner_center.referral_versions'::regclass
            AND (contype = 'f' OR contype = 'p' AND conrelid <> 'partner_center.referrals'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.part, one.conname);
    END LOOP;
END
$$;

CREATE FUNCTION partner_center.delete_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM partner_center.referral_team_members p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_customer_contacts p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_customer_ids p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_requirements p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_solutions p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_targets p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_registrations p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_tags p USING gone WHERE p.account = gone.account AND p.referral_id = gone.id;
    DELETE FROM partner_center.referral_registration_solutions p USING gone
        WHERE p.account = gone.account AND p.referral_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER referrals_delete_parts AFTER DELETE ON partner_center.referrals
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION partner_center.delete_parts();

CREATE FUNCTION partner_center.truncate_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE partner_center.referral_team_members, partner_center.referral_customer_contacts,
        partner_center.referral_customer_ids, partner_center.referral_requirements, partner_center.referral_solutions,
        partner_center.referral_targets, partner_center.referral_registrations, partner_center.referral_tags,
        partner_center.referral_registration_solutions;
    RETURN NULL;
END
$$;
CREATE TRIGGER referrals_truncate_parts AFTER TRUNCATE ON partner_center.referrals
    FOR EACH STATEMENT EXECUTE FUNCTION partner_center.truncate_parts();
