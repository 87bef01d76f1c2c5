-- name: lock_entities
-- In the order of ids, so that two batches do not wait for each other.
SELECT entity_id, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash, event_order,
       deleted_at IS NOT NULL AS deleted, dirty, changes
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)
ORDER BY entity_id
FOR NO KEY UPDATE

-- name: insert_entities
-- Texts travel in binary: in an array's text form, each quote in them is escaped, in Python.
INSERT INTO {schema}.entities
    (entity_type, entity_id, slot, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash,
     event_order, changes, deleted_at, chunk_bound)
SELECT %(entity_type)s, entity_id, slot, origin, title, content, metadata::jsonb, source_hash, %(prepared_by)s,
       text_hash, state_hash, event_order, changes::jsonb, CASE WHEN deleted THEN now() END, chunks
FROM unnest(
    %(entity_id)s::text[], %(slot)s::integer[], %(origin)s::text[], %(title)b::text[], %(content)b::text[],
    %(metadata)b::text[], %(source_hash)s::text[], %(text_hash)s::text[], %(state_hash)s::text[],
    %(event_order)s::text[], %(changes)b::text[], %(deleted)s::boolean[], %(chunks)s::integer[]
) AS new (entity_id, slot, origin, title, content, metadata, source_hash, text_hash, state_hash, event_order, changes,
          deleted, chunks)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO NOTHING
RETURNING entity_id

-- name: update_entities
UPDATE {schema}.entities AS ledger
SET origin = new.origin, title = new.title, content = new.content, metadata = new.metadata::jsonb,
    source_hash = new.source_hash, prepared_by = %(prepared_by)s, text_hash = new.text_hash,
    state_hash = new.state_hash, event_order = new.event_order, changes = new.changes::jsonb,
    deleted_at = CASE WHEN new.deleted THEN coalesce(ledger.deleted_at, now()) END,
    dirty = ledger.dirty OR new.changed, chunk_bound = greatest(ledger.chunk_bound, new.chunks),
    changed_at = CASE WHEN new.changed THEN now() ELSE ledger.changed_at END
FROM unnest(
    %(entity_id)s::text[], %(origin)s::text[], %(title)b::text[], %(content)b::text[], %(metadata)b::text[],
    %(source_hash)s::text[], %(text_hash)s::text[], %(state_hash)s::text[], %(event_order)s::text[],
    %(changes)b::text[], %(deleted)s::boolean[], %(chunks)s::integer[], %(changed)s::boolean[]
) AS new (entity_id, origin, title, content, metadata, source_hash, text_hash, state_hash, event_order, changes, deleted,
          chunks, changed)
WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = new.entity_id

-- name: mark_dirty
-- Entities to be indexed although their rows did not change.
UPDATE {schema}.entities SET dirty = true WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: lock_states
-- The state now, to be compared with the state that was embedded.
SELECT entity_id, state_hash, deleted_at IS NOT NULL AS deleted, chunk_bound
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)
ORDER BY entity_id
FOR NO KEY UPDATE

-- name: read_embedded
-- What a collection holds of these entities, as last recorded.
SELECT entity_id, text_hash, state_hash, points, vector_checks
FROM {schema}.embedded
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s

-- name: write_embedded
-- Record what Qdrant has confirmed.
INSERT INTO {schema}.embedded
    (entity_type, entity_id, collection, model, text_hash, state_hash, points, vector_checks)
SELECT %(entity_type)s, entity_id, %(collection)s, %(model)s, text_hash, state_hash, points, vector_checks::float8[]
FROM unnest(%(entity_id)s::text[], %(text_hash)s::text[], %(state_hash)s::text[], %(points)s::integer[],
            %(vector_checks)s::text[])
    AS written (entity_id, text_hash, state_hash, points, vector_checks)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id, collection) DO UPDATE
SET model = excluded.model, text_hash = excluded.text_hash, state_hash = excluded.state_hash,
    points = excluded.points, vector_checks = excluded.vector_checks, embedded_at = now()

-- name: delete_embedded
DELETE FROM {schema}.embedded
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s

-- name: forget_replaced
-- Another batch may have written the same state and marked it clean. It is dirty until this batch has written it.
WITH forgotten AS (
    DELETE FROM {schema}.embedded
    WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s
)
UPDATE {schema}.entities SET dirty = true
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND NOT dirty

-- name: mark_clean
-- All collections hold the state; chunk_bound: they hold no chunk numbered this or higher.
UPDATE {schema}.entities AS ledger SET dirty = false, chunk_bound = written.chunks
FROM unnest(%(entity_id)s::text[], %(chunks)s::integer[]) AS written (entity_id, chunks)
WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = written.entity_id

-- name: forget_collection
-- A collection is gone: its entities are dirty.
WITH forgotten AS (DELETE FROM {schema}.embedded WHERE collection = %(collection)s)
UPDATE {schema}.entities SET dirty = true
WHERE entity_type = ANY(%(entity_types)s) AND deleted_at IS NULL AND NOT dirty

-- name: count_living
SELECT count(*) FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s

-- name: ledger_counts
-- An entity whose newest state was refused waits for a person, not for a run. It is a dead letter, and not counted.
SELECT ledger.entity_type, count(*) FILTER (WHERE ledger.deleted_at IS NULL) AS living,
       count(*) FILTER (WHERE ledger.dirty AND NOT EXISTS (
           SELECT FROM {schema}.dead_letters AS letter
           WHERE letter.entity_type = ledger.entity_type AND letter.entity_id = ledger.entity_id
             AND letter.stage IN ('apply', 'embed', 'upsert') AND letter.last_at >= ledger.changed_at
       )) AS dirty
FROM {schema}.entities AS ledger GROUP BY 1 ORDER BY 1

-- name: insert_failed
-- One dead letter an entity: a later failure replaces the earlier one.
INSERT INTO {schema}.dead_letters AS letter (stage, subject, entity_type, entity_id, raw, error_kind, error)
SELECT stage, subject, %(entity_type)s, entity_id, raw, error_kind, error
FROM unnest(%(stage)s::text[], %(subject)s::text[], %(entity_id)s::text[], %(raw)s::bytea[], %(error_kind)s::text[],
            %(error)s::text[])
    AS failed (stage, subject, entity_id, raw, error_kind, error)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) WHERE stage NOT IN ('intake', 'request') DO UPDATE
SET stage = excluded.stage, subject = coalesce(excluded.subject, letter.subject),
    raw = CASE WHEN excluded.raw = '' THEN letter.raw ELSE excluded.raw END,
    error_kind = excluded.error_kind, error = excluded.error, attempts = letter.attempts + 1, last_at = now(),
    replayed_at = NULL

-- name: resolve_dead_letters
-- These entities are indexed now.
DELETE FROM {schema}.dead_letters
WHERE stage NOT IN ('intake', 'request') AND entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: resolve_id_faults
-- Dead letters of source rows whose ids could not be those of entities, except the rows that still have such ids.
DELETE FROM {schema}.dead_letters
WHERE stage = 'apply' AND entity_type = %(entity_type)s AND error_kind = ANY(%(kinds)s) AND entity_id <> ALL(%(ids)s)

-- name: dead_letter_counts
SELECT stage, error_kind, count(*) AS letters FROM {schema}.dead_letters
WHERE replayed_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2

-- name: heartbeat
-- A drain, or a sensor, shows that it lives.
INSERT INTO {schema}.drains (entity_type, run_id) VALUES (%(entity_type)s, %(run_id)s)
ON CONFLICT (entity_type, run_id) DO UPDATE SET beat_at = now()

-- name: leave_drain
-- Also deletes old heartbeats, of processes that were killed.
DELETE FROM {schema}.drains WHERE entity_type = %(entity_type)s AND (run_id = %(run_id)s OR beat_at < now() - interval '1 hour')

-- name: drains
-- Each heartbeat, and whether some session holds the drain lock of its type.
SELECT drains.entity_type, drains.run_id, extract(epoch FROM now() - drains.beat_at)::float8 AS age_s,
       EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND (classid::bigint << 32 | objid::bigint)
                 = hashtextextended(%(lock_prefix)s || drains.entity_type, 0)
       ) AS locked
FROM {schema}.drains

-- name: differing_in_ledger
-- For a type without a source table, or a run without the stage of the ledger.
CREATE TEMPORARY TABLE differing AS
SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, octet_length(content) AS bytes
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s
  AND (dirty OR (deleted_at IS NULL AND (%(force)s OR prepared_by <> %(prepared_by)s)))

-- name: read_texts
SELECT entity_type, entity_id, title, content
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
