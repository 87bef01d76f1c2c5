-- name: store_marks
SELECT store, mark FROM {schema}.store_marks

-- name: record_store_mark
-- The first mark stands until somebody accepts another one.
INSERT INTO {schema}.store_marks (store, mark) VALUES (%(store)s, %(mark)s) ON CONFLICT (store) DO NOTHING

-- name: accept_store_mark
INSERT INTO {schema}.store_marks (store, mark) VALUES (%(store)s, %(mark)s)
ON CONFLICT (store) DO UPDATE SET mark = excluded.mark, recorded_at = clock_timestamp()

-- name: forget_source_marks
DELETE FROM {schema}.store_marks WHERE starts_with(store, %(prefix)s)

-- name: forget_store_mark
DELETE FROM {schema}.store_marks WHERE store = %(store)s
