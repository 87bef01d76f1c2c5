-- name: open_feed
-- Returns nothing unless an edition of the feed begins: because the feed was off, or because the database was restored.
-- Entries of the edition before are deleted, and the first entry of the new one says that it begins. A rebuild goes on.
WITH begun AS (
    UPDATE {schema}.change_feed
    SET edition = left(gen_random_uuid()::text, 8), is_on = true, database_life = life.now, began_at = now(),
        forgotten_xid = NULL, forgotten_seq = NULL, forgotten_at = NULL, published_xid = NULL, published_seq = NULL
    FROM (SELECT {schema}.database_life() AS now) AS life
    WHERE NOT is_on OR (life.now IS NOT NULL AND database_life IS DISTINCT FROM life.now)
    RETURNING edition
), former AS (
    DELETE FROM {schema}.changes WHERE EXISTS (SELECT FROM begun)
)
INSERT INTO {schema}.changes (kind, reason) SELECT %(kind)s, %(reason)s FROM begun RETURNING seq

-- name: close_feed
-- Returns nothing. Records that changes are made of which the feed does not tell.
UPDATE {schema}.change_feed SET is_on = false WHERE is_on

-- name: feed_state
-- One row: the edition, whether it goes on, what of it is deleted, and the first transaction that may still run.
SELECT edition, is_on AND (database_life IS NULL OR life.now IS NULL OR database_life = life.now) AS goes_on, is_on,
       NOT pg_is_in_recovery() AS is_primary, began_at, forgotten_xid::text, forgotten_seq, forgotten_at,
       pg_snapshot_xmin(pg_current_snapshot())::text AS complete_before
FROM {schema}.change_feed, (SELECT {schema}.database_life() AS now) AS life

-- name: read_changes
-- Entries after a position, made at or after a time if one is given, of transactions before `complete_before`.
SELECT xid::text, seq, made_at, kind, reason, entity_type, entity_id, state_hash, edge_type, target_type, target_id,
       strength, shard
FROM {schema}.changes
WHERE (xid, seq) > (%(xid)s::xid8, %(seq)s) AND xid < %(complete_before)s::xid8
  AND (%(made_from)s::timestamptz IS NULL OR made_at >= %(made_from)s)
  AND (%(types)s::text[] IS NULL OR entity_type IS NULL OR entity_type = ANY(%(types)s))
ORDER BY xid, seq LIMIT %(limit)s

-- name: newest_changes
-- The newest entries, the newest first.
SELECT xid::text, seq, made_at, kind, reason, entity_type, entity_id, state_hash, edge_type, target_type, target_id,
       strength, shard
FROM {schema}.changes
WHERE xid < %(complete_before)s::xid8
  AND (%(types)s::text[] IS NULL OR entity_type IS NULL OR entity_type = ANY(%(types)s))
ORDER BY xid DESC, seq DESC LIMIT %(limit)s

-- name: newest_old_change
-- The newest entry that was made a number of days ago, in the order of the feed; no row if there is none. An entry that
-- readers do not get yet stays, and so do all after it.
SELECT xid::text, seq FROM {schema}.changes
WHERE made_at < now() - make_interval(secs => %(days)s * 86400) AND xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY xid DESC, seq DESC LIMIT 1

-- name: forget_changes
-- Deletes the oldest entries up to a position, at most `limit`, and records up to which. One row: how many.
WITH oldest AS MATERIALIZED (
    SELECT xid, seq FROM {schema}.changes
    WHERE (xid, seq) <= (%(xid)s::xid8, %(seq)s) ORDER BY xid, seq LIMIT %(limit)s
), gone AS (
    DELETE FROM {schema}.changes USING oldest
    WHERE changes.xid = oldest.xid AND changes.seq = oldest.seq
    RETURNING changes.xid, changes.seq, changes.made_at
), recorded AS (
    UPDATE {schema}.change_feed
    SET forgotten_xid = last.xid, forgotten_seq = last.seq,
        forgotten_at = greatest(forgotten_at, (SELECT max(made_at) FROM gone))
    FROM (SELECT xid, seq FROM gone ORDER BY xid DESC, seq DESC LIMIT 1) AS last
)
SELECT count(*) FROM gone

-- name: copy_edge_changes
-- COPY, because linking a few entities may change thousands of edges.
COPY {schema}.changes (kind, reason, entity_type, entity_id, edge_type, target_type, target_id, strength) FROM STDIN

-- name: rebuild_under_way
-- A row if a rebuild of edges is under way, of which one entry a partition will tell.
SELECT FROM {schema}.change_feed WHERE rebuild_mark IS NOT NULL

-- name: begin_rebuild_entry
-- Returns nothing. Records that a rebuild is under way, which ends when no mark is left that is there now.
UPDATE {schema}.change_feed SET rebuild_mark = (SELECT max(seq) FROM {schema}.relink_marks)

-- name: end_rebuild_entry
-- Returns nothing. If all marks of the rebuild are linked, it writes one entry a partition, and the rebuild is over.
WITH ended AS (
    UPDATE {schema}.change_feed SET rebuild_mark = NULL
    WHERE rebuild_mark IS NOT NULL
      AND NOT EXISTS (SELECT FROM {schema}.relink_marks WHERE seq <= change_feed.rebuild_mark ORDER BY seq LIMIT 1)
    RETURNING edition
)
INSERT INTO {schema}.changes (kind, reason, entity_type, shard)
SELECT %(kind)s, %(reason)s, entity_type, shard
FROM ended, unnest(%(entity_types)s::text[]) WITH ORDINALITY AS wanted (entity_type, place),
     generate_series(0, %(shards)s - 1) AS shard
ORDER BY place, shard

-- name: published_change
-- One row: up to which entry NATS has confirmed them; NULL if none.
SELECT published_xid::text AS xid, published_seq AS seq FROM {schema}.change_feed

-- name: record_published
-- Returns nothing. Records up to which entry NATS has confirmed them; not if another edition has begun meanwhile.
UPDATE {schema}.change_feed SET published_xid = %(xid)s::xid8, published_seq = %(seq)s WHERE edition = %(edition)s
