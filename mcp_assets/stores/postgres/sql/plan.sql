-- name: record_embedding_rates
-- Records what a full sync embedded, and deletes older rows of a model than the newest hundred.
WITH written AS (
    INSERT INTO {schema}.embedding_rates (model, texts, bytes, tokens, seconds)
    SELECT * FROM unnest(%(models)s::text[], %(texts)s::bigint[], %(bytes)s::bigint[], %(tokens)s::bigint[],
                         %(seconds)s::float8[])
)
DELETE FROM {schema}.embedding_rates WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY model ORDER BY id DESC) AS age FROM {schema}.embedding_rates
    ) AS aged WHERE age > 100
)

-- name: embedding_rate
-- The rate of the newest full syncs with a model. Tokens are related to the texts for which they were counted.
SELECT count(*)::integer AS runs, sum(texts) / sum(seconds) AS texts_per_s,
       sum(tokens)::float8 / sum(bytes) FILTER (WHERE tokens IS NOT NULL) AS tokens_per_byte
FROM (
    SELECT texts, bytes, tokens, seconds FROM {schema}.embedding_rates
    WHERE model = %(model)s ORDER BY id DESC LIMIT %(runs)s
) AS newest
HAVING count(*) > 0

-- name: make_to_link
-- Makes the temporary table of the entities that a foreseen change would have linked again.
CREATE TEMPORARY TABLE to_link (entity_id text COLLATE "C")

-- name: count_to_link
-- By shard, how many entities would be linked: those of `to_link`, those that are marked, and those that were never
-- linked, were linked by other rules, or are linked and gone (as `mark_range` marks them); with `everything` all
-- living ones too.
SELECT (('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer * %(shards)s) >> 16 AS shard, count(*)
FROM (
    SELECT entity_id FROM to_link
    UNION
    SELECT entity_id FROM {schema}.relink_marks WHERE entity_type = %(entity_type)s
    UNION
    SELECT coalesce(ledger.entity_id, linked.entity_id)
    FROM (
        SELECT entity_id FROM {schema}.entities WHERE entity_type = %(entity_type)s AND deleted_at IS NULL
    ) AS ledger
    FULL JOIN (
        SELECT entity_id, linked_by FROM {schema}.linked WHERE entity_type = %(entity_type)s
    ) AS linked USING (entity_id)
    WHERE %(everything)s OR ledger.entity_id IS NULL OR linked.entity_id IS NULL OR linked.linked_by <> %(linked_by)s
) AS marked
WHERE ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
  AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
GROUP BY 1
