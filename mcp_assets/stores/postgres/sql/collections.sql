-- name: collection_changes
-- The journal of a change of model: one row an alias.
SELECT alias, old_collection AS old, new_collection AS new, model, dimension, state,
       moved_at < now() - interval '1 day' AS kept_long_enough
FROM {schema}.collection_changes ORDER BY alias

-- name: begin_collection_changes
-- Begins a change of model: the aliases of the journal are in the state `building`.
INSERT INTO {schema}.collection_changes (alias, old_collection, new_collection, model, dimension, state)
SELECT alias, old_collection, new_collection, %(model)s, %(dimension)s, 'building'
FROM unnest(%(aliases)s::text[], %(old)s::text[], %(new)s::text[]) AS begun (alias, old_collection, new_collection)
ON CONFLICT (alias) DO UPDATE
SET old_collection = excluded.old_collection, new_collection = excluded.new_collection, model = excluded.model,
    dimension = excluded.dimension, state = excluded.state, begun_at = now(), moved_at = NULL

-- name: set_collection_changes
-- All aliases of the journal change their state together.
UPDATE {schema}.collection_changes
SET state = %(state)s, moved_at = CASE %(state)s WHEN 'moved' THEN now() ELSE moved_at END

-- name: end_collection_changes
-- Deletes aliases from the journal.
DELETE FROM {schema}.collection_changes WHERE alias = ANY(%(aliases)s)

-- name: forget_embedded
-- Deletes what the ledger records of the points in collections that are gone.
DELETE FROM {schema}.embedded WHERE collection = ANY(%(collections)s)

-- name: raise_chunk_bounds
-- Raises the chunk bounds of entities to what a collection holds. A collection that received no writes for a while
-- may hold more chunks of an entity than the ledger's chunk_bound.
UPDATE {schema}.entities AS ledger SET chunk_bound = held.points - 1
FROM {schema}.embedded AS held
WHERE held.collection = %(collection)s AND held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
  AND ledger.entity_type = ANY(%(entity_types)s) AND ledger.chunk_bound < held.points - 1

-- name: mark_lacking
-- Marks as dirty the entities that a collection does not hold in their present state.
WITH lacking AS (
    SELECT ledger.entity_type, ledger.entity_id
    FROM {schema}.entities AS ledger LEFT JOIN {schema}.embedded AS held
        ON held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
           AND held.collection = %(collection)s
    WHERE ledger.entity_type = ANY(%(entity_types)s) AND NOT ledger.dirty
      AND (%(ids)s::text[] IS NULL OR ledger.entity_id = ANY(%(ids)s))
      AND CASE
          WHEN ledger.deleted_at IS NOT NULL OR ledger.text_hash = %(no_text)s THEN held.entity_id IS NOT NULL
          ELSE (held.text_hash, held.state_hash) IS DISTINCT FROM (ledger.text_hash, ledger.state_hash)
      END
    ORDER BY ledger.entity_type, ledger.entity_id
    FOR NO KEY UPDATE OF ledger
)
UPDATE {schema}.entities AS ledger SET dirty = true FROM lacking
WHERE ledger.entity_type = lacking.entity_type AND ledger.entity_id = lacking.entity_id

-- name: add_lacking
-- The rows of `differing`, and those entities that a collection under construction does not hold in their present
-- state, or should not hold any more.
CREATE TEMPORARY TABLE differing_or_lacking AS
SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, max(bytes) AS bytes
FROM (
    SELECT entity_id, slot, bytes FROM differing
    UNION ALL
    SELECT ledger.entity_id, ledger.slot, octet_length(ledger.content)
    FROM {schema}.entities AS ledger LEFT JOIN {schema}.embedded AS held
        ON held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
           AND held.collection = %(collection)s
    WHERE ledger.entity_type = %(entity_type)s AND ledger.slot >= %(low)s AND ledger.slot < %(high)s
      AND CASE
          WHEN ledger.deleted_at IS NOT NULL OR ledger.text_hash = %(no_text)s THEN held.entity_id IS NOT NULL
          ELSE (held.text_hash, held.state_hash) IS DISTINCT FROM (ledger.text_hash, ledger.state_hash)
      END
) AS found
GROUP BY entity_id, slot

-- name: count_lacking
-- The numbers of entities that a collection lacks, of living ones, and of lacking ones that the model refuses. An entity
-- that changed since %(since)s and is dirty is not lacking: it is about to be indexed.
SELECT count(*) FILTER (WHERE lacking AND NOT refused AND NOT (dirty AND changed_at >= %(since)s)) AS lacking,
       count(*) FILTER (WHERE deleted_at IS NULL) AS living,
       count(*) FILTER (WHERE lacking AND refused AND deleted_at IS NULL) AS refused
FROM (
    SELECT ledger.dirty, ledger.changed_at, ledger.deleted_at,
           letter.entity_id IS NOT NULL AS refused,
           CASE
               WHEN ledger.deleted_at IS NOT NULL OR ledger.text_hash = %(no_text)s THEN held.entity_id IS NOT NULL
               ELSE (held.text_hash, held.state_hash) IS DISTINCT FROM (ledger.text_hash, ledger.state_hash)
           END AS lacking
    FROM {schema}.entities AS ledger
    LEFT JOIN {schema}.embedded AS held
        ON held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
           AND held.collection = %(collection)s
    LEFT JOIN {schema}.dead_letters AS letter
        ON letter.entity_type = ledger.entity_type AND letter.entity_id = ledger.entity_id AND letter.stage <> 'intake'
    WHERE ledger.entity_type = ANY(%(entity_types)s)
) AS compared

-- name: embedded_of_slots
-- What the ledger records of the points of entities in a range of slots.
SELECT ledger.entity_type, ledger.entity_id, held.text_hash, held.state_hash, held.points
FROM {schema}.entities AS ledger JOIN {schema}.embedded AS held
    ON held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id AND held.collection = %(collection)s
WHERE ledger.entity_type = ANY(%(entity_types)s) AND ledger.slot >= %(low)s AND ledger.slot < %(high)s

-- name: lock_entities_of
-- Locks ledger rows in the order of their keys, so that two transactions cannot block each other.
SELECT entity_type, entity_id
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
ORDER BY entity_type, entity_id
FOR NO KEY UPDATE OF entities

-- name: embedded_of_entities
-- What the ledger records of the points of some entities.
SELECT entity_type, entity_id, text_hash, state_hash, points
FROM {schema}.embedded JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
WHERE collection = %(collection)s

-- name: distrust_embedded
-- Deletes what the ledger records of the points of entities, and marks the entities as dirty.
WITH forgotten AS (
    DELETE FROM {schema}.embedded AS held USING unnest(%(types)s::text[], %(ids)s::text[]) AS wrong (entity_type, entity_id)
    WHERE held.collection = %(collection)s
      AND held.entity_type = wrong.entity_type AND held.entity_id = wrong.entity_id
)
UPDATE {schema}.entities AS ledger SET dirty = true
FROM unnest(%(types)s::text[], %(ids)s::text[]) AS wrong (entity_type, entity_id)
WHERE ledger.entity_type = wrong.entity_type AND ledger.entity_id = wrong.entity_id AND NOT ledger.dirty

-- name: model_of_embedded
-- The model that filled a collection.
SELECT model FROM {schema}.embedded WHERE collection = %(collection)s LIMIT 1

-- name: metadata_of_keys
-- Metadata of entities under certain keys; entities with none of these keys are left out.
SELECT ledger.entity_type, ledger.entity_id, ledger.state_hash, chosen.metadata
FROM unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
JOIN {schema}.entities AS ledger USING (entity_type, entity_id)
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(entry.key, entry.value) AS metadata
    FROM jsonb_each(ledger.metadata) AS entry WHERE entry.key = ANY(%(keys)s)
) AS chosen
WHERE ledger.deleted_at IS NULL AND jsonb_typeof(ledger.metadata) = 'object' AND chosen.metadata IS NOT NULL

-- name: adopted_collections
-- The collections that a person allowed to be replaced.
SELECT alias, backup, points FROM {schema}.adopted_collections

-- name: adopt_collection
-- Records that a collection may be replaced, and how many points it held then.
INSERT INTO {schema}.adopted_collections (alias, backup, points) VALUES (%(alias)s, %(backup)s, %(points)s)
ON CONFLICT (alias) DO UPDATE SET backup = excluded.backup, points = excluded.points, adopted_at = now()

-- name: end_adoptions
-- Deletes the records of collections that were replaced.
DELETE FROM {schema}.adopted_collections WHERE alias = ANY(%(aliases)s)

-- name: some_embedded
-- Some entities whose points the ledger records in a collection.
SELECT entity_type, entity_id FROM {schema}.embedded WHERE collection = %(collection)s LIMIT %(limit)s
