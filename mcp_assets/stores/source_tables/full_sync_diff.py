"""Differences for a full sync: a temporary table of every entity of a range of slots that a full sync processes."""

from itertools import islice

from psycopg import sql

from mcp_assets.entities.refs import slot_of
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables import merge
from mcp_assets.stores.source_tables.mapping_sql import ComparedSlots, slot_of_id

_PLANNING = """
SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 64 * 1024) || 'kB', %(own)s),
       set_config('parallel_setup_cost', '0', %(own)s), set_config('parallel_tuple_cost', '0', %(own)s),
       set_config('cursor_tuple_fraction', '1', %(own)s), set_config('jit', 'off', %(own)s)
"""
"""The hash join of a million rows stays in memory; parallel workers are used, because the planner underestimates what
md5 of a row costs; and a cursor is planned for all of its rows, because fetching each row in the order of an index
would be random reads. `own`: for the transaction alone."""


def find_in_sql(compared: ComparedSlots, connection: Connection, *, force: bool) -> None:
    """Compare a table that is in the database of the ledger, in one statement."""
    connection.execute(_PLANNING, {"own": False})
    statement = compared.fill(
        """
        CREATE TEMPORARY TABLE differing AS
        SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, bytes
        FROM (
            SELECT coalesce(source.id, found.entity_id) AS entity_id, {slot_of_found} AS slot,
                   CASE WHEN source.id IS NOT NULL THEN source.bytes ELSE (
                       SELECT octet_length(content) FROM {entities} AS ledger
                       WHERE ledger.entity_type = {entity_type} AND ledger.entity_id = found.entity_id
                   ) END AS bytes
            FROM (
                SELECT {id} AS id, {hash} AS hash, {bytes} AS bytes FROM {table} WHERE {has_entity}
            ) AS source
            FULL JOIN (
                SELECT entity_id, origin, source_hash, prepared_by, deleted_at, dirty FROM {entities} WHERE {in_ledger}
            ) AS found ON source.id = found.entity_id
            WHERE coalesce(found.dirty, false) OR CASE
                WHEN source.id IS NULL THEN
                    found.deleted_at IS NULL AND (found.origin = 'source' OR found.prepared_by <> {prepared_by})
                ELSE {force} OR found.entity_id IS NULL OR found.deleted_at IS NOT NULL
                    OR found.source_hash IS DISTINCT FROM source.hash OR found.prepared_by <> {prepared_by}
            END OR ({force} AND found.deleted_at IS NULL)
        ) AS found
        """,
        slot_of_found=slot_of_id(sql.SQL("coalesce(source.id, found.entity_id)")),
        force=sql.Literal(force),
    )
    compared.table.run(lambda: connection.execute(statement))


def find_across_databases(compared: ComparedSlots, connection: Connection, *, force: bool) -> None:
    """Compare a table that is in another database: both sides come in the order of ids and are merged."""
    connection.execute(_PLANNING, {"own": False})
    source = compared.fill("SELECT {id}, {hash}, {bytes} FROM {table} WHERE {has_entity} ORDER BY {id}")
    ledger = compared.fill(
        """
        SELECT entity_id,
               CASE WHEN deleted_at IS NULL AND NOT dirty AND NOT {force} AND prepared_by = {prepared_by}
                    THEN source_hash END AS hash_if_current,
               CASE WHEN dirty OR (deleted_at IS NULL
                                   AND ({force} OR origin = 'source' OR prepared_by <> {prepared_by}))
                    THEN octet_length(content) END AS bytes_without_row
        FROM {entities} WHERE {in_ledger} ORDER BY entity_id
        """,
        force=sql.Literal(force),
    )
    connection.execute('CREATE TEMPORARY TABLE found (entity_id text COLLATE "C", slot integer, bytes bigint)')
    with merge.both_sides(
        compared.table,
        connection,
        lambda other: other.execute(_PLANNING, {"own": True}),
        (source, merge.SourceSize),
        (ledger, merge.LedgerSize),
    ) as (theirs, ours):
        rows = merge.differing(theirs, ours)
        while page := list(islice(rows, ours.itersize)):
            with connection.cursor() as cursor, cursor.copy("COPY found FROM STDIN") as writer:
                for entity_id, size in page:
                    writer.write_row((entity_id, slot_of(entity_id), size))
    connection.execute(
        "CREATE TEMPORARY TABLE differing AS"
        " SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, bytes FROM found"
    )
    connection.execute("DROP TABLE found")
