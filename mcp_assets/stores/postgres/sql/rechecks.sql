-- name: note_rechecks
-- Notes entities to be rechecked; the delays of a noted entity start again. The times are those of the clock,
-- because the transaction of a drain may be long.
INSERT INTO {schema}.rechecks AS known (entity_type, entity_id, noted_at, due_at, messages)
SELECT %(entity_type)s, entity_id, clock_timestamp(), clock_timestamp() + %(after_s)s * interval '1 second',
       messages::jsonb
FROM unnest(%(entity_id)s::text[], %(messages)s::text[]) AS early (entity_id, messages)
ORDER BY entity_id
ON CONFLICT (entity_type, entity_id) DO UPDATE
SET noted_at = excluded.noted_at, due_at = excluded.due_at, looks = 0,
    messages = CASE WHEN known.messages @> excluded.messages THEN known.messages
                    ELSE known.messages || excluded.messages END

-- name: due_recheck_types
-- Entity types with rechecks that are due.
SELECT entity_type FROM {schema}.rechecks WHERE due_at <= now() GROUP BY entity_type ORDER BY entity_type

-- name: due_rechecks
-- Rechecks that are due, locked, each with the ledger row of its entity if there is one.
SELECT due.entity_id, due.looks, due.messages, ledger.entity_id IS NOT NULL AS in_ledger, ledger.origin,
       ledger.source_hash, ledger.deleted_at IS NOT NULL AS deleted
FROM {schema}.rechecks AS due LEFT JOIN {schema}.entities AS ledger USING (entity_type, entity_id)
WHERE due.entity_type = %(entity_type)s AND due.due_at <= now()
ORDER BY due.due_at
LIMIT %(limit)s
FOR UPDATE OF due SKIP LOCKED

-- name: postpone_rechecks
-- Counts a recheck, and sets when the next one is due. The delay counts from the event, not from the recheck before.
UPDATE {schema}.rechecks AS known
SET looks = known.looks + 1, due_at = greatest(known.noted_at + late.after_s * interval '1 second', now())
FROM unnest(%(entity_id)s::text[], %(after_s)s::float8[]) AS late (entity_id, after_s)
WHERE known.entity_type = %(entity_type)s AND known.entity_id = late.entity_id

-- name: delete_rechecks
-- Deletes rechecks that are done.
DELETE FROM {schema}.rechecks WHERE entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s)

-- name: count_rechecks
-- The number of entities that are to be rechecked.
SELECT count(*) FROM {schema}.rechecks

-- name: insert_looks
-- Looks: messages of the platform's own, by which a drain compares an entity with its source row.
INSERT INTO {schema}.inbox
    (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, message_id, event_order, stored_at, attempts)
SELECT '(looks)', 0, seq, kind, subject, %(entity_type)s, entity_id, 'look', message_id,
       lpad((extract(epoch FROM now()) * 1000000)::bigint::text, 17, '0') || '|(looks)|' || lpad(seq::text, 20, '0'),
       now(), attempts
FROM (
    SELECT nextval('{schema}.look_numbers') AS seq, look.*
    FROM unnest(%(entity_id)s::text[], %(kind)s::text[], %(subject)s::text[], %(message_id)s::text[],
                %(attempts)s::integer[]) AS look (entity_id, kind, subject, message_id, attempts)
) AS numbered
