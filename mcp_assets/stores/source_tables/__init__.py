"""Source tables: the tables of the MCP servers, read through the mapping of each entity type, and compared in SQL.

`mapping_sql` is a mapping as SQL; `reader` is what `sync` calls. `database` is a PostgreSQL that holds source tables
and nothing of the platform's own; `merge` compares such a table with the ledger, row by row. `ids` and `rows` hold what
an id column and a metadata column can contain that an entity cannot. `full_sync_diff` and `slot_comparison` find the
rows that differ from the ledger. `catalog` lists the tables of a database, and `examine`
tries each part of a mapping by itself. `writer` is for loading sample entities alone.
"""
