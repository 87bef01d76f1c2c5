-- name: current_gate
-- The gate of the present change of model; no row: nothing was measured or decided yet.
SELECT model, dimension, outcome, reason, figures, samples, golden, measured_at, decision, decided_by, decided_at,
       ended_as
FROM {schema}.model_gates WHERE ended_at IS NULL

-- name: last_gate
-- The gate of the last change of model, whether or not it has ended.
SELECT model, dimension, outcome, reason, figures, samples, golden, measured_at, decision, decided_by, decided_at,
       ended_as
FROM {schema}.model_gates ORDER BY id DESC LIMIT 1

-- name: record_gate
-- Records what was measured, in the row of the present change of model. A decision stays.
INSERT INTO {schema}.model_gates (model, dimension, outcome, reason, figures, samples, golden, measured_at)
VALUES (%(model)s, %(dimension)s, %(outcome)s, %(reason)s, %(figures)s::jsonb, %(samples)s::jsonb, %(golden)s,
        clock_timestamp())
ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO UPDATE
SET outcome = excluded.outcome, reason = excluded.reason, figures = excluded.figures, samples = excluded.samples,
    golden = excluded.golden, measured_at = excluded.measured_at

-- name: decide_gate
-- Records what a person decided, in the row of the present change of model.
INSERT INTO {schema}.model_gates (model, dimension, decision, decided_by, decided_at)
VALUES (%(model)s, %(dimension)s, %(decision)s, %(by)s, clock_timestamp())
ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO UPDATE
SET decision = excluded.decision, decided_by = excluded.decided_by, decided_at = excluded.decided_at

-- name: end_gate
-- Ends the gate of the present change of model.
UPDATE {schema}.model_gates SET ended_as = %(ended_as)s, ended_at = clock_timestamp() WHERE ended_at IS NULL

-- name: end_gates_of_others
-- Ends the gate of a change to another model than this one: the change is given up.
UPDATE {schema}.model_gates SET ended_as = 'given up', ended_at = clock_timestamp()
WHERE ended_at IS NULL AND (model, dimension) IS DISTINCT FROM (%(model)s, %(dimension)s)

-- name: forget_old_gates
-- Keeps the gates of the last changes alone.
DELETE FROM {schema}.model_gates
WHERE id <= (SELECT id FROM {schema}.model_gates ORDER BY id DESC OFFSET %(kept)s LIMIT 1)

-- name: titles_to_ask
-- Titles of living entities as questions, with all entities that bear each, the same ones each time. Titles that many
-- entities bear ask for nothing in particular.
SELECT title, array_agg(entity_type ORDER BY entity_type, entity_id) AS types,
       array_agg(entity_id ORDER BY entity_type, entity_id) AS ids
FROM {schema}.entities
WHERE deleted_at IS NULL AND text_hash <> %(no_text)s AND entity_type = ANY(%(types)s)
  AND char_length(title) BETWEEN 3 AND 500
GROUP BY title HAVING count(*) <= %(bearers)s
ORDER BY md5(title) LIMIT %(limit)s
