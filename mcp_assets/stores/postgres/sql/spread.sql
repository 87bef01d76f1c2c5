-- name: partition_indexed
-- Records that everything is indexed that the source table of a partition held at a moment.
INSERT INTO {schema}.synced_partitions AS known (entity_type, shards, shard, indexed_since)
VALUES (%(entity_type)s, %(shards)s, %(shard)s, %(since)s)
ON CONFLICT (entity_type, shards, shard) DO UPDATE
SET indexed_since = greatest(known.indexed_since, excluded.indexed_since)

-- name: indexed_since
-- Up to when the source tables of some partitions are indexed; partitions that never were are left out.
SELECT entity_type, shard, indexed_since
FROM {schema}.synced_partitions
JOIN unnest(%(entity_type)s::text[], %(shard)s::integer[]) AS wanted (entity_type, shard) USING (entity_type, shard)
WHERE shards = %(shards)s

-- name: partitions_linked
-- Records that the entities are linked that were indexed up to given moments.
UPDATE {schema}.synced_partitions AS known
SET linked_since = greatest(known.linked_since, done.since)
FROM unnest(%(entity_type)s::text[], %(shard)s::integer[], %(since)s::timestamptz[]) AS done (entity_type, shard, since)
WHERE known.entity_type = done.entity_type AND known.shard = done.shard AND known.shards = %(shards)s

-- name: full_syncs_done
-- Deletes the wanted full syncs of the types whose partitions are all indexed and linked by work that began after the
-- full sync was wanted. The runs that did it need not be one.
DELETE FROM {schema}.wanted_full_syncs AS wanted
WHERE entity_type = ANY(%(entity_types)s) AND wanted_at <= (
    SELECT min(linked_since) FROM {schema}.synced_partitions AS known
    WHERE known.entity_type = wanted.entity_type AND known.shards = %(shards)s
    HAVING count(linked_since) = %(shards)s
)

-- name: deletion_judgement
-- How many entities of a type were gone, and how many there were, if a run has counted them lately.
SELECT gone, living FROM {schema}.deletion_judgements
WHERE entity_type = %(entity_type)s AND judged_at > clock_timestamp() - make_interval(secs => %(kept_s)s)

-- name: write_deletion_judgement
-- Records how many entities of a type are gone, and how many there are.
INSERT INTO {schema}.deletion_judgements (entity_type, judged_at, gone, living)
VALUES (%(entity_type)s, clock_timestamp(), %(gone)s, %(living)s)
ON CONFLICT (entity_type) DO UPDATE
SET judged_at = excluded.judged_at, gone = excluded.gone, living = excluded.living

-- name: take_provider_place
-- Takes a free place of those that the runs of all machines share, until the session gives it back or ends. No row: all
-- are taken, or the provider has asked for a pause.
SELECT place FROM unnest(%(places)s::text[]) AS free (place)
WHERE CASE
    WHEN EXISTS (SELECT FROM {schema}.provider_pauses WHERE provider = %(provider)s AND until > clock_timestamp())
    THEN false
    ELSE pg_try_advisory_lock(hashtextextended(place, 0))
END
LIMIT 1

-- name: pause_provider
-- Records that the provider has asked for a pause.
INSERT INTO {schema}.provider_pauses AS known (provider, until)
VALUES (%(provider)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (provider) DO UPDATE SET until = greatest(known.until, excluded.until)
