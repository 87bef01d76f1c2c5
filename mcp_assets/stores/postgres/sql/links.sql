-- name: mark_changes
-- Returns nothing. Adds marks for a reason that is not `lists`, of which an entity may have several: without ON
-- CONFLICT a row costs a quarter less. References are not compared with the lists of others, so that their marks count
-- as covered by a rebuild.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason, in_rebuild)
SELECT entity_type, entity_id, %(reason)s, %(reason)s = 'references'
FROM unnest(%(types)s::text[], %(ids)s::text[]) AS marked (entity_type, entity_id)

-- name: mark_for_lists
-- Returns nothing. An entity has at most one mark for lists, so that a second one is not added.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason, in_rebuild)
SELECT entity_type, entity_id, %(reason)s, false
FROM unnest(%(types)s::text[], %(ids)s::text[]) AS marked (entity_type, entity_id)
ON CONFLICT DO NOTHING

-- name: mark_range
-- Returns nothing. Marks the entities of a range of slots that were never linked, were linked by other rules, or are
-- linked and gone; with `force` all of them.
WITH differing AS (
    SELECT coalesce(ledger.entity_id, linked.entity_id) AS entity_id
    FROM (
        SELECT entity_id FROM {schema}.entities
        WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s
    ) AS ledger
    FULL JOIN (
        SELECT entity_id, linked_by FROM {schema}.linked
        WHERE entity_type = %(entity_type)s
          AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
          AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
    ) AS linked USING (entity_id)
    WHERE %(force)s OR ledger.entity_id IS NULL OR linked.entity_id IS NULL OR linked.linked_by <> %(linked_by)s
), changed AS (
    INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
    SELECT %(entity_type)s, entity_id, reason FROM differing, unnest(ARRAY['changed', 'references']) AS reason
)
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
SELECT %(entity_type)s, entity_id, 'lists' FROM differing ON CONFLICT DO NOTHING

-- name: mark_waiting
-- Returns nothing. Entities that wait to be indexed or linked get the marks by which all their own edges are
-- compared.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
SELECT %(entity_type)s, entity_id, reason
FROM (
    SELECT entity_id FROM {schema}.entities
    WHERE entity_type = %(entity_type)s AND dirty AND slot >= %(low)s AND slot < %(high)s
    UNION
    SELECT entity_id FROM {schema}.relink_marks
    WHERE entity_type = %(entity_type)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer >= %(low)s
      AND ('x' || substr(md5(entity_id), 1, 4))::bit(16)::integer < %(high)s
) AS waiting, unnest(ARRAY['changed', 'references']) AS reason
ON CONFLICT DO NOTHING

-- name: marks_up_to
-- One row: how many marks there are, at most `limit`, so that a count of a million marks costs nothing.
SELECT count(*) FROM (SELECT FROM {schema}.relink_marks LIMIT %(limit)s) AS few

-- name: oldest_mark
-- One row: the age in seconds of the oldest mark; no row if there is no mark.
SELECT extract(epoch FROM now() - marked_at)::float8 FROM {schema}.relink_marks ORDER BY seq LIMIT 1

-- name: newest_mark
-- One row: the `seq` of the newest mark; no row if there is no mark.
SELECT seq FROM {schema}.relink_marks ORDER BY seq DESC LIMIT 1

-- name: marks_left
-- A row if a mark is as old as `newest`, so that the caller knows whether all marks of one generation are linked.
SELECT FROM {schema}.relink_marks WHERE seq <= %(newest)s ORDER BY seq LIMIT 1

-- name: changes_up_to
-- One row: how many entities changed that no rebuild covers, counted over the first `limit` of their marks.
SELECT count(DISTINCT (entity_type, entity_id))
FROM (
    SELECT entity_type, entity_id FROM {schema}.relink_marks WHERE reason <> 'lists' AND NOT in_rebuild LIMIT %(limit)s
) AS few

-- name: any_change_outside_rebuild
-- A row if there is a change that no rebuild covers. The order is that of the partial index on the changes that no
-- rebuild covers; otherwise the planner may read another index to its end.
SELECT FROM {schema}.relink_marks WHERE reason <> 'lists' AND NOT in_rebuild ORDER BY entity_type, entity_id LIMIT 1

-- name: cover_changes_by_rebuild
-- Returns nothing. The changes that are marked now are not compared with the lists of others, which a rebuild makes
-- again.
UPDATE {schema}.relink_marks SET in_rebuild = true WHERE reason <> 'lists' AND NOT in_rebuild

-- name: mark_all_for_lists
-- Returns nothing. Starts a rebuild; in the order of entities, so that those of one batch lie near each other in all
-- tables.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
SELECT entity_type, entity_id, 'lists' FROM {schema}.entities WHERE deleted_at IS NULL
ORDER BY entity_type, entity_id
ON CONFLICT DO NOTHING

-- name: claim_changes
-- The marks of the `limit` oldest changes, deleted; all marks of an entity at once, so that it is linked once.
WITH oldest AS MATERIALIZED (
    SELECT entity_type, entity_id FROM {schema}.relink_marks WHERE reason <> 'lists' ORDER BY seq LIMIT %(limit)s
), claimed AS (
    SELECT DISTINCT entity_type, entity_id FROM oldest
)
DELETE FROM {schema}.relink_marks AS mark USING claimed
WHERE mark.reason <> 'lists' AND mark.entity_type = claimed.entity_type AND mark.entity_id = claimed.entity_id
RETURNING mark.entity_type, mark.entity_id, mark.reason, mark.in_rebuild

-- name: marked_for_lists
-- The next marks for lists after `after`, and whether Qdrant can be asked about the entity. They are claimed later.
SELECT seq, entity_type, entity_id,
       EXISTS (
           SELECT FROM {schema}.embedded
           WHERE embedded.entity_type = marks.entity_type AND embedded.entity_id = marks.entity_id
             AND embedded.collection = ANY(%(collections)s) AND embedded.points > 0
       ) AS has_point
FROM {schema}.relink_marks AS marks
WHERE reason = 'lists' AND seq > %(after)s ORDER BY seq LIMIT %(limit)s

-- name: count_marked_for_lists
-- One row: how many marks for lists there are after `after`.
SELECT count(*) FROM {schema}.relink_marks WHERE reason = 'lists' AND seq > %(after)s

-- name: claim_lists
-- The entities of those of `marks` that no other transaction has claimed, deleted.
WITH claimed AS (
    SELECT seq FROM {schema}.relink_marks WHERE seq = ANY(%(marks)s) ORDER BY seq FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.relink_marks AS mark USING claimed WHERE mark.seq = claimed.seq
RETURNING mark.entity_type, mark.entity_id

-- name: holds_lock
-- A row if the session `session` holds the advisory lock `lock`.
SELECT FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = %(session)s
  AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%(lock)s, 0)

-- name: read_states
-- The ledger rows of entities, and whether they have a point: what the linker compares with `linked`.
SELECT entity_type, entity_id, title, content, metadata, deleted_at IS NOT NULL AS is_deleted, text_hash,
       EXISTS (
           SELECT FROM {schema}.embedded
           WHERE embedded.entity_type = entities.entity_type AND embedded.entity_id = entities.entity_id
             AND embedded.collection = ANY(%(collections)s) AND embedded.points > 0
       ) AS has_point
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)

-- name: read_linked
-- The entities as they were when last linked; no row of an entity that was never linked.
SELECT entity_type, entity_id, point::text, title_key, slug_key, tags,
       semantic_cut_off, topical_cut_off, linked_by, words_hash AS text_hash
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)

-- name: read_linked_points
-- The entity of each point, and the cut-off of its semantic list, which rules most lists out.
SELECT point::text, entity_type, entity_id, semantic_cut_off AS cut_off
FROM {schema}.linked WHERE point = ANY(%(points)s::uuid[])

-- name: read_tag_holders
-- The entities that have one of `tags`: the candidates for a topical list.
SELECT entity_type, entity_id, tags FROM {schema}.linked WHERE tags && %(tags)s::text[]

-- name: write_linked
-- Returns nothing. Cut-offs and move number of a row that is there stay, because lists are written by other queries.
INSERT INTO {schema}.linked AS stored
    (entity_type, entity_id, point, title_key, slug_key, tags, linked_by, words_hash)
SELECT entity_type, entity_id, point, title_key, slug_key, ARRAY(SELECT jsonb_array_elements_text(tags)),
       %(linked_by)s, text_hash
FROM unnest(%(types)s::text[], %(ids)s::text[], %(point)s::uuid[], %(title_key)s::text[], %(slug_key)s::text[],
            %(tags)s::jsonb[], %(text_hash)s::text[])
    AS new (entity_type, entity_id, point, title_key, slug_key, tags, text_hash)
ON CONFLICT (entity_type, entity_id) DO UPDATE
SET point = excluded.point, title_key = excluded.title_key, slug_key = excluded.slug_key, tags = excluded.tags,
    linked_by = excluded.linked_by, words_hash = excluded.words_hash, linked_at = now()

-- name: read_wordings
-- Titles and contents of living entities, as far as they are compared to find possible duplicates.
SELECT entity_type, entity_id, title, left(content, %(characters)s) AS content
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
WHERE deleted_at IS NULL

-- name: delete_linked
-- Returns nothing. Deletes the state of entities that are gone, with their reserves.
WITH without_reserves AS (
    DELETE FROM {schema}.reserves USING unnest(%(types)s::text[], %(ids)s::text[]) AS gone (entity_type, entity_id)
    WHERE reserves.entity_type = gone.entity_type AND reserves.entity_id = gone.entity_id
)
DELETE FROM {schema}.linked USING unnest(%(types)s::text[], %(ids)s::text[]) AS gone (entity_type, entity_id)
WHERE linked.entity_type = gone.entity_type AND linked.entity_id = gone.entity_id

-- name: write_cut_offs
-- Returns nothing. A row whose cut-offs stay the same is not written.
UPDATE {schema}.linked AS linked
SET semantic_cut_off = CASE WHEN new.is_semantic THEN new.semantic ELSE linked.semantic_cut_off END,
    topical_cut_off = CASE WHEN new.is_topical THEN new.topical ELSE linked.topical_cut_off END
FROM unnest(%(types)s::text[], %(ids)s::text[], %(is_semantic)s::boolean[], %(semantic)s::float8[],
            %(is_topical)s::boolean[], %(topical)s::float8[])
    AS new (entity_type, entity_id, is_semantic, semantic, is_topical, topical)
WHERE linked.entity_type = new.entity_type AND linked.entity_id = new.entity_id
  AND (new.is_semantic AND linked.semantic_cut_off IS DISTINCT FROM new.semantic
       OR new.is_topical AND linked.topical_cut_off IS DISTINCT FROM new.topical)

-- name: read_reserves
-- The cut-off of each entity's semantic list, whether an edge of the list has a verdict, the reserves, and the move
-- number after which these were written.
SELECT entity_type, entity_id, semantic_cut_off AS cut_off,
       EXISTS (
           SELECT FROM {schema}.edge_verdicts AS verdict
           WHERE verdict.source_type = linked.entity_type AND verdict.source_id = linked.entity_id
             AND verdict.edge_type = 'semantic_similarity'
       ) AS judged,
       neighbours AS reserves, written_after_move
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
LEFT JOIN {schema}.reserves USING (entity_type, entity_id)

-- name: read_topical_cut_offs
-- The cut-off of each entity's topical list, and whether an edge of the list has a verdict.
SELECT entity_type, entity_id, topical_cut_off AS cut_off,
       EXISTS (
           SELECT FROM {schema}.edge_verdicts AS verdict
           WHERE verdict.source_type = linked.entity_type AND verdict.source_id = linked.entity_id
             AND verdict.edge_type = 'topical_relevance'
       ) AS judged
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)

-- name: read_last_moves
-- The move number of the last batch in which each entity's vector changed. A reserve without a row is gone.
SELECT entity_type, entity_id, last_move
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)

-- name: record_move
-- Returns nothing. Gives entities whose vectors changed the next move number, one for the whole batch.
WITH move AS MATERIALIZED (SELECT nextval('{schema}.move_numbers') AS number)
UPDATE {schema}.linked SET last_move = move.number
FROM move, unnest(%(types)s::text[], %(ids)s::text[]) AS moved (entity_type, entity_id)
WHERE linked.entity_type = moved.entity_type AND linked.entity_id = moved.entity_id

-- name: write_reserves
-- Returns nothing. Reserves that stay the same are written too if a vector has changed since: the move number says
-- that they are right.
INSERT INTO {schema}.reserves AS stored (entity_type, entity_id, neighbours, written_after_move)
SELECT entity_type, entity_id, neighbours, moves.last_value
FROM ROWS FROM (unnest(%(types)s::text[]), unnest(%(ids)s::text[]), jsonb_array_elements(%(neighbours)s::jsonb))
    AS new (entity_type, entity_id, neighbours)
    JOIN {schema}.linked USING (entity_type, entity_id), {schema}.move_numbers AS moves
ON CONFLICT (entity_type, entity_id) DO UPDATE
SET neighbours = excluded.neighbours, written_after_move = excluded.written_after_move
WHERE stored.written_after_move < excluded.written_after_move OR stored.neighbours <> excluded.neighbours

-- name: uses_of_sources
-- The references that entities make.
SELECT source_type, source_id, kind, key, within, relation, strength, rule, reverse,
       written, place, places, form, context
FROM {schema}.reference_uses JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    ON source_type = wanted.entity_type AND source_id = wanted.entity_id

-- name: reverse_uses_of_keys
-- The references whose *target* is the entity of one of `keys`, because they are written the other way round.
SELECT source_type, source_id, kind, key, within, relation, strength, rule, reverse,
       written, place, places, form, context
FROM {schema}.reference_uses WHERE reverse AND kind = 'id' AND key = ANY(%(keys)s)

-- name: used_keys
-- Those of the keys that an entity refers to.
SELECT kind, key FROM unnest(%(kinds)s::text[], %(keys)s::text[]) AS changed (kind, key)
WHERE EXISTS (
    SELECT FROM {schema}.reference_uses AS used WHERE used.key = changed.key AND used.kind = changed.kind
)

-- name: users_of_keys
-- The entities that refer to one of the keys, at most `limit`: their references are resolved again when the key comes
-- or goes.
SELECT DISTINCT source_type, source_id
FROM {schema}.reference_uses JOIN unnest(%(kinds)s::text[], %(keys)s::text[]) AS changed (kind, key) USING (kind, key)
LIMIT %(limit)s

-- name: mark_users_of_keys
-- Returns nothing. Marks all entities that refer to one of the keys: a million may, and none of them is read.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason, in_rebuild)
SELECT DISTINCT source_type, source_id, 'references', true
FROM {schema}.reference_uses JOIN unnest(%(kinds)s::text[], %(keys)s::text[]) AS changed (kind, key) USING (kind, key)

-- name: delete_uses
-- Returns nothing. Deletes the references that entities make; those that still stand are copied in again.
DELETE FROM {schema}.reference_uses USING unnest(%(types)s::text[], %(ids)s::text[]) AS gone (entity_type, entity_id)
WHERE source_type = gone.entity_type AND source_id = gone.entity_id

-- name: copy_uses
-- COPY, because a text may make ten thousand references.
COPY {schema}.reference_uses
    (source_type, source_id, kind, key, within, relation, strength, rule, reverse, written, place, places, form, context)
FROM STDIN

-- name: linked_among
-- Those of the entities that are living, for references by id.
SELECT entity_type, entity_id
FROM {schema}.linked JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)

-- name: holders_of_titles
-- For each title and entity type the smallest id, because a title means the smallest (type, id) of its holders.
SELECT DISTINCT ON (title_key, entity_type) title_key, entity_type, entity_id
FROM {schema}.linked WHERE title_key = ANY(%(keys)s) ORDER BY title_key, entity_type, entity_id

-- name: holders_of_slugs
-- The same for slugs.
SELECT DISTINCT ON (slug_key, entity_type) slug_key, entity_type, entity_id
FROM {schema}.linked WHERE slug_key = ANY(%(keys)s) ORDER BY slug_key, entity_type, entity_id

-- name: read_tag_weights
-- The weights of `tags`; a tag without a row counts as one that has a single holder.
SELECT tag, weight, makes_candidates FROM {schema}.tag_weights WHERE tag = ANY(%(tags)s)

-- name: count_tags
-- Each tag, and how many entities have it.
SELECT tag, count(*) FROM {schema}.linked, unnest(tags) AS tag GROUP BY tag

-- name: crowded_tags
-- Those of `tags` that more than `limit` entities hold, although they make candidates by their weight or have none.
SELECT tag FROM unnest(%(tags)s::text[]) AS held (tag)
WHERE NOT EXISTS (SELECT FROM {schema}.tag_weights AS known WHERE known.tag = held.tag AND NOT known.makes_candidates)
  AND %(limit)s < (
      SELECT count(*) FROM (
          SELECT FROM {schema}.linked WHERE linked.tags @> ARRAY[held.tag] LIMIT %(limit)s + 1
      ) AS few
  )

-- name: read_all_tag_weights
-- All weights, to be compared with the counts.
SELECT tag, holders, weight, makes_candidates FROM {schema}.tag_weights

-- name: write_tag_weights
-- Returns nothing.
INSERT INTO {schema}.tag_weights (tag, holders, weight, makes_candidates)
SELECT * FROM unnest(%(tags)s::text[], %(holders)s::bigint[], %(weights)s::float8[], %(makes)s::boolean[])
ON CONFLICT (tag) DO UPDATE
SET holders = excluded.holders, weight = excluded.weight, makes_candidates = excluded.makes_candidates

-- name: delete_tag_weights
-- Returns nothing. Deletes the weights of tags that no entity has.
DELETE FROM {schema}.tag_weights WHERE tag = ANY(%(tags)s)

-- name: count_all_living
-- One row: how many living entities there are.
SELECT count(*) FROM {schema}.entities WHERE deleted_at IS NULL

-- name: mark_tag_holders
-- Returns nothing. Marks the entities that have one of `tags`, whose weights changed.
INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)
SELECT entity_type, entity_id, 'tags' FROM {schema}.linked WHERE tags && %(tags)s::text[]

-- name: living_ids
-- The ids of the living entities of one type in a range of slots.
SELECT entity_id FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND deleted_at IS NULL AND slot >= %(low)s AND slot < %(high)s

-- name: living_by_id
-- The living entities that have an id, in the order of their types: a bare id may mean several.
SELECT entity_type, entity_id FROM {schema}.entities
WHERE entity_type = ANY(%(types)s) AND entity_id = %(id)s AND deleted_at IS NULL ORDER BY entity_type

-- name: read_titles
-- The titles of living entities, to show edges to a person.
SELECT entity_type, entity_id, title
FROM {schema}.entities JOIN unnest(%(types)s::text[], %(ids)s::text[]) AS wanted (entity_type, entity_id)
    USING (entity_type, entity_id)
WHERE deleted_at IS NULL

-- name: count_marked
-- One row: how many entities have a mark.
SELECT count(DISTINCT (entity_type, entity_id)) FROM {schema}.relink_marks

-- name: count_marks
-- One row: how many entities are marked for changes, and how many for lists.
SELECT count(DISTINCT (entity_type, entity_id)) FILTER (WHERE reason <> 'lists') AS changes,
       count(*) FILTER (WHERE reason = 'lists') AS lists
FROM {schema}.relink_marks

-- name: has_tag_weights
-- A row if weights were ever computed.
SELECT FROM {schema}.tag_weights LIMIT 1

-- name: linked_not_marked_for_lists
-- A row if some entity would not be linked by a rebuild that is under way.
SELECT entity_type, entity_id FROM {schema}.linked
EXCEPT SELECT entity_type, entity_id FROM {schema}.relink_marks WHERE reason = 'lists'
LIMIT 1

-- name: analyze_linked
-- Returns nothing. Refreshes the planner's statistics.
ANALYZE {schema}.linked

-- name: analyze_relink_marks
-- Returns nothing. Refreshes the planner's statistics.
ANALYZE {schema}.relink_marks
