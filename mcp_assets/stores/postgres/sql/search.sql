-- name: write_words
-- Writes the search words of entities.
INSERT INTO {schema}.search_words (entity_type, entity_id, words, length)
SELECT %(entity_type)s, entity_id, words::tsvector, length
FROM unnest(%(entity_id)s::text[], %(words)b::text[], %(length)s::integer[]) AS new (entity_id, words, length)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO UPDATE SET words = excluded.words, length = excluded.length

-- name: lock_texts_pending_words
-- Title and content of those of some living entities whose search words are pending, and their ledger rows locked, without
-- rows that another transaction has locked.
SELECT ledger.entity_type, ledger.entity_id, title, content
FROM {schema}.entities AS ledger
JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS asked (entity_type, entity_id)
    ON asked.entity_type = ledger.entity_type AND asked.entity_id = ledger.entity_id
WHERE words_pending AND deleted_at IS NULL
LIMIT %(limit)s FOR NO KEY UPDATE OF ledger SKIP LOCKED

-- name: pending_words
-- Those of some entities that are living and whose search words are pending.
SELECT ledger.entity_type, ledger.entity_id
FROM {schema}.entities AS ledger
JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS asked (entity_type, entity_id)
    ON asked.entity_type = ledger.entity_type AND asked.entity_id = ledger.entity_id
WHERE words_pending AND deleted_at IS NULL

-- name: words_are_written
-- Says of entities, whose ledger rows are locked, that their search words are those of their texts.
UPDATE {schema}.entities SET words_pending = false
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND words_pending

-- name: delete_words
-- Deletes the search words of entities that are no longer living.
DELETE FROM {schema}.search_words WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: count_words_of_entities
-- How many entities have search words: an estimate, as good as PostgreSQL's last ANALYZE, or a count if there was none.
SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint
            ELSE (SELECT count(*) FROM {schema}.search_words) END
FROM pg_class WHERE oid = %(table)s::regclass

-- name: word_holders
-- In how many entities each word occurs, counted up to a bound, so that a common word costs no more than a rare one.
SELECT word, (SELECT count(*) FROM (
    SELECT FROM {schema}.search_words WHERE words @@ word::tsquery LIMIT %(most)s
) AS holder) AS holders
FROM unnest(%(words)b::text[]) AS asked (word)

-- name: rank_by_words
-- Entities that hold one of the candidate words, ranked by all words of the question.
-- A word counts by its weight, which says how rare it is, and by how often it occurs, less so the longer the text is.
-- `covered` is the weight of the words that occur at all. `conditions`: of which each has to hold for the metadata; a
-- list meets one if an element does. The words are copied (|| '') so that they are read from the table once an entity,
-- and not once a word of the question; OFFSET 0 has each rank computed once.
WITH asked AS MATERIALIZED (
    SELECT word, weight FROM unnest(%(words)b::text[]::tsquery[], %(weights)s::float8[]) AS given (word, weight)
),
candidate AS MATERIALIZED (
    SELECT entity_type, entity_id, 0.5 + 0.3 * ln(1 + length / 300.0::float8) AS damping, words || ''::tsvector AS words
    FROM {schema}.search_words AS holder
    WHERE words @@ %(candidates)s::tsquery AND entity_type = ANY(%(types)s)
      AND (%(conditions)s::jsonb = '[]' OR EXISTS (
          SELECT FROM {schema}.entities AS ledger
          WHERE ledger.entity_type = holder.entity_type AND ledger.entity_id = holder.entity_id
            AND {schema}.meets(ledger.metadata, %(conditions)s)
      ))
    LIMIT %(most)s
)
SELECT entity_type, entity_id, sum(weight * often / (often + damping)) AS score, sum(weight) AS covered
FROM (
    SELECT entity_type, entity_id, damping, weight,
           8 * ts_rank('{0.125, 0.25, 0.5, 1}', words, word) AS often
    FROM candidate CROSS JOIN asked OFFSET 0
) AS counted
WHERE often > 0
GROUP BY entity_type, entity_id
ORDER BY score DESC, entity_type, entity_id
LIMIT %(limit)s

-- name: named_like
-- Entities with a search word that is, or begins with, a whole name; conditions as in `rank_by_words`. A name that is
-- the question comes first, then the entities with the fewest words.
SELECT entity_type, entity_id, words @@ %(exact)s::tsquery AS exact
FROM {schema}.search_words AS holder
WHERE words @@ %(candidates)s::tsquery AND entity_type = ANY(%(types)s)
  AND (%(conditions)s::jsonb = '[]' OR EXISTS (
      SELECT FROM {schema}.entities AS ledger
      WHERE ledger.entity_type = holder.entity_type AND ledger.entity_id = holder.entity_id
        AND {schema}.meets(ledger.metadata, %(conditions)s)
  ))
ORDER BY exact DESC, length, entity_type, entity_id
LIMIT %(limit)s

-- name: meeting_conditions
-- The ids, of those given, of entities whose metadata meet the conditions of a search.
SELECT entity_id FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND {schema}.meets(metadata, %(conditions)s)

-- name: read_entity
-- A living entity, and when its present state was last written to a collection.
SELECT title, content, metadata, origin, changed_at,
       (SELECT max(embedded_at) FROM {schema}.embedded
        WHERE embedded.entity_type = ledger.entity_type AND embedded.entity_id = ledger.entity_id
          AND embedded.state_hash = ledger.state_hash) AS embedded_at
FROM {schema}.entities AS ledger
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND deleted_at IS NULL

-- name: words_missing_or_left_over
-- A page, by id, of the entities of a range of slots whose search words are missing, and of search words of entities
-- that are not living. Rows that were prepared by other rules are left out, and those whose words the linker will write.
SELECT entity_id, 'are missing' AS what
FROM {schema}.entities AS ledger
WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s AND deleted_at IS NULL
  AND prepared_by = %(prepared_by)s AND entity_id > %(after)s
  AND CASE WHEN words_pending
      THEN NOT EXISTS (
          SELECT FROM {schema}.relink_marks AS mark
          WHERE mark.entity_type = ledger.entity_type AND mark.entity_id = ledger.entity_id AND mark.reason <> 'lists'
      )
      ELSE NOT EXISTS (
          SELECT FROM {schema}.search_words AS held
          WHERE held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
      ) END
UNION ALL
SELECT entity_id, 'are there, and it is no living entity'
FROM {schema}.search_words AS held
WHERE entity_type = %(entity_type)s AND entity_id > %(after)s
  AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
  AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
  AND NOT EXISTS (
      SELECT FROM {schema}.entities AS ledger
      WHERE ledger.entity_type = held.entity_type AND ledger.entity_id = held.entity_id AND deleted_at IS NULL
  )
ORDER BY entity_id LIMIT %(limit)s

-- name: entities_without_right_words
-- The same of entities by id.
SELECT entity_id, CASE WHEN living THEN 'are missing' ELSE 'are there, and it is no living entity' END AS what
FROM (
    SELECT asked.entity_id, ledger.entity_id IS NOT NULL AS living,
           held.entity_id IS NOT NULL AND ledger.words_pending IS NOT TRUE AS has_words,
           ledger.prepared_by = %(prepared_by)s AND NOT (
               ledger.words_pending AND EXISTS (
                   SELECT FROM {schema}.relink_marks AS mark
                   WHERE mark.entity_type = ledger.entity_type AND mark.entity_id = ledger.entity_id
                     AND mark.reason <> 'lists'
               )
           ) AS is_prepared
    FROM unnest(%(ids)s::text[]) AS asked (entity_id)
    LEFT JOIN {schema}.entities AS ledger
        ON ledger.entity_type = %(entity_type)s AND ledger.entity_id = asked.entity_id AND ledger.deleted_at IS NULL
    LEFT JOIN {schema}.search_words AS held
        ON held.entity_type = %(entity_type)s AND held.entity_id = asked.entity_id
) AS found
WHERE living AND is_prepared AND NOT has_words OR has_words AND NOT living

-- name: sample_of_texts_with_words
-- A page, by id, of the texts of a sample of slots, of living entities that have search words by the rules of now.
SELECT entity_id, title, content, text_hash FROM {schema}.entities AS ledger
WHERE entity_type = %(entity_type)s AND slot >= %(low)s AND slot < %(high)s AND deleted_at IS NULL AND NOT words_pending
  AND slot %% %(every)s = %(rest)s AND prepared_by = %(prepared_by)s AND entity_id > %(after)s
  AND EXISTS (
      SELECT FROM {schema}.search_words AS held
      WHERE held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
  )
ORDER BY entity_id LIMIT %(limit)s

-- name: texts_with_words
-- The same of entities by id.
SELECT entity_id, title, content, text_hash FROM {schema}.entities AS ledger
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND deleted_at IS NULL AND NOT words_pending
  AND prepared_by = %(prepared_by)s
  AND EXISTS (
      SELECT FROM {schema}.search_words AS held
      WHERE held.entity_type = ledger.entity_type AND held.entity_id = ledger.entity_id
  )

-- name: differing_words
-- The ids, of those given, of entities whose stored words are others than those given.
SELECT held.entity_id
FROM unnest(%(entity_id)s::text[], %(words)b::text[], %(length)s::integer[]) AS right_words (entity_id, words, length)
JOIN {schema}.search_words AS held
    ON held.entity_type = %(entity_type)s AND held.entity_id = right_words.entity_id
WHERE held.words <> right_words.words::tsvector OR held.length <> right_words.length

-- name: lock_texts
-- Title and content of living entities, whose ledger rows are locked.
SELECT entity_id, title, content, text_hash FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s) AND deleted_at IS NULL
ORDER BY entity_id FOR UPDATE
