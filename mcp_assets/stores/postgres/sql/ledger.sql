-- name: lock_entities
-- Ledger rows, locked in the order of ids, so that two batches cannot block each other.
SELECT entity_id, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash, event_order,
       deleted_at IS NOT NULL AS deleted, dirty, changes
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)
ORDER BY entity_id
FOR NO KEY UPDATE

-- name: read_entities
-- Ledger rows as `lock_entities` returns them, not locked.
SELECT entity_id, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash, event_order,
       deleted_at IS NOT NULL AS deleted, dirty, changes
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: insert_entities
-- Inserts ledger rows, and returns the ids of those that were not there. Texts travel in binary: in an array's text
-- form, each quote in them is escaped, in Python.
INSERT INTO {schema}.entities
    (entity_type, entity_id, slot, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash,
     event_order, changes, deleted_at, chunk_bound, words_pending)
SELECT %(entity_type)s, entity_id, slot, origin, title, content, metadata::jsonb, source_hash, %(prepared_by)s,
       text_hash, state_hash, event_order, changes::jsonb, CASE WHEN deleted THEN now() END, chunks,
       coalesce(words_pending, false)
FROM unnest(
    %(entity_id)s::text[], %(slot)s::integer[], %(origin)s::text[], %(title)b::text[], %(content)b::text[],
    %(metadata)b::text[], %(source_hash)s::text[], %(text_hash)s::text[], %(state_hash)s::text[],
    %(event_order)s::text[], %(changes)b::text[], %(deleted)s::boolean[], %(chunks)s::integer[],
    %(words_pending)s::boolean[]
) AS new (entity_id, slot, origin, title, content, metadata, source_hash, text_hash, state_hash, event_order, changes,
          deleted, chunks, words_pending)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO NOTHING
RETURNING entity_id

-- name: update_entities
-- Updates ledger rows. Their deleted_at and changed_at stay unless the state changed, and words_pending stays where it
-- is given as NULL.
UPDATE {schema}.entities AS ledger
SET origin = new.origin, title = new.title, content = new.content, metadata = new.metadata::jsonb,
    source_hash = new.source_hash, prepared_by = %(prepared_by)s, text_hash = new.text_hash,
    state_hash = new.state_hash, event_order = new.event_order, changes = new.changes::jsonb,
    deleted_at = CASE WHEN new.deleted THEN coalesce(ledger.deleted_at, now()) END,
    dirty = ledger.dirty OR new.changed, chunk_bound = greatest(ledger.chunk_bound, new.chunks),
    changed_at = CASE WHEN new.changed THEN now() ELSE ledger.changed_at END,
    words_pending = coalesce(new.words_pending, ledger.words_pending)
FROM unnest(
    %(entity_id)s::text[], %(origin)s::text[], %(title)b::text[], %(content)b::text[], %(metadata)b::text[],
    %(source_hash)s::text[], %(text_hash)s::text[], %(state_hash)s::text[], %(event_order)s::text[],
    %(changes)b::text[], %(deleted)s::boolean[], %(chunks)s::integer[], %(changed)s::boolean[],
    %(words_pending)s::boolean[]
) AS new (entity_id, origin, title, content, metadata, source_hash, text_hash, state_hash, event_order, changes, deleted,
          chunks, changed, words_pending)
WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = new.entity_id

-- name: mark_dirty
-- Marks entities to be indexed although their rows did not change.
UPDATE {schema}.entities SET dirty = true WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: lock_states
-- The states of ledger rows, locked, to be compared with the states that were embedded.
SELECT entity_id, state_hash, deleted_at IS NOT NULL AS deleted, chunk_bound, fed_state
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)
ORDER BY entity_id
FOR NO KEY UPDATE

-- name: read_embedded
-- What the ledger records of the points of entities in a collection.
SELECT entity_id, text_hash, state_hash, points, vector_checks
FROM {schema}.embedded
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s

-- name: write_embedded
-- Records the points that Qdrant has confirmed.
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
-- Deletes what the ledger records of the points of entities in a collection.
DELETE FROM {schema}.embedded
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s

-- name: forget_replaced
-- Deletes what the ledger records of vectors that are about to be replaced, and marks their entities as dirty.
-- Another batch may have written the same state and marked it clean; the entity is dirty until this batch has
-- written it.
WITH forgotten AS (
    DELETE FROM {schema}.embedded
    WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND collection = %(collection)s
)
UPDATE {schema}.entities SET dirty = true
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND NOT dirty

-- name: mark_clean
-- Marks entities as clean: all collections hold their state, and no chunk numbered chunk_bound or higher.
UPDATE {schema}.entities AS ledger SET dirty = false, chunk_bound = written.chunks
FROM unnest(%(entity_id)s::text[], %(chunks)s::integer[]) AS written (entity_id, chunks)
WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = written.entity_id

-- name: mark_clean_and_tell
-- As `mark_clean`, and writes entries of the change feed about those of the entities whose `kind` is given.
WITH clean AS (
    UPDATE {schema}.entities AS ledger SET dirty = false, chunk_bound = written.chunks, fed_state = written.fed_state
    FROM unnest(%(entity_id)s::text[], %(chunks)s::integer[], %(fed_state)s::text[])
        AS written (entity_id, chunks, fed_state)
    WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = written.entity_id
)
INSERT INTO {schema}.changes (kind, reason, entity_type, entity_id, state_hash)
SELECT kind, reason, %(entity_type)s, entity_id, nullif(fed_state, '')
FROM unnest(%(entity_id)s::text[], %(fed_state)s::text[], %(kind)s::text[], %(reason)s::text[])
    AS told (entity_id, fed_state, kind, reason)
WHERE kind IS NOT NULL

-- name: forget_collection
-- Deletes what the ledger records of a collection that is gone, and marks its entities as dirty.
WITH forgotten AS (DELETE FROM {schema}.embedded WHERE collection = %(collection)s)
UPDATE {schema}.entities SET dirty = true
WHERE entity_type = ANY(%(entity_types)s) AND deleted_at IS NULL AND NOT dirty

-- name: count_living
-- The number of living entities in a range of slots.
SELECT count(*) FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s

-- name: ledger_counts
-- The numbers of living and of dirty entities of each type. An entity whose newest state was refused waits for a
-- person, not for a run: it has a dead letter, and does not count as dirty.
SELECT ledger.entity_type, count(*) FILTER (WHERE ledger.deleted_at IS NULL) AS living,
       count(*) FILTER (WHERE ledger.dirty AND NOT EXISTS (
           SELECT FROM {schema}.dead_letters AS letter
           WHERE letter.entity_type = ledger.entity_type AND letter.entity_id = ledger.entity_id
             AND letter.stage IN ('apply', 'embed', 'upsert') AND letter.last_at >= ledger.changed_at
       )) AS dirty
FROM {schema}.entities AS ledger GROUP BY 1 ORDER BY 1

-- name: partition_counts
-- The number of living entities of each type and shard.
SELECT entity_type, (slot * %(shards)s) >> 16 AS shard, count(*) AS living
FROM {schema}.entities WHERE deleted_at IS NULL GROUP BY 1, 2

-- name: insert_failed
-- Keeps failed entities as dead letters, one an entity: a later failure replaces the earlier one.
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
-- Deletes the dead letters of entities that are indexed now.
DELETE FROM {schema}.dead_letters
WHERE stage NOT IN ('intake', 'request') AND entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: resolve_id_faults
-- Deletes dead letters of source rows whose ids could not be those of entities, except of the rows that still have
-- such ids.
DELETE FROM {schema}.dead_letters
WHERE stage = 'apply' AND entity_type = %(entity_type)s AND error_kind = ANY(%(kinds)s) AND entity_id <> ALL(%(ids)s)

-- name: dead_letter_counts
-- The number of dead letters of each stage and kind of error that are not replayed.
SELECT stage, error_kind, count(*) AS letters FROM {schema}.dead_letters
WHERE replayed_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2

-- name: heartbeat
-- Records that a drain, or the sensor of sync requests, is alive.
INSERT INTO {schema}.drains (entity_type, run_id) VALUES (%(entity_type)s, %(run_id)s)
ON CONFLICT (entity_type, run_id) DO UPDATE SET heartbeat_at = now()

-- name: leave_drain
-- Deletes the heartbeat of a drain that ends, and those of drains that were killed over an hour ago.
DELETE FROM {schema}.drains
WHERE entity_type = %(entity_type)s AND (run_id = %(run_id)s OR heartbeat_at < now() - interval '1 hour')

-- name: drains
-- The last heartbeat of each drain, and whether a session holds the drain lock of its type.
SELECT drains.entity_type, drains.run_id, extract(epoch FROM now() - drains.heartbeat_at)::float8 AS age_s,
       EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND (classid::bigint << 32 | objid::bigint)
                 = hashtextextended(%(lock_prefix)s || drains.entity_type, 0)
       ) AS locked
FROM {schema}.drains

-- name: differing_in_ledger
-- Makes the table `differing` from the ledger alone, for a type without a source table, or a run that leaves the
-- ledger as it is.
CREATE TEMPORARY TABLE differing AS
SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, octet_length(content) AS bytes
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s
  AND (dirty OR (deleted_at IS NULL AND (%(force)s OR prepared_by <> %(prepared_by)s)))

-- name: read_texts
-- Title and content of entities.
SELECT entity_type, entity_id, title, content
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
