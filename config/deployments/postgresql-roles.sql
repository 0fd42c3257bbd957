-- One database role per process, each with what its process does and nothing more. For psql, as a superuser; may be repeated.
--
--   psql -f postgresql-roles.sql postgres        before the tables exist: makes roles and database
--   fleetca import, or fleetca migrate           as the signer's user: makes the tables
--   psql -f postgresql-roles.sql postgres        grants what stands below; again after every fleetca migrate
--
-- Another name for the database: psql -v database=NAME ...
--
-- The roles have the names of the system's users, so that PostgreSQL's peer authentication lets each in without a password.
-- Where a password is wanted: \password "fleetca-enroll"
--
--   fleetca-signer     owns the tables and is the only one that writes what the authority decides
--   fleetca-enroll     reads what devices and operators may ask about; writes what it agrees on with clients of its protocols (ACME), which
--                      decides nothing
--   fleetca-status     reads the state of certificates
--   fleetca-publisher  reads; takes leases; gives leaves their place in the record and keeps checkpoints. It can neither add a leaf nor
--                      change what stands in one

\set ON_ERROR_STOP on
\if :{?database}
\else
\set database fleetca
\endif

SELECT format('CREATE ROLE %I LOGIN', name)
  FROM unnest(ARRAY['fleetca-signer', 'fleetca-enroll', 'fleetca-status', 'fleetca-publisher']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING %L', :'database', 'fleetca-signer', 'UTF8')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO "fleetca-enroll", "fleetca-status", "fleetca-publisher";
-- What only reads cannot even begin a transaction that writes; enrolment says so where it writes its own tables.
ALTER ROLE "fleetca-enroll" SET default_transaction_read_only = on;
ALTER ROLE "fleetca-status" SET default_transaction_read_only = on;

\connect :"database"

BEGIN;
ALTER SCHEMA public OWNER TO "fleetca-signer";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO "fleetca-enroll", "fleetca-status", "fleetca-publisher";
-- From here on it starts from nothing each time, so that what an older version granted is gone.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, "fleetca-enroll", "fleetca-status", "fleetca-publisher";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, "fleetca-enroll", "fleetca-status", "fleetca-publisher";

SELECT to_regclass('certificates') IS NOT NULL AS tables \gset
\if :tables
GRANT SELECT ON certificates, certificate_names, devices, keys, operators, issuers, revocations, leaves, checkpoints, counters, renewal_orders
   TO "fleetca-enroll";
-- A one-time token binds an ACME account (RFC 8555 7.3.4): nobody else may read them.
GRANT SELECT ON tokens, approvals, proposals TO "fleetca-enroll";
GRANT SELECT ON certificates, revocations, issuers, counters
   TO "fleetca-status";
GRANT SELECT ON certificates, revocations, issuers, operators, counters, crls, crl_shards, leaves, checkpoints, leases, proposals
   TO "fleetca-publisher";
GRANT INSERT, UPDATE ON leases TO "fleetca-publisher";
GRANT UPDATE (position) ON leaves TO "fleetca-publisher";
GRANT INSERT ON checkpoints TO "fleetca-publisher";
\else
\echo 'There are no tables yet: run fleetca migrate, then this file again.'
\endif
SELECT to_regclass('acme_accounts') IS NOT NULL AS protocols \gset
\if :protocols
GRANT SELECT, INSERT, DELETE ON enroll_secrets TO "fleetca-enroll";
GRANT SELECT, INSERT, UPDATE, DELETE ON acme_nonces, acme_accounts, acme_orders, acme_authorizations, acme_failures TO "fleetca-enroll";
GRANT SELECT, INSERT, UPDATE ON agent_reports TO "fleetca-enroll";
\endif
COMMIT;
