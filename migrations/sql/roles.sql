-- Who may read what. Run by a superuser or a role with CREATEROLE; may be run again, and by two databases of a cluster.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['bi_reader', 'bi_reader_pii'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
                EXECUTE format('GRANT %I TO CURRENT_USER', role_name); -- `referral-sync mcp` asks as the reader
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL; -- another database of the cluster was faster
            END;
        END IF;
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA bi TO bi_reader, bi_reader_pii;
GRANT SELECT ON ALL TABLES IN SCHEMA bi TO bi_reader, bi_reader_pii;
REVOKE SELECT ON bi.customer_contacts, bi.notes, bi.team_phones FROM bi_reader;
