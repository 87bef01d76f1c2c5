-- The roles of mcp_assets, with the rights that the platform needs and no others. Needs PostgreSQL 15 or later.
--
-- Run in the platform's database, as a superuser or as a role that may create roles and owns the database:
--     psql --single-transaction --set ON_ERROR_STOP=1 --file roles.sql DATABASE
-- then relationships.sql and source_tables.sql in the same way, and give the roles that log in their passwords with \password.
-- All three may be run again. Names of schemas are those of the defaults: change them here if your settings do.

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['mcp_assets', 'mcp_assets_reader', 'mcp_assets_dagster', 'mcp_assets_search'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role_name);
        END IF;
    END LOOP;
END
$$;

-- The role of DATABASE_URL. It owns the platform's schema, so that a new version migrates it without further rights.
ALTER ROLE mcp_assets LOGIN INHERIT CONNECTION LIMIT 150;
CREATE SCHEMA IF NOT EXISTS mcp_assets AUTHORIZATION mcp_assets;

-- Owns Dagster's storage: runs, events, schedules. A deployment that keeps this storage by an address of its own gives
-- this role LOGIN and a password; otherwise DATABASE_URL reaches it, too.
CREATE SCHEMA IF NOT EXISTS dagster AUTHORIZATION mcp_assets_dagster;
GRANT mcp_assets_dagster TO mcp_assets;

-- Reads the source tables (source_tables.sql). For sources in another database (MCP_ASSETS_SOURCE_DATABASE_URL), make
-- it there with LOGIN and a password, and run source_tables.sql there.
GRANT mcp_assets_reader TO mcp_assets;

-- Reads the index and changes nothing: of `mcp-assets mcp`, and of people who search. Present and future tables.
ALTER ROLE mcp_assets_search LOGIN CONNECTION LIMIT 20;
GRANT USAGE ON SCHEMA mcp_assets TO mcp_assets_search;
GRANT SELECT ON ALL TABLES IN SCHEMA mcp_assets TO mcp_assets_search;
ALTER DEFAULT PRIVILEGES FOR ROLE mcp_assets IN SCHEMA mcp_assets GRANT SELECT ON TABLES TO mcp_assets_search;

DO $$
BEGIN
    -- TEMPORARY: comparisons fill temporary tables. CREATE is not granted: the platform makes no schema.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO mcp_assets', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO mcp_assets_reader', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO mcp_assets_dagster, mcp_assets_search', current_database());
END
$$;
