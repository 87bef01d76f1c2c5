-- name: pending_requests
-- The kinds of requests that are due.
SELECT DISTINCT kind FROM {schema}.inbox
WHERE kind IN ('sync', 'validate') AND not_before <= now() ORDER BY kind

-- name: claim_request
-- The oldest request that is due and that no other transaction has locked.
SELECT stream, epoch, seq, subject, message_id, traceparent, payload, stored_at, attempts
FROM {schema}.inbox
WHERE kind = %(kind)s AND kind IN ('sync', 'validate') AND not_before <= now()
ORDER BY event_order
LIMIT 1
FOR UPDATE SKIP LOCKED

-- name: insert_failed_request
-- Keeps a request as a dead letter; if it has one from an earlier replay, its attempts are counted.
INSERT INTO {schema}.dead_letters AS letter
    (stage, subject, stream, epoch, seq, stored_at, raw, error_kind, error)
VALUES ('request', %(subject)s, %(stream)s, %(epoch)s, %(seq)s, %(stored_at)s, %(raw)s, %(error_kind)s,
        %(error)s)
ON CONFLICT (stream, epoch, seq) WHERE stage IN ('intake', 'request') DO UPDATE
SET stage = 'request', error_kind = excluded.error_kind, error = excluded.error, attempts = letter.attempts + 1,
    last_at = now(), replayed_at = NULL

-- name: known_in_ledger
-- Those of some ids that the ledger has.
SELECT entity_id FROM {schema}.entities WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: full_sync_of_message
-- The full sync that a message with this id has joined before.
SELECT full_sync_id FROM {schema}.full_sync_requests WHERE message_id = %(message_id)s LIMIT 1

-- name: full_sync_covering
-- The oldest full sync that serves a request for some types. A full sync that has begun to compare may miss rows
-- that were written before the request, so that it does not serve it.
SELECT id FROM {schema}.full_syncs
WHERE finished_at IS NULL AND comparing_at IS NULL AND entity_types @> %(entity_types)s::text[] AND (force OR NOT %(force)s)
ORDER BY requested_at LIMIT 1

-- name: insert_full_sync
-- Inserts a full sync, to run after the others.
INSERT INTO {schema}.full_syncs (id, entity_types, force, requested_by)
VALUES (%(id)s, %(entity_types)s, %(force)s, %(requested_by)s)

-- name: join_full_sync
-- Records that a full sync serves a request. A message that was read again moves to the full sync that serves it
-- now.
INSERT INTO {schema}.full_sync_requests
    (stream, epoch, seq, subject, message_id, traceparent, full_sync_id, entity_types)
VALUES (%(stream)s, %(epoch)s, %(seq)s, %(subject)s, %(message_id)s, %(traceparent)s, %(full_sync_id)s,
        %(entity_types)s)
ON CONFLICT (stream, epoch, seq) DO UPDATE
SET full_sync_id = excluded.full_sync_id, entity_types = excluded.entity_types

-- name: unfinished_full_syncs
-- The full syncs that are to be started or under way, the oldest first.
SELECT id, entity_types, force, requested_by, started_at IS NOT NULL AS started
FROM {schema}.full_syncs WHERE finished_at IS NULL ORDER BY requested_at, id

-- name: full_sync
-- A full sync by id.
SELECT id, entity_types, force, requested_by, started_at IS NOT NULL AS started, finished_at IS NOT NULL AS finished,
       error
FROM {schema}.full_syncs WHERE id = %(id)s

-- name: last_full_sync
-- The full sync that was asked for last, with the seconds since it ended, or NULL.
SELECT id, entity_types, force, requested_by, started_at IS NOT NULL AS started, finished_at IS NOT NULL AS finished,
       error, extract(epoch FROM clock_timestamp() - finished_at)::float8 AS finished_s_ago
FROM {schema}.full_syncs ORDER BY requested_at DESC LIMIT 1

-- name: start_full_sync
-- Records when the backfill of a full sync was started.
UPDATE {schema}.full_syncs SET started_at = coalesce(started_at, clock_timestamp()) WHERE id = %(id)s

-- name: full_sync_compares
-- Records when the first run of a full sync began to compare.
UPDATE {schema}.full_syncs SET comparing_at = clock_timestamp() WHERE id = %(id)s AND comparing_at IS NULL

-- name: finish_full_sync
-- Records the end of a full sync; changes no row if it has ended before.
UPDATE {schema}.full_syncs SET finished_at = clock_timestamp(), error = %(error)s
WHERE id = %(id)s AND finished_at IS NULL

-- name: requests_of_full_sync
-- The requests that a full sync serves.
SELECT subject, message_id, traceparent, entity_types FROM {schema}.full_sync_requests WHERE full_sync_id = %(id)s ORDER BY stream, seq

-- name: write_full_sync_progress
-- Adds progress to that of the partition; a full sync that was deleted gets none.
INSERT INTO {schema}.full_sync_progress AS progress
    (full_sync_id, entity_type, shard, differing, done, scanned, embedded, updated, deleted, failed, indexed, linked)
SELECT %(id)s, new.*
FROM unnest(%(entity_type)s::text[], %(shard)s::integer[], %(differing)s::bigint[], %(done)s::bigint[],
            %(scanned)s::bigint[], %(embedded)s::bigint[], %(updated)s::bigint[], %(deleted)s::bigint[],
            %(failed)s::bigint[], %(indexed)s::boolean[], %(linked)s::boolean[])
    AS new (entity_type, shard, differing, done, scanned, embedded, updated, deleted, failed, indexed, linked)
WHERE EXISTS (SELECT FROM {schema}.full_syncs WHERE id = %(id)s)
ON CONFLICT (full_sync_id, entity_type, shard) DO UPDATE
SET differing = greatest(progress.differing, progress.done + excluded.differing), done = progress.done + excluded.done,
    scanned = greatest(progress.scanned, excluded.scanned), embedded = progress.embedded + excluded.embedded,
    updated = progress.updated + excluded.updated, deleted = progress.deleted + excluded.deleted,
    failed = progress.failed + excluded.failed, indexed = progress.indexed OR excluded.indexed,
    linked = progress.linked OR excluded.linked

-- name: read_full_sync_progress
-- The progress of each partition of a full sync in which work has begun.
SELECT entity_type, shard, differing, done, scanned, embedded, updated, deleted, failed, indexed, linked
FROM {schema}.full_sync_progress WHERE full_sync_id = %(id)s ORDER BY entity_type, shard

-- name: unfinished_partitions
-- The partitions of a full sync that are not indexed or not linked yet, by type and shard.
SELECT wanted.entity_type, every.shard, coalesce(indexed, false) AS indexed, coalesce(linked, false) AS linked
FROM unnest(%(entity_types)s::text[]) WITH ORDINALITY AS wanted (entity_type, place)
CROSS JOIN generate_series(0, %(shards)s - 1) AS every (shard)
LEFT JOIN {schema}.full_sync_progress AS progress
    ON full_sync_id = %(id)s AND progress.entity_type = wanted.entity_type AND progress.shard = every.shard
WHERE indexed IS NOT TRUE OR linked IS NOT TRUE
ORDER BY place, every.shard

-- name: ended_full_syncs
-- The last full syncs that were asked for by a name for one type and that have ended, the newest first.
SELECT error IS NOT NULL AS failed, extract(epoch FROM clock_timestamp() - finished_at)::float8 AS ended_s_ago
FROM {schema}.full_syncs
WHERE requested_by = %(requested_by)s AND entity_types = ARRAY[%(entity_type)s] AND finished_at IS NOT NULL
ORDER BY finished_at DESC LIMIT %(limit)s

-- name: forget_full_syncs
-- Deletes full syncs that ended a number of days ago.
DELETE FROM {schema}.full_syncs WHERE finished_at < now() - %(days)s * interval '1 day'

-- name: changed_at
-- When ledger rows were last changed, and where their state comes from.
SELECT entity_id, changed_at, origin FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: insert_results
-- Puts results into the outbox, in the order in which they are given.
INSERT INTO {schema}.outbox (subject, envelope, traceparent)
SELECT subject, envelope, traceparent
FROM unnest(%(subject)s::text[], %(envelope)s::bytea[], %(traceparent)s::text[])
    WITH ORDINALITY AS result (subject, envelope, traceparent, place)
ORDER BY place

-- name: claim_results
-- The oldest results of the outbox that no other transaction has locked.
SELECT id, subject, envelope, traceparent FROM {schema}.outbox ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED

-- name: delete_results
-- Deletes results that NATS has confirmed.
DELETE FROM {schema}.outbox WHERE id = ANY(%(ids)s)

-- name: forget_results
-- Deletes results that could not be published for a number of days.
DELETE FROM {schema}.outbox WHERE made_at < now() - make_interval(secs => %(days)s * 86400)

-- name: count_results
-- The number of results that NATS has not confirmed.
SELECT count(*) FROM {schema}.outbox

-- name: insert_relate_requests
-- Keeps requests to re-link entities, each with the newest mark of the linker, and with the edges of its entity.
INSERT INTO {schema}.relate_requests (entity_type, entity_id, message_id, traceparent, newest_mark, edges_before)
SELECT %(entity_type)s, entity_id, message_id, traceparent, newest, edges_before::jsonb
FROM unnest(%(entity_id)s::text[], %(message_id)s::text[], %(traceparent)s::text[], %(edges_before)b::text[])
         AS asked (entity_id, message_id, traceparent, edges_before),
     (SELECT coalesce(max(seq), 0) AS newest FROM {schema}.relink_marks) AS marks

-- name: claim_relinked
-- Deletes the requests whose entity has no mark left that is as old as the request, and returns them.
DELETE FROM {schema}.relate_requests WHERE id IN (
    SELECT id FROM {schema}.relate_requests AS asked
    WHERE NOT EXISTS (
        SELECT FROM {schema}.relink_marks AS mark
        WHERE reason = 'lists' AND mark.entity_type = asked.entity_type AND mark.entity_id = asked.entity_id
          AND seq <= newest_mark
    ) AND NOT EXISTS (
        SELECT FROM {schema}.relink_marks AS mark
        WHERE reason <> 'lists' AND mark.entity_type = asked.entity_type AND mark.entity_id = asked.entity_id
          AND seq <= newest_mark
    )
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING id, entity_type, entity_id, message_id, traceparent, edges_before, asked_at

-- name: claim_unannounced
-- Dead letters with an attempt that is not published yet.
SELECT id, stage, subject, stream, epoch, seq, stored_at, entity_type, entity_id, raw, error_kind, error,
       attempts, first_at, last_at, replayed_at
FROM {schema}.dead_letters
WHERE announced < attempts
ORDER BY id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: mark_announced
-- Records that all attempts of dead letters are published.
UPDATE {schema}.dead_letters SET announced = attempts WHERE id = ANY(%(ids)s)

-- name: find_dead_letters
-- A page of the dead letters that match every given filter, by id.
SELECT id, stage, subject, stream, epoch, seq, stored_at, entity_type, entity_id, raw, error_kind, error,
       attempts, first_at, last_at, replayed_at
FROM {schema}.dead_letters
WHERE id > %(after)s
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(entity_type)s::text IS NULL OR entity_type = %(entity_type)s)
  AND (%(stage)s::text IS NULL OR stage = %(stage)s)
  AND (%(error_kind)s::text IS NULL OR error_kind = %(error_kind)s)
  AND id <= %(up_to)s
ORDER BY id
LIMIT %(limit)s

-- name: last_dead_letter
-- The highest id of a dead letter; 0 if there is none.
SELECT coalesce(max(id), 0) FROM {schema}.dead_letters

-- name: purge_dead_letters
-- Deletes the dead letters that match every given filter.
DELETE FROM {schema}.dead_letters
WHERE (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(entity_type)s::text IS NULL OR entity_type = %(entity_type)s)
  AND (%(stage)s::text IS NULL OR stage = %(stage)s)
  AND (%(error_kind)s::text IS NULL OR error_kind = %(error_kind)s)

-- name: lock_dead_letters
-- Those letters that are not replayed yet, locked, so that two replays cannot both take one.
SELECT id FROM {schema}.dead_letters WHERE id = ANY(%(ids)s) AND replayed_at IS NULL ORDER BY id FOR UPDATE

-- name: mark_replayed
-- Records that the messages of dead letters are in the inbox again.
UPDATE {schema}.dead_letters SET replayed_at = now() WHERE id = ANY(%(ids)s)

-- name: still_rejected
-- Counts an attempt of dead letters, and records why it failed.
UPDATE {schema}.dead_letters AS letter
SET error_kind = again.error_kind, error = again.error, attempts = attempts + 1, last_at = now()
FROM unnest(%(ids)s::bigint[], %(error_kind)s::text[], %(error)s::text[]) AS again (id, error_kind, error)
WHERE letter.id = again.id

-- name: replay_inbox
-- Puts the messages of dead letters into the inbox at their old place; one that is there already stays.
INSERT INTO {schema}.inbox
    (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, payload, message_id, event_order,
     stored_at)
SELECT stream, epoch, seq, kind, subject, entity_type, entity_id, verb, payload::jsonb, message_id,
       event_order, stored_at
FROM unnest(
    %(stream)s::text[], %(epoch)s::integer[], %(seq)s::bigint[], %(kind)s::text[], %(subject)s::text[],
    %(entity_type)s::text[], %(entity_id)s::text[], %(verb)s::text[], %(payload)b::text[], %(message_id)s::text[],
    %(event_order)s::text[], %(stored_at)s::timestamptz[]
) AS message (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, payload, message_id,
              event_order, stored_at)
ON CONFLICT (stream, epoch, seq) DO NOTHING
