-- name: keep_warnings
-- Adds the warnings of messages to those of the same subject, kind and place.
INSERT INTO {schema}.warnings AS kept
    (subject, error_kind, place, warning, entity_type, entity_id, stream, epoch, seq, messages)
SELECT * FROM unnest(%(subject)s::text[], %(error_kind)s::text[], %(place)s::text[], %(warning)s::text[],
                     %(entity_type)s::text[], %(entity_id)s::text[], %(stream)s::text[], %(epoch)s::integer[],
                     %(seq)s::bigint[], %(messages)s::bigint[])
ON CONFLICT (subject, error_kind, place) DO UPDATE
SET warning = excluded.warning, entity_type = excluded.entity_type, entity_id = excluded.entity_id,
    stream = excluded.stream, epoch = excluded.epoch, seq = excluded.seq, messages = kept.messages + excluded.messages, last_at = now()

-- name: forget_old_warnings
-- Deletes the least recently seen warnings, beyond the number of rows to keep.
DELETE FROM {schema}.warnings WHERE (subject, error_kind, place) IN (
    SELECT subject, error_kind, place FROM {schema}.warnings
    ORDER BY last_at DESC, subject, error_kind, place OFFSET %(kept)s
)

-- name: find_warnings
-- The warnings that match every given filter, the newest first.
SELECT subject, error_kind, place, warning, entity_type, entity_id, stream, epoch, seq, messages, first_at, last_at
FROM {schema}.warnings
WHERE (%(entity_type)s::text IS NULL OR entity_type = %(entity_type)s)
  AND (%(error_kind)s::text IS NULL OR error_kind = %(error_kind)s)
ORDER BY last_at DESC, subject, error_kind, place
LIMIT %(limit)s
