-- What the platform may do with the source tables: read them. Run after roles.sql; list your own tables here.
-- The commands `load`, `entities add`, and merges by `conflicts resolve` write source rows: who uses them grants
-- INSERT, UPDATE and DELETE, too, or runs them by an address of another role.

GRANT USAGE ON SCHEMA public TO mcp_assets_reader;
GRANT SELECT ON TABLE public.tasks, public.wiki_pages, public.memory_nodes TO mcp_assets_reader;
