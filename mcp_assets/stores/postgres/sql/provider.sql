-- name: provider_outages
-- The outages of models, with the seconds until the next try by the clock of the server.
SELECT model, reason, since, tries, next_try_at,
       extract(epoch FROM next_try_at - clock_timestamp())::float8 AS next_try_in_s
FROM {schema}.provider_outages WHERE model = ANY(%(models)s) ORDER BY since, model

-- name: lock_provider_outage
-- How many runs have tried a model, and whether a try is due; the row is locked.
SELECT tries, next_try_at <= clock_timestamp() FROM {schema}.provider_outages WHERE model = %(model)s FOR UPDATE

-- name: write_provider_outage
-- Records an outage, or another failed try.
INSERT INTO {schema}.provider_outages (model, reason, tries, next_try_at)
VALUES (%(model)s, %(reason)s, %(tries)s, clock_timestamp() + make_interval(secs => %(wait_s)s))
ON CONFLICT (model) DO UPDATE
SET reason = excluded.reason, tries = excluded.tries, next_try_at = excluded.next_try_at

-- name: claim_provider_try
-- Counts a try that is due. One process gets the row: it is the one that tries.
UPDATE {schema}.provider_outages
SET tries = tries + 1, next_try_at = clock_timestamp() + make_interval(secs => %(wait_s)s)
WHERE model = %(model)s AND tries = %(tries)s AND next_try_at <= clock_timestamp()
RETURNING model

-- name: end_provider_outage
-- Deletes the outage of a model that has embedded a text.
DELETE FROM {schema}.provider_outages WHERE model = %(model)s

-- name: keep_vectors
-- Keeps vectors that could not be written to Qdrant.
INSERT INTO {schema}.unwritten_vectors (model, text_hash, vectors)
SELECT %(model)s, text_hash, vectors FROM unnest(%(text_hash)s::text[], %(vectors)b::bytea[]) AS paid (text_hash, vectors)
ORDER BY text_hash
ON CONFLICT DO NOTHING

-- name: bound_kept_vectors
-- Deletes the oldest kept vectors, beyond a number of bytes, and those that are older than a day.
DELETE FROM {schema}.unwritten_vectors AS old
USING (
    SELECT model, text_hash, kept_at, sum(octet_length(vectors)) OVER (ORDER BY kept_at DESC, model, text_hash) AS bytes
    FROM {schema}.unwritten_vectors
) AS sized
WHERE (old.model, old.text_hash) = (sized.model, sized.text_hash)
  AND (sized.bytes > %(most_bytes)s OR sized.kept_at < now() - interval '1 day')

-- name: kept_vectors
-- The kept vectors of texts.
SELECT text_hash, vectors FROM {schema}.unwritten_vectors
WHERE model = %(model)s AND text_hash = ANY(%(text_hashes)s)

-- name: forget_kept_vectors
-- Deletes kept vectors of texts whose points are written now.
DELETE FROM {schema}.unwritten_vectors WHERE model = %(model)s AND text_hash = ANY(%(text_hashes)s)
