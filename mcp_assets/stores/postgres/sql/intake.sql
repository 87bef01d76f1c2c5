-- name: read_cursor
-- How far a stream has been read.
SELECT epoch, stream_created_at, last_seq, newest_stored_at, last_stored_at, last_digest, read_before
FROM {schema}.intake_cursors WHERE stream = %(stream)s

-- name: create_cursor
-- Inserts the cursor of a stream that has none. If the stream was read before and its cursor was removed, the new
-- epoch is above all that rows still name.
INSERT INTO {schema}.intake_cursors (stream, epoch, stream_created_at, last_seq)
SELECT %(stream)s, 1 + coalesce(max(epoch), 0), %(created_at)s, %(last_seq)s
FROM (
    SELECT epoch FROM {schema}.inbox WHERE stream = %(stream)s
    UNION ALL SELECT epoch FROM {schema}.full_sync_requests WHERE stream = %(stream)s
    UNION ALL SELECT epoch FROM {schema}.dead_letters
    WHERE stream = %(stream)s AND stage IN ('intake', 'request')
) AS known
ON CONFLICT (stream) DO NOTHING

-- name: move_cursor
-- Moves the cursor of a stream. It changes no row if another reader has moved the cursor first.
UPDATE {schema}.intake_cursors
SET epoch = %(epoch)s, stream_created_at = %(stream_created_at)s, last_seq = %(last_seq)s,
    newest_stored_at = %(newest_stored_at)s, last_stored_at = %(last_stored_at)s, last_digest = %(last_digest)s,
    read_before = %(read_before)s
WHERE stream = %(stream)s AND epoch = %(old_epoch)s AND last_seq = %(old_seq)s

-- name: insert_inbox
-- Puts messages into the inbox. Payloads travel in binary: in an array's text form, each quote in them is escaped,
-- in Python.
INSERT INTO {schema}.inbox
    (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, payload, message_id, event_order, stored_at,
     traceparent)
SELECT %(stream)s, %(epoch)s, seq, kind, subject, entity_type, entity_id, verb, payload::jsonb, message_id,
       event_order, stored_at, traceparent
FROM unnest(
    %(seq)s::bigint[], %(kind)s::text[], %(subject)s::text[], %(entity_type)s::text[], %(entity_id)s::text[],
    %(verb)s::text[], %(payload)b::text[], %(message_id)s::text[], %(event_order)s::text[],
    %(stored_at)s::timestamptz[], %(traceparent)s::text[]
) AS message (seq, kind, subject, entity_type, entity_id, verb, payload, message_id, event_order, stored_at,
              traceparent)

-- name: insert_rejected
-- Keeps messages that are no events as dead letters.
INSERT INTO {schema}.dead_letters (stage, subject, stream, epoch, seq, stored_at, raw, error_kind, error)
SELECT 'intake', subject, %(stream)s, %(epoch)s, seq, stored_at, raw, error_kind, error
FROM unnest(%(seq)s::bigint[], %(subject)s::text[], %(stored_at)s::timestamptz[], %(raw)s::bytea[],
            %(error_kind)s::text[], %(error)s::text[])
    AS message (seq, subject, stored_at, raw, error_kind, error)

-- name: known_of_earlier_epochs
-- Sequences of messages that an earlier epoch has taken in, and that are in the inbox or among the dead letters. A
-- message that the same stream stored under the same sequence at the same time is the same message.
SELECT message.seq
FROM unnest(%(seq)s::bigint[], %(stored_at)s::timestamptz[]) AS message (seq, stored_at)
WHERE EXISTS (
    SELECT FROM {schema}.inbox
    WHERE inbox.stream = %(stream)s AND inbox.epoch < %(epoch)s AND inbox.seq = message.seq
      AND inbox.stored_at = message.stored_at
) OR EXISTS (
    SELECT FROM {schema}.dead_letters AS letter
    WHERE letter.stage IN ('intake', 'request') AND letter.stream = %(stream)s AND letter.epoch < %(epoch)s
      AND letter.seq = message.seq AND letter.stored_at = message.stored_at
)

-- name: want_full_syncs
-- Asks for full syncs of types whose events were lost; a later reason replaces an earlier one.
INSERT INTO {schema}.wanted_full_syncs (entity_type, reason)
SELECT entity_type, %(reason)s FROM unnest(%(entity_types)s::text[]) AS entity_type
ON CONFLICT (entity_type) DO UPDATE SET wanted_at = clock_timestamp(), reason = excluded.reason

-- name: wanted_full_syncs
-- Entity types whose events were lost, with the reason.
SELECT entity_type, reason FROM {schema}.wanted_full_syncs ORDER BY entity_type

-- name: pending_types
-- Entity types with due messages, and for how many seconds the oldest has been due.
SELECT entity_type, extract(epoch FROM now() - min(greatest(received_at, not_before)))::float8 AS due_for_s FROM {schema}.inbox
WHERE kind = ANY(%(kinds)s) AND not_before <= now()
GROUP BY entity_type ORDER BY entity_type

-- name: waiting_undrained
-- Types with due messages whose drain lock no session holds, and for how many seconds the oldest has been due.
SELECT waiting.entity_type, extract(epoch FROM now() - min(oldest.due_at))::float8
FROM unnest(%(entity_types)s::text[]) AS waiting (entity_type)
CROSS JOIN LATERAL (
    SELECT greatest(received_at, not_before) AS due_at FROM {schema}.inbox
    WHERE inbox.kind = ANY(%(kinds)s) AND inbox.entity_type = waiting.entity_type AND not_before <= now()
    ORDER BY event_order
    LIMIT 1
) AS oldest
WHERE NOT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%(lock_prefix)s || waiting.entity_type, 0)
)
GROUP BY waiting.entity_type

-- name: inbox_counts
-- The number of messages of each kind and entity type in the inbox, and when the oldest was stored.
SELECT kind, coalesce(entity_type, '') AS entity_type, count(*) AS messages, min(stored_at) AS oldest_at
FROM {schema}.inbox GROUP BY 1, 2 ORDER BY 1, 2

-- name: inbox_of_stream
-- The number of messages of one stream in the inbox, and when the oldest was stored.
SELECT count(*) AS messages, min(stored_at) AS oldest_at FROM {schema}.inbox WHERE stream = %(stream)s

-- name: plan_in_order
-- Has the next statements of the transaction follow an index that gives their order. The number of waiting messages
-- changes too fast for the planner's statistics: it would read and sort all of them for each batch.
SELECT set_config('enable_sort', 'off', true)

-- name: claim_inbox
-- The oldest messages that no other batch has claimed; the row locks end with the transaction.
SELECT kind, stream, epoch, seq, entity_id, subject, verb, payload, event_order, attempts, message_id, traceparent
FROM {schema}.inbox
WHERE kind = ANY(%(kinds)s) AND entity_type = %(entity_type)s AND not_before <= now()
ORDER BY event_order
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: delete_inbox
-- Deletes messages that are done, and the dead letters that were replayed as these messages. Those that are counted add
-- to the histogram of lags, from the time of storing to now.
WITH settled AS (
    DELETE FROM {schema}.dead_letters AS letter
    USING unnest(%(stream)s::text[], %(epoch)s::integer[], %(seq)s::bigint[])
        AS done (stream, epoch, seq)
    WHERE letter.stage IN ('intake', 'request') AND letter.replayed_at IS NOT NULL
      AND letter.stream = done.stream AND letter.epoch = done.epoch AND letter.seq = done.seq
), deleted AS (
    DELETE FROM {schema}.inbox AS inbox
    USING unnest(%(stream)s::text[], %(epoch)s::integer[], %(seq)s::bigint[], %(counted)s::boolean[])
        AS done (stream, epoch, seq, counted)
    WHERE inbox.stream = done.stream AND inbox.epoch = done.epoch AND inbox.seq = done.seq
    RETURNING inbox.entity_type, done.counted,
              greatest(extract(epoch FROM clock_timestamp() - inbox.stored_at), 0)::float8 AS lag_s
), lags AS (
    SELECT entity_type, lag_s,
           coalesce((SELECT min(bound) FROM unnest(%(bounds)s::float8[]) AS bound WHERE lag_s <= bound)::text, '+Inf')
               AS bucket
    FROM deleted WHERE counted
)
INSERT INTO {schema}.counters AS known (name, label, part, value)
SELECT 'event_lag', entity_type, bucket, count(*) FROM lags GROUP BY entity_type, bucket
UNION ALL SELECT 'event_lag', entity_type, 'sum', sum(lag_s) FROM lags GROUP BY entity_type
ORDER BY 2, 3
ON CONFLICT (name, label, part) DO UPDATE SET value = known.value + excluded.value

-- name: postpone_inbox
-- Counts an attempt, and makes messages due later. The wait doubles with each attempt, up to 64 times the first.
UPDATE {schema}.inbox AS inbox
SET attempts = attempts + 1,
    not_before = now() + %(delay_ms)s * (2 ^ least(attempts, 6)) * interval '1 millisecond'
FROM unnest(%(stream)s::text[], %(epoch)s::integer[], %(seq)s::bigint[])
    AS late (stream, epoch, seq)
WHERE inbox.stream = late.stream AND inbox.epoch = late.epoch AND inbox.seq = late.seq
