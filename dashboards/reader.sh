#!/bin/sh
# Makes the sign-in of dashboards while PostgreSQL makes its database; migrations give its role something to read.
set -eu
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 \
    --set password="$(cat /run/secrets/dashboards_password)" <<'SQL'
CREATE ROLE bi_reader NOLOGIN;
CREATE ROLE bi_reader_pii NOLOGIN;
CREATE ROLE dashboards LOGIN PASSWORD :'password' IN ROLE bi_reader;
ALTER ROLE dashboards SET statement_timeout = '60s';
SQL
