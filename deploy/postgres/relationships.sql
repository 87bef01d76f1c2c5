-- The table of edges, and what the platform may do with it: read all edges, and write its own. Run after roles.sql.
--
-- A table of edges that others made before is adopted once, by its owner, before this file is run:
--     DATABASE_URL=postgresql://OWNER@HOST/DATABASE mcp-assets migrate
-- Without one, it is made here as the platform makes it.

CREATE TABLE IF NOT EXISTS public.relationships (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source_type       text COLLATE "C",
    source_id         text COLLATE "C" NOT NULL,
    target_type       text COLLATE "C",
    target_id         text COLLATE "C" NOT NULL,
    relationship_type text COLLATE "C" NOT NULL,
    strength          real NOT NULL CHECK (strength BETWEEN 0 AND 1),
    metadata          jsonb NOT NULL DEFAULT '{}',
    origin            text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS relationships_by_source ON public.relationships
    (source_id, target_id, relationship_type, source_type, target_type, origin) NULLS NOT DISTINCT;
CREATE INDEX IF NOT EXISTS relationships_by_target_id ON public.relationships (target_id, target_type);

GRANT USAGE ON SCHEMA public TO mcp_assets;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.relationships TO mcp_assets;
GRANT USAGE ON SCHEMA public TO mcp_assets_search;
GRANT SELECT ON public.relationships TO mcp_assets_search;

-- Rows of others are closed to the role. Triggers rather than row-level security, because COPY, by which the platform
-- writes its edges, is refused on a table with that. Their condition is read without a call for every other role.
CREATE OR REPLACE FUNCTION public.refuse_edges_of_others() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'permission denied for rows of % whose origin is not mcp_assets', TG_RELID::regclass
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE OR REPLACE TRIGGER only_own_edges_are_inserted AFTER INSERT ON public.relationships FOR EACH ROW
    WHEN (current_user = 'mcp_assets' AND NEW.origin IS DISTINCT FROM 'mcp_assets')
    EXECUTE FUNCTION public.refuse_edges_of_others();
CREATE OR REPLACE TRIGGER only_own_edges_are_updated AFTER UPDATE ON public.relationships FOR EACH ROW
    WHEN (current_user = 'mcp_assets'
          AND (OLD.origin IS DISTINCT FROM 'mcp_assets' OR NEW.origin IS DISTINCT FROM 'mcp_assets'))
    EXECUTE FUNCTION public.refuse_edges_of_others();
CREATE OR REPLACE TRIGGER only_own_edges_are_deleted AFTER DELETE ON public.relationships FOR EACH ROW
    WHEN (current_user = 'mcp_assets' AND OLD.origin IS DISTINCT FROM 'mcp_assets')
    EXECUTE FUNCTION public.refuse_edges_of_others();
