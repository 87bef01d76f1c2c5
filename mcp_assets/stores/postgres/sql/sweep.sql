-- name: lock_sweep
-- The pass under way over the table of a type, and the counts of the last whole one. The row is locked, although an
-- advisory lock lets one process sweep at a time.
SELECT next_slot, pass AS number, counts, last_counts
FROM {schema}.sweeps WHERE entity_type = %(entity_type)s FOR NO KEY UPDATE

-- name: begin_sweep
-- Begins the first pass over the table of a type.
INSERT INTO {schema}.sweeps (entity_type) VALUES (%(entity_type)s) ON CONFLICT (entity_type) DO NOTHING

-- name: move_sweep
-- Records that a slice of the pass is done.
UPDATE {schema}.sweeps SET next_slot = %(next_slot)s, counts = %(counts)s::jsonb WHERE entity_type = %(entity_type)s

-- name: end_sweep_pass
-- Records that the last slice of the pass is done; the next pass begins with slot 0.
UPDATE {schema}.sweeps
SET next_slot = 0, pass = pass + 1, counts = '{}', pass_began_at = clock_timestamp(), last_counts = %(counts)s::jsonb,
    last_seconds = extract(epoch FROM clock_timestamp() - pass_began_at), last_ended_at = clock_timestamp()
WHERE entity_type = %(entity_type)s

-- name: sweep_findings
-- What earlier passes found of these rows, and whether the ledger row changed after its look.
SELECT finding.entity_id, finding.source_hash, finding.first_pass, finding.look_at IS NOT NULL AS has_look, EXISTS (
    SELECT FROM {schema}.entities AS ledger
    WHERE ledger.entity_type = finding.entity_type AND ledger.entity_id = finding.entity_id
      AND ledger.changed_at > finding.look_at
) AS changed_since
FROM {schema}.sweep_findings AS finding
WHERE finding.entity_type = %(entity_type)s AND finding.entity_id = ANY(%(ids)s)

-- name: keep_sweep_findings
-- Keeps the rows of a slice that differ. The time of a look stays while the row differs in the same way.
INSERT INTO {schema}.sweep_findings AS known
    (entity_type, entity_id, slot, source_hash, first_pass, seen_pass, look_at)
SELECT %(entity_type)s, entity_id, slot, source_hash, first_pass, %(pass)s,
       CASE WHEN asks THEN clock_timestamp() END
FROM unnest(%(entity_id)s::text[], %(slot)s::integer[], %(source_hash)s::text[], %(first_pass)s::bigint[],
            %(asks)s::boolean[]) AS finding (entity_id, slot, source_hash, first_pass, asks)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO UPDATE
SET source_hash = excluded.source_hash, first_pass = excluded.first_pass, seen_pass = excluded.seen_pass,
    look_at = CASE WHEN excluded.look_at IS NOT NULL THEN excluded.look_at
                   WHEN known.source_hash IS NOT DISTINCT FROM excluded.source_hash THEN known.look_at END

-- name: forget_sweep_findings
-- Deletes findings about rows of the slice that do not differ any more.
DELETE FROM {schema}.sweep_findings
WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s AND seen_pass < %(pass)s

-- name: waiting_in_inbox
-- Entities that a message of the inbox names already.
SELECT DISTINCT entity_id FROM {schema}.inbox
WHERE kind IN ('entity', 'relate') AND entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: read_sweeps
-- The last whole pass over each table, with its age in seconds.
SELECT entity_type, last_counts, extract(epoch FROM clock_timestamp() - last_ended_at)::float8 AS age_s
FROM {schema}.sweeps WHERE last_ended_at IS NOT NULL ORDER BY entity_type
