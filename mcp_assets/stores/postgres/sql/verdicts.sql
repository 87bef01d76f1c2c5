-- name: read_verdicts
-- The verdicts about edges that have one of the entities as an end, and both ends as they are now: text and tags are
-- NULL for an entity that is not living.
WITH named AS MATERIALIZED (
    SELECT entity_type, entity_id FROM unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
), verdict AS (
    SELECT verdict.* FROM named JOIN {schema}.edge_verdicts AS verdict
        ON verdict.source_type = named.entity_type AND verdict.source_id = named.entity_id
    UNION
    SELECT verdict.* FROM named JOIN {schema}.edge_verdicts AS verdict
        ON verdict.target_type = named.entity_type AND verdict.target_id = named.entity_id
)
SELECT verdict.source_type, verdict.source_id, verdict.target_type, verdict.target_id, verdict.edge_type,
       verdict.decision, verdict.evidence, verdict.strength, verdict.metadata,
       source.text_hash AS source_text, source_state.tags AS source_tags,
       target.text_hash AS target_text, target_state.tags AS target_tags,
       verdict.decided_by, verdict.decided_at, verdict.note
FROM verdict
LEFT JOIN {schema}.linked AS source_state
    ON source_state.entity_type = verdict.source_type AND source_state.entity_id = verdict.source_id
LEFT JOIN {schema}.linked AS target_state
    ON target_state.entity_type = verdict.target_type AND target_state.entity_id = verdict.target_id
LEFT JOIN {schema}.entities AS source
    ON source.entity_type = verdict.source_type AND source.entity_id = verdict.source_id
LEFT JOIN {schema}.entities AS target
    ON target.entity_type = verdict.target_type AND target.entity_id = verdict.target_id
WHERE verdict.edge_type = ANY(%(edge_types)s)

-- name: read_ends
-- Text and tags of entities that are linked, which the evidence of their edges may depend on.
SELECT entity_type, entity_id, text_hash, linked.tags
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
JOIN {schema}.entities USING (entity_type, entity_id)

-- name: write_verdicts
-- Returns nothing. A later verdict about the same edge replaces the one before.
INSERT INTO {schema}.edge_verdicts
    (source_type, source_id, target_type, target_id, edge_type, decision, evidence, strength, metadata, decided_by,
     note)
SELECT source_type, source_id, target_type, target_id, %(edge_type)s, %(decision)s, evidence, strength, metadata,
       %(decided_by)s, %(note)s
FROM unnest(%(source_types)s::text[], %(source_ids)s::text[], %(target_types)s::text[], %(target_ids)s::text[],
            %(evidence)s::jsonb[], %(strengths)s::real[], %(metadata)s::jsonb[])
    AS new (source_type, source_id, target_type, target_id, evidence, strength, metadata)
ON CONFLICT (source_type, source_id, target_type, target_id, edge_type) DO UPDATE
SET decision = excluded.decision, evidence = excluded.evidence, strength = excluded.strength,
    metadata = excluded.metadata, decided_by = excluded.decided_by, decided_at = now(), note = excluded.note

-- name: delete_verdicts
-- Returns nothing. Withdraws the verdicts about edges.
DELETE FROM {schema}.edge_verdicts AS verdict
USING unnest(%(source_types)s::text[], %(source_ids)s::text[], %(target_types)s::text[], %(target_ids)s::text[])
    AS gone (source_type, source_id, target_type, target_id)
WHERE verdict.source_type = gone.source_type AND verdict.source_id = gone.source_id
  AND verdict.target_type = gone.target_type AND verdict.target_id = gone.target_id
  AND verdict.edge_type = %(edge_type)s

-- name: list_verdicts
-- The newest verdicts, with the titles of the living ends: `limit` of them, of one entity if it is named.
SELECT verdict.source_type, verdict.source_id, verdict.target_type, verdict.target_id, verdict.edge_type,
       verdict.decision, verdict.evidence, verdict.strength, verdict.metadata,
       source.text_hash AS source_text, source_state.tags AS source_tags,
       target.text_hash AS target_text, target_state.tags AS target_tags,
       verdict.decided_by, verdict.decided_at, verdict.note
FROM {schema}.edge_verdicts AS verdict
LEFT JOIN {schema}.linked AS source_state
    ON source_state.entity_type = verdict.source_type AND source_state.entity_id = verdict.source_id
LEFT JOIN {schema}.linked AS target_state
    ON target_state.entity_type = verdict.target_type AND target_state.entity_id = verdict.target_id
LEFT JOIN {schema}.entities AS source
    ON source.entity_type = verdict.source_type AND source.entity_id = verdict.source_id
LEFT JOIN {schema}.entities AS target
    ON target.entity_type = verdict.target_type AND target.entity_id = verdict.target_id
WHERE verdict.edge_type = ANY(%(edge_types)s)
  AND (%(decision)s::text IS NULL OR verdict.decision = %(decision)s)
  AND (%(entity_id)s::text IS NULL
       OR (verdict.source_type, verdict.source_id) = (%(entity_type)s, %(entity_id)s)
       OR (verdict.target_type, verdict.target_id) = (%(entity_type)s, %(entity_id)s))
ORDER BY verdict.decided_at DESC, verdict.source_type, verdict.source_id, verdict.target_type, verdict.target_id,
         verdict.edge_type
LIMIT %(limit)s

-- name: marked_among
-- A row if one of the entities has a mark.
SELECT FROM {schema}.relink_marks JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
LIMIT 1
