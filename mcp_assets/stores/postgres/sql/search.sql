-- name: write_words
-- Writes the search words of entities.
INSERT INTO {schema}.search_words (entity_type, entity_id, words, length)
SELECT %(entity_type)s, entity_id, words::tsvector, length
FROM unnest(%(entity_id)s::text[], %(words)b::text[], %(length)s::integer[]) AS new (entity_id, words, length)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO UPDATE SET words = excluded.words, length = excluded.length

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
-- list meets one if an element does. The words are copied (|| '') so that they are read from the
-- table once an entity, and not once a word of the question.
SELECT candidate.entity_type, candidate.entity_id,
       sum(weight * often / (often + 0.5 + 0.3 * ln(1 + length / 300.0)))::float8 AS score, sum(weight)::float8 AS covered
FROM (
    SELECT entity_type, entity_id, length, words || ''::tsvector AS words
    FROM {schema}.search_words AS holder
    WHERE words @@ %(candidates)s::tsquery AND entity_type = ANY(%(types)s)
      AND (%(conditions)s::jsonb = '[]' OR EXISTS (
          SELECT FROM {schema}.entities AS ledger
          WHERE ledger.entity_type = holder.entity_type AND ledger.entity_id = holder.entity_id
            AND {schema}.meets(ledger.metadata, %(conditions)s)
      ))
    LIMIT %(most)s
) AS candidate
CROSS JOIN LATERAL (
    SELECT weight, 8 * ts_rank('{0.125, 0.25, 0.5, 1}', candidate.words, word::tsquery) AS often
    FROM unnest(%(words)b::text[], %(weights)s::float8[]) AS asked (word, weight)
) AS counted
WHERE often > 0
GROUP BY candidate.entity_type, candidate.entity_id
ORDER BY score DESC, candidate.entity_type, candidate.entity_id
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
