-- name: read_cursor
SELECT stream_created_at, last_seq, last_stored_at FROM {schema}.intake_cursors WHERE stream = %(stream)s

-- name: create_cursor
INSERT INTO {schema}.intake_cursors (stream, stream_created_at, last_seq)
VALUES (%(stream)s, %(created_at)s, %(last_seq)s)
ON CONFLICT (stream) DO NOTHING

-- name: move_cursor
UPDATE {schema}.intake_cursors
SET last_seq = %(new_seq)s, stream_created_at = %(new_created_at)s, last_stored_at = %(new_stored_at)s
WHERE stream = %(stream)s AND last_seq = %(old_seq)s AND stream_created_at = %(old_created_at)s

-- name: insert_inbox
INSERT INTO {schema}.inbox
    (stream, stream_created_at, seq, kind, subject, entity_type, entity_id, verb, payload, message_id, event_order,
     stored_at)
SELECT %(stream)s, %(created_at)s, seq, kind, subject, entity_type, entity_id, verb, payload::jsonb, message_id,
       event_order, stored_at
FROM unnest(
    %(seq)s::bigint[], %(kind)s::text[], %(subject)s::text[], %(entity_type)s::text[], %(entity_id)s::text[],
    %(verb)s::text[], %(payload)b::text[], %(message_id)s::text[], %(event_order)s::text[],
    %(stored_at)s::timestamptz[]
) AS message (seq, kind, subject, entity_type, entity_id, verb, payload, message_id, event_order, stored_at)
-- A stream that was restored from a backup gives the same sequences once more.
ON CONFLICT (stream, stream_created_at, seq) DO UPDATE
SET kind = excluded.kind, subject = excluded.subject, entity_type = excluded.entity_type,
    entity_id = excluded.entity_id, verb = excluded.verb, payload = excluded.payload,
    message_id = excluded.message_id,
    event_order = excluded.event_order, stored_at = excluded.stored_at, received_at = now(), not_before = now(),
    attempts = 0

-- name: insert_rejected
INSERT INTO {schema}.dead_letters (stage, subject, stream, stream_created_at, seq, stored_at, raw, error_kind, error)
SELECT 'intake', subject, %(stream)s, %(created_at)s, seq, stored_at, raw, error_kind, error
FROM unnest(%(seq)s::bigint[], %(subject)s::text[], %(stored_at)s::timestamptz[], %(raw)s::bytea[],
            %(error_kind)s::text[], %(error)s::text[])
    AS message (seq, subject, stored_at, raw, error_kind, error)
ON CONFLICT (stream, stream_created_at, seq) WHERE stage IN ('intake', 'request') DO UPDATE
SET stage = 'intake', subject = excluded.subject, stored_at = excluded.stored_at, raw = excluded.raw,
    error_kind = excluded.error_kind, error = excluded.error, last_at = now(), replayed_at = NULL

-- name: want_full_syncs
INSERT INTO {schema}.wanted_full_syncs (entity_type, reason)
SELECT entity_type, %(reason)s FROM unnest(%(entity_types)s::text[]) AS entity_type
ON CONFLICT (entity_type) DO UPDATE SET wanted_at = clock_timestamp(), reason = excluded.reason

-- name: wanted_full_syncs
SELECT entity_type, wanted_at, reason FROM {schema}.wanted_full_syncs ORDER BY entity_type

-- name: full_sync_done
DELETE FROM {schema}.wanted_full_syncs WHERE entity_type = %(entity_type)s AND wanted_at <= %(started_at)s

-- name: pending_types
SELECT entity_type, extract(epoch FROM now() - min(greatest(received_at, not_before)))::float8 FROM {schema}.inbox
WHERE kind = ANY(%(kinds)s) AND not_before <= now()
GROUP BY entity_type ORDER BY entity_type

-- name: waiting_undrained
SELECT waiting.entity_type, extract(epoch FROM now() - min(oldest.due_at))::float8
FROM unnest(%(entity_types)s::text[]) AS waiting (entity_type)
CROSS JOIN unnest(%(kinds)s::text[]) AS asked (kind)
CROSS JOIN LATERAL (
    SELECT greatest(received_at, not_before) AS due_at FROM {schema}.inbox
    WHERE inbox.kind = asked.kind AND inbox.entity_type = waiting.entity_type AND not_before <= now()
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
SELECT kind, coalesce(entity_type, ''), count(*), min(stored_at) FROM {schema}.inbox GROUP BY 1, 2 ORDER BY 1, 2

-- name: claim_inbox
SELECT kind, stream, stream_created_at, seq, entity_id, subject, verb, payload, event_order, attempts, message_id
FROM {schema}.inbox
WHERE kind = ANY(%(kinds)s) AND entity_type = %(entity_type)s AND not_before <= now()
ORDER BY event_order
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: delete_inbox
WITH settled AS (
    DELETE FROM {schema}.dead_letters AS letter
    USING unnest(%(stream)s::text[], %(stream_created_at)s::timestamptz[], %(seq)s::bigint[])
        AS done (stream, stream_created_at, seq)
    WHERE letter.stage IN ('intake', 'request') AND letter.replayed_at IS NOT NULL
      AND letter.stream = done.stream AND letter.stream_created_at = done.stream_created_at AND letter.seq = done.seq
)
DELETE FROM {schema}.inbox AS inbox
USING unnest(%(stream)s::text[], %(stream_created_at)s::timestamptz[], %(seq)s::bigint[])
    AS done (stream, stream_created_at, seq)
WHERE inbox.stream = done.stream AND inbox.stream_created_at = done.stream_created_at AND inbox.seq = done.seq

-- name: postpone_inbox
UPDATE {schema}.inbox AS inbox
SET attempts = attempts + 1,
    not_before = now() + %(delay_ms)s * (2 ^ least(attempts, 6)) * interval '1 millisecond'
FROM unnest(%(stream)s::text[], %(stream_created_at)s::timestamptz[], %(seq)s::bigint[])
    AS late (stream, stream_created_at, seq)
WHERE inbox.stream = late.stream AND inbox.stream_created_at = late.stream_created_at AND inbox.seq = late.seq
