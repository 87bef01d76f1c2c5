-- name: begin_censuses
-- Inserts censuses that are under way, one a range of slots, and returns their ids by first slot. A census counts once
-- end_censuses has set its end.
INSERT INTO {schema}.censuses (entity_type, collection, low, high, deep)
SELECT %(entity_type)s, %(collection)s, low, high, %(deep)s
FROM unnest(%(lows)s::integer[], %(highs)s::integer[]) AS part (low, high) ORDER BY low
RETURNING low, id

-- name: copy_drift
-- Writes the drift that a census found, in batches.
COPY {schema}.drift (census, kind, entity_type, entity_id, subject, detail) FROM STDIN

-- name: end_censuses
-- Records that censuses have ended, and their numbers.
UPDATE {schema}.censuses AS census
SET ended_at = clock_timestamp(), checked = taken.checked, points = taken.points, edges = taken.edges,
    lists_compared = taken.lists_compared, exact_neighbours = taken.exact_neighbours,
    neighbours_found = taken.neighbours_found
FROM unnest(
    %(censuses)s::bigint[], %(checked)s::bigint[], %(points)s::bigint[], %(edges)s::bigint[],
    %(lists_compared)s::integer[], %(exact_neighbours)s::integer[], %(neighbours_found)s::integer[]
) AS taken (id, checked, points, edges, lists_compared, exact_neighbours, neighbours_found)
WHERE census.id = taken.id

-- name: delete_older_censuses
-- A census of the collection in use replaces all older ones of the slots; a census of another collection, only those of
-- the same collection. One that has not ended is under way, as by another number of shards, unless it is of one of the
-- partitions, whose locks the caller holds, or old: then it was killed. Rows are locked in the order of their ids,
-- because another pass may delete some of them at the same time.
WITH older AS (
    SELECT id FROM {schema}.censuses
    WHERE entity_type = %(entity_type)s AND (%(in_use)s OR collection = %(collection)s) AND id <> ALL(%(censuses)s)
      AND EXISTS (
          SELECT FROM unnest(%(lows)s::integer[], %(highs)s::integer[]) AS part (low, high)
          WHERE censuses.low < part.high AND censuses.high > part.low
            AND (ended_at IS NOT NULL OR began_at < now() - interval '1 day'
                 OR (censuses.low, censuses.high, collection) = (part.low, part.high, %(collection)s))
      )
    ORDER BY id FOR UPDATE
)
DELETE FROM {schema}.censuses USING older WHERE censuses.id = older.id

-- name: census_rows
-- Source table and ledger of a range of slots, joined and numbered in the order of (slot, id). Deleted ledger rows without
-- points are left out.
CREATE TEMPORARY TABLE census_rows AS
SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, found.*
FROM (
    SELECT coalesce(source.slot, ledger.slot) AS slot, coalesce(source.id, ledger.entity_id) AS entity_id,
           source.hash AS source_hash_now, source.id IS NOT NULL AS in_source, ledger.entity_id IS NOT NULL AS in_ledger,
           ledger.origin, ledger.source_hash, ledger.prepared_by, ledger.text_hash, ledger.state_hash,
           coalesce(ledger.deleted, false) AS deleted, coalesce(ledger.dirty, false) AS dirty,
           coalesce(ledger.chunk_bound, 0) AS chunk_bound,
           held.model AS recorded_model, held.text_hash AS recorded_text_hash, held.state_hash AS recorded_state_hash,
           held.points AS recorded_points, held.vector_checks AS recorded_vector_checks
    FROM census_source AS source
    FULL JOIN (
        SELECT entity_id, slot, origin, source_hash, prepared_by, text_hash, state_hash,
               deleted_at IS NOT NULL AS deleted, dirty, chunk_bound
        FROM {schema}.entities
        WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s
    ) AS ledger ON source.id = ledger.entity_id
    LEFT JOIN {schema}.embedded AS held
        ON held.entity_type = %(entity_type)s AND held.entity_id = ledger.entity_id AND held.collection = %(collection)s
    WHERE source.id IS NOT NULL OR NOT ledger.deleted OR held.entity_id IS NOT NULL
) AS found

-- name: census_page
-- A page of `census_rows`, by number.
SELECT entity_id, in_ledger, origin, source_hash, prepared_by, text_hash, state_hash, deleted, dirty, chunk_bound,
       recorded_model, recorded_text_hash, recorded_state_hash, recorded_points, recorded_vector_checks,
       n, slot, source_hash_now, in_source
FROM census_rows WHERE n > %(after)s ORDER BY n LIMIT %(limit)s

-- name: census_states
-- Ledger row, row of `embedded` and pending messages of entities; a row for each id, with NULLs for what is absent.
SELECT wanted.entity_id, ledger.entity_id IS NOT NULL AS in_ledger, ledger.origin, ledger.source_hash,
       ledger.prepared_by, ledger.text_hash, ledger.state_hash, ledger.deleted_at IS NOT NULL AS deleted,
       coalesce(ledger.dirty, false) AS dirty, coalesce(ledger.chunk_bound, 0) AS chunk_bound,
       held.model AS recorded_model, held.text_hash AS recorded_text_hash, held.state_hash AS recorded_state_hash,
       held.points AS recorded_points, held.vector_checks AS recorded_vector_checks, held.embedded_at,
       EXISTS (
           SELECT FROM {schema}.inbox WHERE inbox.entity_type = %(entity_type)s
             AND inbox.kind IN ('entity', 'relate') AND inbox.entity_id = wanted.entity_id
       ) AS in_inbox
FROM unnest(%(ids)s::text[]) AS wanted (entity_id)
LEFT JOIN {schema}.entities AS ledger
    ON ledger.entity_type = %(entity_type)s AND ledger.entity_id = wanted.entity_id
LEFT JOIN {schema}.embedded AS held
    ON held.entity_type = %(entity_type)s AND held.entity_id = wanted.entity_id AND held.collection = %(collection)s

-- name: census_texts
-- Title, content and metadata of living entities.
SELECT entity_id, title, content, metadata FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND deleted_at IS NULL

-- name: texts_with_hashes
-- Living ledger rows with the hashes that their title, content and metadata should have.
SELECT entity_type, entity_id, origin, prepared_by, text_hash, state_hash, title, content, metadata
FROM {schema}.entities
    JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id) USING (entity_type, entity_id)
WHERE deleted_at IS NULL

-- name: dangling_references
-- References of which no name finds an entity. Rule slug is left out: a slug names a parent that need not exist.
SELECT source_type, source_id, min(kind) FILTER (WHERE place = 0) AS kind, min(key) FILTER (WHERE place = 0) AS key,
       rule
FROM {schema}.reference_uses AS used
WHERE source_type = %(entity_type)s AND rule <> 'slug'
  AND ('x' || substr(md5(source_id), 1, 4))::bit(16)::integer >= %(low)s
  AND ('x' || substr(md5(source_id), 1, 4))::bit(16)::integer < %(high)s
  AND NOT EXISTS (
      SELECT FROM {schema}.linked
      WHERE used.kind = 'id' AND linked.entity_type = split_part(used.key, ':', 1)
        AND linked.entity_id = substr(used.key, strpos(used.key, ':') + 1)
  )
  AND NOT EXISTS (
      SELECT FROM {schema}.linked
      WHERE used.kind = 'title' AND linked.title_key = used.key
        AND (used.within IS NULL OR linked.entity_type = used.within)
  )
  AND NOT EXISTS (
      SELECT FROM {schema}.linked
      WHERE used.kind = 'slug' AND linked.slug_key = used.key
        AND (used.within IS NULL OR linked.entity_type = used.within)
  )
GROUP BY source_type, source_id, coalesce(nullif(written, ''), key), within, relation, rule, reverse, strength
HAVING count(*) = max(places)

-- name: waiting_for_links
-- Entities whose edges may be about to change: marked for the linker, or dirty.
SELECT entity_type, entity_id FROM {schema}.relink_marks
    JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id) USING (entity_type, entity_id)
UNION
SELECT entity_type, entity_id FROM {schema}.entities
    JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id) USING (entity_type, entity_id)
WHERE dirty

-- name: any_change_waits
-- Whether any entity is dirty or marked; marks of semantic lists do not count, because they change no reference.
SELECT EXISTS (SELECT FROM {schema}.relink_marks WHERE reason <> 'lists')
    OR EXISTS (SELECT FROM {schema}.entities WHERE dirty)

-- name: linked_or_living
-- A page of the entities that are living or that the linker knows, by id.
SELECT entity_id FROM (
    SELECT entity_id FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s
      AND entity_id > %(after)s
    UNION
    SELECT entity_id FROM {schema}.linked
    WHERE entity_type = %(entity_type)s AND entity_id > %(after)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
) AS found
ORDER BY entity_id LIMIT %(limit)s

-- name: sample_of_living
-- Living entities of some ranges of slots, so many of each, in an order that the seed decides.
SELECT entity_id
FROM unnest(%(lows)s::integer[], %(highs)s::integer[]) AS part (low, high) CROSS JOIN LATERAL (
    SELECT entity_id FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= part.low AND slot < part.high
    ORDER BY md5(entity_id || %(seed)s) LIMIT %(limit)s
) AS sample

-- name: living_not_linked
-- Living entities that the linker does not know, and linked ones that are not living.
SELECT coalesce(ledger.entity_id, linked.entity_id) AS entity_id
FROM (
    SELECT entity_id FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s
) AS ledger
FULL JOIN (
    SELECT entity_id FROM {schema}.linked
    WHERE entity_type = %(entity_type)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
) AS linked USING (entity_id)
WHERE ledger.entity_id IS NULL OR linked.entity_id IS NULL

-- name: last_censuses
-- The censuses that have ended, with their age in seconds.
SELECT id, entity_type, collection, low, high, deep, checked, points, edges, ended_at,
       lists_compared, exact_neighbours, neighbours_found,
       extract(epoch FROM clock_timestamp() - ended_at)::float8 AS age_s
FROM {schema}.censuses WHERE ended_at IS NOT NULL ORDER BY entity_type, low

-- name: drift_counts
-- How much drift of each kind each of some censuses found, less what was repaired since.
SELECT census, kind, count(*) AS drift FROM {schema}.drift WHERE census = ANY(%(censuses)s) GROUP BY 1, 2 ORDER BY 1, 2

-- name: drift_examples
-- Some drift of some kinds that censuses found, the earliest first.
SELECT kind, entity_type, entity_id, subject, detail FROM {schema}.drift
WHERE census = ANY(%(censuses)s) AND kind = ANY(%(kinds)s) ORDER BY id LIMIT %(limit)s

-- name: drift_page
-- A page of the drift that censuses found, by id.
SELECT id, kind, entity_type, entity_id, subject, detail FROM {schema}.drift
WHERE census = ANY(%(censuses)s) AND kind = ANY(%(kinds)s) AND id > %(after)s ORDER BY id LIMIT %(limit)s

-- name: delete_drift
-- Deletes drift by id, and returns the kind of each row.
DELETE FROM {schema}.drift WHERE id = ANY(%(ids)s) RETURNING kind

-- name: entities_in_drift
-- A page of the entities in the drift of censuses of one type, with the points that it names.
SELECT entity_id, coalesce(array_agg(DISTINCT subject) FILTER (WHERE subject <> ''), '{}') AS points
FROM {schema}.drift
WHERE census = ANY(%(censuses)s) AND kind = ANY(%(kinds)s) AND entity_id > %(after)s
GROUP BY entity_id ORDER BY entity_id LIMIT %(limit)s

-- name: entities_going
-- The numbers of entities that a repair would remove, and of those among them that are living in the ledger.
SELECT count(DISTINCT entity_id), count(DISTINCT entity_id) FILTER (WHERE kind = 'vanished_row')
FROM {schema}.drift WHERE census = %(census)s AND kind = ANY(%(kinds)s)

-- name: delete_drift_of_entities
-- Deletes the drift of some kinds about some entities of censuses, and returns the kind of each row.
DELETE FROM {schema}.drift
WHERE census = ANY(%(censuses)s) AND kind = ANY(%(kinds)s) AND entity_id = ANY(%(ids)s)
RETURNING kind

-- name: mark_wrong
-- Marks entities as dirty; chunk_bound covers the chunks that Qdrant holds, so that the indexer deletes them all.
UPDATE {schema}.entities AS ledger
SET dirty = true, chunk_bound = greatest(ledger.chunk_bound, broken.chunks)
FROM unnest(%(entity_id)s::text[], %(chunks)s::integer[]) AS broken (entity_id, chunks)
WHERE ledger.entity_type = %(entity_type)s AND ledger.entity_id = broken.entity_id

-- name: unprepare
-- Lets the next application of the source row prepare the text again, although the row has not changed.
UPDATE {schema}.entities SET prepared_by = '' WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: insert_tombstones
-- Deleted ledger rows for entities that have points and no ledger row.
INSERT INTO {schema}.entities
    (entity_type, entity_id, slot, origin, prepared_by, text_hash, state_hash, deleted_at, dirty)
SELECT %(entity_type)s, entity_id, ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer, 'event', '', 'deleted',
       'deleted', now(), false
FROM unnest(%(ids)s::text[]) AS gone (entity_id)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO NOTHING

-- name: differing_living
-- The number of living entities that a full sync will compare and may find deleted, and of all living entities there.
SELECT (
    SELECT count(*)
    FROM differing JOIN {schema}.entities AS ledger
        ON ledger.entity_type = %(entity_type)s AND ledger.entity_id = differing.entity_id
    WHERE ledger.deleted_at IS NULL AND ledger.origin = 'source'
), (
    SELECT count(*) FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND origin = 'source'
      AND slot >= %(low)s AND slot < %(high)s
)

-- name: vanished
-- Living entities of a range of slots, made from the source table, that have no living source row any more.
CREATE TEMPORARY TABLE vanished AS
SELECT ledger.entity_id
FROM {schema}.entities AS ledger LEFT JOIN census_source AS source ON source.id = ledger.entity_id
WHERE ledger.entity_type = %(entity_type)s AND ledger.deleted_at IS NULL AND ledger.origin = 'source'
  AND ledger.slot >= %(low)s AND ledger.slot < %(high)s AND source.id IS NULL

-- name: count_vanished
-- The numbers of vanished and of all living entities of a range of slots that were made from the source table.
SELECT (SELECT count(*) FROM vanished), (
    SELECT count(*) FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND origin = 'source'
      AND slot >= %(low)s AND slot < %(high)s
)

-- name: hold_back_vanished
-- Takes vanished entities out of `differing`; returns the shards that had some.
WITH held AS (DELETE FROM differing USING vanished WHERE differing.entity_id = vanished.entity_id RETURNING slot)
SELECT DISTINCT slot * %(shards)s >> 16 FROM held

-- name: dead_letter_examples
-- The newest dead letters, each with its entity, or else the subject of its message.
SELECT id, coalesce(entity_type || ':' || entity_id, subject) AS entity, stage, error_kind, error
FROM {schema}.dead_letters ORDER BY last_at DESC, id DESC LIMIT %(limit)s

-- name: given_up_entities
-- Entities with a dead letter: all of the types, or only the named entities if there are any.
SELECT DISTINCT entity_type, entity_id FROM {schema}.dead_letters
WHERE stage IN ('apply', 'embed', 'upsert') AND entity_type = ANY(%(of_types)s)
  AND (%(types)s::text[] = '{}' OR EXISTS (
      SELECT FROM unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
      WHERE wanted.entity_type = dead_letters.entity_type AND wanted.entity_id = dead_letters.entity_id
  ))
ORDER BY 1, 2

-- name: end_entities
-- Marks entities that live by events as deleted, and returns their ids. The event order of the deletion is behind
-- that of the newest event, and before that of each later event.
UPDATE {schema}.entities
SET deleted_at = now(), dirty = true, title = NULL, content = '', metadata = '{}', text_hash = 'deleted',
    state_hash = 'deleted', event_order = coalesce(event_order, '') || '!', changed_at = now()
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND origin = 'event' AND deleted_at IS NULL
RETURNING entity_id

-- name: removed_types
-- Entity types that the settings do not name and that have linked entities, messages or a wanted full sync, with the
-- numbers of these. The types in `linked` are found by one step a type through its primary key, because a DISTINCT
-- would read all its rows.
WITH RECURSIVE linked_types AS (
    (SELECT entity_type FROM {schema}.linked ORDER BY entity_type LIMIT 1)
    UNION ALL
    SELECT (
        SELECT linked.entity_type FROM {schema}.linked
        WHERE linked.entity_type > linked_types.entity_type ORDER BY linked.entity_type LIMIT 1
    )
    FROM linked_types WHERE linked_types.entity_type IS NOT NULL
), waiting AS (
    SELECT entity_type, count(*) AS messages FROM {schema}.inbox
    WHERE kind IN ('entity', 'relate') AND entity_type <> ALL(%(types)s) GROUP BY entity_type
)
SELECT entity_type AS name,
       (SELECT count(*) FROM {schema}.linked WHERE linked.entity_type = found.entity_type) AS linked,
       coalesce(messages, 0) AS messages,
       EXISTS (
           SELECT FROM {schema}.wanted_full_syncs AS wanted WHERE wanted.entity_type = found.entity_type
       ) AS wants_full_sync
FROM (
    SELECT entity_type FROM linked_types WHERE entity_type <> ALL(%(types)s)
    UNION
    SELECT entity_type FROM waiting
    UNION
    SELECT entity_type FROM {schema}.wanted_full_syncs WHERE entity_type <> ALL(%(types)s)
) AS found
LEFT JOIN waiting USING (entity_type)
ORDER BY entity_type

-- name: mark_removed_types
-- Marks every linked entity of a removed type, so that the linker removes its edges.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
SELECT entity_type, entity_id, 'changed' FROM {schema}.linked WHERE entity_type <> ALL(%(types)s)
ON CONFLICT DO NOTHING

-- name: forget_full_syncs_of_removed_types
-- Deletes the wanted full syncs of entity types that the settings do not name.
DELETE FROM {schema}.wanted_full_syncs WHERE entity_type <> ALL(%(types)s)

-- name: forget_partitions_of_removed_types
-- Deletes what is known of the partitions of entity types that the settings do not name.
DELETE FROM {schema}.synced_partitions WHERE entity_type <> ALL(%(types)s)

-- name: reject_removed_types
-- Turns the messages of removed types into dead letters. `raw` is a message again, which is parsed when the letter
-- is replayed.
WITH taken AS (
    DELETE FROM {schema}.inbox WHERE kind IN ('entity', 'relate') AND entity_type <> ALL(%(types)s)
    RETURNING kind, subject, stream, epoch, seq, stored_at, entity_type, entity_id, payload, message_id
)
INSERT INTO {schema}.dead_letters AS letter (stage, subject, stream, epoch, seq, stored_at, raw, error_kind, error)
SELECT 'intake', subject, stream, epoch, seq, stored_at,
       convert_to(
           (
               CASE WHEN message_id IS NULL THEN '{}' ELSE jsonb_build_object('message_id', message_id) END
               || jsonb_build_object('data', jsonb_build_object('entity_type', entity_type, 'entity_id', entity_id)
                      || CASE WHEN payload IS NULL THEN '{}' ELSE jsonb_build_object(
                             'title', payload->'title', 'content', payload->'content', 'metadata', payload->'metadata'
                         ) END)
           )::text, 'UTF8'
       ), 'unknown_type',
       'the entity type ' || entity_type || ' was removed from the settings: name it again, and replay this'
FROM taken
ON CONFLICT (stream, epoch, seq) WHERE stage IN ('intake', 'request') DO UPDATE
SET error_kind = excluded.error_kind, error = excluded.error, last_at = now(), replayed_at = NULL
