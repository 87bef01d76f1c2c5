-- name: store_marks
-- The marks of all stores.
SELECT store, mark FROM {schema}.store_marks

-- name: record_store_mark
-- Records the mark of a store that has none. The first mark stands until a person accepts another one.
INSERT INTO {schema}.store_marks (store, mark) VALUES (%(store)s, %(mark)s) ON CONFLICT (store) DO NOTHING

-- name: accept_store_mark
-- Records the mark of a store in place of the former one.
INSERT INTO {schema}.store_marks (store, mark) VALUES (%(store)s, %(mark)s)
ON CONFLICT (store) DO UPDATE SET mark = excluded.mark, recorded_at = clock_timestamp()

-- name: forget_source_marks
-- Deletes the marks of all databases of source tables.
DELETE FROM {schema}.store_marks WHERE starts_with(store, %(prefix)s)

-- name: forget_store_mark
-- Deletes the mark of a store.
DELETE FROM {schema}.store_marks WHERE store = %(store)s
