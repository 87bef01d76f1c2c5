"""Other tables: three columns get the words of the code, and every table and column says what it holds.

Only names and comments change. The version before has to be stopped, because its drains, rechecks and sweeps name
columns that are gone.
"""

from alembic import context, op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Table, column before, column now. From PostgreSQL 18 on, NOT NULL is a constraint that bears the name of its column.
_RENAMED = (
    ("drains", "beat_at", "heartbeat_at"),
    ("rechecks", "asked", "messages"),
    ("sweep_findings", "asked_at", "look_at"),
)

# Of columns that mean the same in each table.
_SHARED = {
    "entity_type": "The type of the entity.",
    "entity_id": "The id of the entity.",
    "slot": "The first 16 bits of md5(entity_id); it decides the shard.",
    "stream": "The stream of the message.",
    "epoch": "The epoch of the stream: its life between two rewinds or remakes.",
    "seq": "The sequence of the message in its stream.",
    "subject": "The subject on which the message was published.",
    "stored_at": "When JetStream stored the message.",
    "message_id": "The id that the publisher gave to the message; NULL: it gave none.",
    "error_kind": "The kind of error, one word.",
}

_TABLES = {
    "entities": "The ledger: one row an entity, with its newest state and the hashes of that state.",
    "embedded": "The points that each physical collection holds of each entity, as Qdrant last confirmed them.",
    "inbox": "Messages that are accepted and not yet applied.",
    "intake_cursors": "How far each stream has been read.",
    "wanted_full_syncs": "Entity types that need a full sync, because events of them were lost.",
    "dead_letters": "Messages and entities that could not be processed, until they are replayed or purged.",
    "drains": "The last heartbeat of each drain, and of the sensor that starts full syncs.",
    "censuses": "The last census of each partition, and censuses that are under way.",
    "drift": "The drift that the last census of each partition found, less what was repaired since.",
    "full_syncs": "Full syncs that were asked for. Each is one backfill, which has the same id.",
    "full_sync_requests": "The messages that each full sync answers.",
    "full_sync_progress": "How far each partition of a full sync is.",
    "collection_changes": "The journal of a change of model: one row an alias. All rows are in the same state.",
    "provider_outages": "Models whose provider embeds nothing now. No run is asked for before the next try.",
    "unwritten_vectors": "Paid vectors that Qdrant could not take. They are used instead of embedding again.",
    "adopted_collections": "Collections of other programs that a person allowed to be replaced, and that still exist.",
    "warnings": "Oddities of messages that were accepted all the same: one row for each subject, kind and place.",
    "rechecks": "Entities whose event changed nothing, because their rows may not have been committed yet.",
    "sweeps": "How far the comparison of each source table with the ledger is.",
    "sweep_findings": "Source rows that the last pass over their slot found to differ from the ledger.",
    "store_marks": "The mark of each store, by which a stranger at its address is recognised.",
    "outbox": "Results, each written in the transaction of the work that it reports, until NATS has confirmed them.",
    "relate_requests": "Requests to link an entity again that are not answered yet.",
    "schema_version": "The revision of these tables. Alembic keeps it.",
}

_COLUMNS = {
    "entities": {
        "origin": "source: the state comes from a source row. event: it comes from events, because there is no row.",
        "title": "The title; NULL: there is none.",
        "content": "The text of the entity, without its title.",
        "metadata": "The metadata, a JSON object.",
        "source_hash": "md5 of the mapped columns of the source row, as SQL computes it; NULL: there is no row.",
        "prepared_by": "The version of mapping and text builder that made the hashes; empty: none that counts.",
        "text_hash": "A hash of the prepared text. It decides whether the entity is embedded.",
        "state_hash": "A hash of text, title and metadata. It decides whether payload and edges are updated.",
        "event_order": "The place of the newest event that was applied, in the order of all streams.",
        "deleted_at": "When the entity was deleted; NULL: it is living.",
        "dirty": "A collection that is written to does not hold this state yet.",
        "chunk_bound": "Qdrant holds no chunk of the entity numbered this or higher.",
        "changed_at": "When the state last changed.",
        "changes": "Changes by events that are newer than event_order, each with its own place in the order. Only an "
        "entity without a source row has any.",
    },
    "embedded": {
        "collection": "The physical collection.",
        "model": "The model that made the vectors.",
        "text_hash": "The text hash of the state that was written.",
        "state_hash": "The state hash of the state that was written.",
        "points": "The number of points: one for the entity, and one for each chunk.",
        "vector_checks": "The vector_check of each of these points, in the same order.",
        "embedded_at": "When the row was last written.",
    },
    "inbox": {
        "kind": "entity, relate, sync or validate: what has to be done about the message.",
        "entity_type": "The type of the entity that the message is about; NULL: it is a request about several.",
        "entity_id": "The id of the entity that the message is about; NULL: it is a request about several.",
        "verb": "look or delete: what the message says of its entity.",
        "payload": "The state that the message carries, or the request; NULL: it carries none.",
        "event_order": "The place of the message in the order of all streams, as text.",
        "received_at": "When the message came into the inbox.",
        "not_before": "When the message is due: later than received_at after an attempt that failed.",
        "attempts": "Attempts that failed.",
    },
    "intake_cursors": {
        "stream_created_at": "When the stream was made, by its server.",
        "last_seq": "The last sequence that was read.",
        "newest_stored_at": "The latest time at which a message of this epoch was stored. A later message takes no "
        "earlier place in the order of events.",
        "epoch": "The present epoch of the stream: its life between two rewinds or remakes.",
        "last_stored_at": "When JetStream stored the message last_seq; NULL: that message was not read.",
        "last_digest": "A digest of subject and bytes of the message last_seq; NULL: that message was not read.",
        "read_before": "A message stored at this time or earlier may have been read in an earlier epoch.",
    },
    "wanted_full_syncs": {
        "wanted_at": "When the last loss was noticed.",
        "reason": "How the events were lost.",
    },
    "dead_letters": {
        "id": "Letters are listed and replayed in this order.",
        "stage": "The step that failed: intake, request, apply, embed or upsert. The letter of the first two is a "
        "message, that of the others is an entity.",
        "subject": "The subject of the message; NULL: the entity failed without one.",
        "stream": "The stream of the message; NULL: the letter is an entity.",
        "epoch": "The epoch of the stream of the message; NULL: the letter is an entity.",
        "seq": "The sequence of the message; NULL: the letter is an entity.",
        "stored_at": "When JetStream stored the message: it decides its place when it is replayed.",
        "entity_type": "The type of the entity; NULL: the letter is a message.",
        "entity_id": "The id of the entity; NULL: the letter is a message.",
        "raw": "The bytes of the message; empty: there are none.",
        "error": "The reason, in a sentence.",
        "attempts": "Attempts that failed, the first one counted.",
        "first_at": "When the first attempt failed.",
        "last_at": "When the last attempt failed.",
        "replayed_at": "When the letter was replayed; it is in work since. NULL: it was not, or it failed again.",
        "announced": "How many of the attempts are published on NATS.",
    },
    "drains": {
        "entity_type": "The entity type that is drained; in parentheses: a kind of requests, or a sensor.",
        "run_id": "The run that drains.",
        "heartbeat_at": "When the drain last showed that it is alive.",
    },
    "censuses": {
        "id": "The number of the census. It also decides which part of a partition is sampled.",
        "entity_type": "The entity type of the partition.",
        "collection": "The physical collection that was compared.",
        "low": "The first slot of the partition.",
        "high": "The slot behind the last one of the partition.",
        "deep": "All texts and edges were compared, not a sample of them.",
        "checked": "Entities that are living in the source table or in the ledger.",
        "points": "Points of the partition in the collection.",
        "edges": "Rows of relationships whose source is in the partition.",
        "began_at": "When the census began.",
        "ended_at": "When the census ended. NULL: it is under way, or was killed, so that its drift does not count.",
    },
    "drift": {
        "id": "Drift is listed in this order.",
        "census": "The census that found it.",
        "kind": "The kind of drift.",
        "entity_type": "The type of the entity; NULL: the drift is about no entity.",
        "entity_id": "The id of the entity; NULL: the drift is about no entity.",
        "subject": "The point, or the row of relationships, that the drift is about; empty: neither.",
        "detail": "A sentence for the reader of a report.",
    },
    "full_syncs": {
        "id": "The id of the backfill, too.",
        "entity_types": "The types that it compares.",
        "force": "Every living entity is indexed and linked again, not only those that differ.",
        "requested_by": "The subject of the request, or the command that asked for it.",
        "requested_at": "When it was asked for.",
        "started_at": "When its backfill was made; NULL: not yet.",
        "comparing_at": "When the first of its runs began to compare. A request that comes later needs a full sync of "
        "its own, because this one may miss rows that were written before the request.",
        "finished_at": "When it ended; NULL: not yet.",
        "error": "Why it failed; NULL: it is complete, or has not ended.",
    },
    "full_sync_requests": {
        "full_sync_id": "The full sync that serves the request.",
        "entity_types": "The types that the request asks for, which its answer reports; NULL: all of the full sync.",
    },
    "full_sync_progress": {
        "full_sync_id": "The full sync.",
        "entity_type": "The entity type of the partition.",
        "shard": "The shard of the partition.",
        "differing": "Entities that were found to differ.",
        "done": "How many of these were processed.",
        "scanned": "Entities that were compared.",
        "embedded": "Entities that were embedded.",
        "updated": "Entities whose payload was replaced without embedding.",
        "deleted": "Entities that were deleted.",
        "failed": "Entities that became dead letters.",
        "indexed": "All entities of the partition that differed are indexed.",
        "linked": "All entities of the partition are linked.",
    },
    "collection_changes": {
        "alias": "The alias, which is the name of the collection in the settings.",
        "old_collection": "The physical collection that served when the change began; NULL: there was none. It is the "
        "alias itself if that was the plain name of a collection.",
        "new_collection": "The physical collection that is built for the new model.",
        "model": "The new model.",
        "dimension": "The dimension of its vectors.",
        "state": "building: both collections are written to. moving: the aliases are being moved, and a process that "
        "finds this state goes on with it. moved: the old collection is kept for a while.",
        "begun_at": "When the change began.",
        "moved_at": "When the aliases were moved; NULL: not yet.",
    },
    "provider_outages": {
        "model": "Name and dimension of the model.",
        "reason": "The error of the provider.",
        "since": "When the outage began.",
        "tries": "Runs that failed by it, the first one counted.",
        "next_try_at": "When the next run may try the model.",
    },
    "unwritten_vectors": {
        "model": "Name and dimension of the model.",
        "text_hash": "The hash of the text that was embedded.",
        "vectors": "float32, little-endian, each of length 1: first that of the text, then those of its chunks.",
        "kept_at": "When the vectors were kept.",
    },
    "adopted_collections": {
        "alias": "The name in the settings that the collection bears.",
        "backup": "The collection that holds its copy; NULL: the person wanted none.",
        "points": "The points that it held when it was adopted.",
        "adopted_at": "When it was adopted.",
    },
    "warnings": {
        "place": "The place in the message, as a JSON path.",
        "warning": "The oddity, in a sentence.",
        "entity_type": "The type of the entity that the newest message is about; NULL: it is about none.",
        "entity_id": "The id of the entity that the newest message is about; NULL: it is about none.",
        "stream": "The stream of the newest message.",
        "epoch": "The epoch of the stream of the newest message; NULL: it was kept before warnings had epochs.",
        "seq": "The sequence of the newest message.",
        "messages": "How many messages had the oddity.",
        "first_at": "When the first of them was taken in.",
        "last_at": "When the newest of them was taken in.",
    },
    "rechecks": {
        "noted_at": "When the event of the entity was applied.",
        "due_at": "When the entity is rechecked next.",
        "looks": "How many rechecks were made since it was noted.",
        "messages": "Kind, subject and message id of each message about an unknown entity, none of which is answered "
        "yet; empty: the entity is known.",
    },
    "sweeps": {
        "entity_type": "The entity type of the source table.",
        "next_slot": "The slot at which the pass under way goes on.",
        "pass": "The number of the pass under way.",
        "counts": "What the pass under way has compared, found and put into the inbox.",
        "pass_began_at": "When the pass under way began.",
        "last_counts": "The same counts of the last whole pass; NULL: there was none.",
        "last_seconds": "How many seconds that pass took, with its pauses.",
        "last_ended_at": "When that pass ended.",
    },
    "sweep_findings": {
        "source_hash": "The hash of the source row; NULL: the row is gone.",
        "first_pass": "The number of the first pass that found the row to differ in this way.",
        "seen_pass": "The number of the last pass that found it.",
        "look_at": "When a look at the entity was put into the inbox; NULL: not yet. A row gets one look.",
    },
    "store_marks": {
        "store": "postgres, nats, qdrant, or source with the address of a database; platform: the key that the "
        "collections of this platform bear.",
        "mark": "What the store says of itself, or what this platform wrote into it.",
        "recorded_at": "When the mark was recorded.",
    },
    "outbox": {
        "id": "Results are published in this order.",
        "subject": "The subject on which the result is published.",
        "envelope": "The message as JSON. It is shortened when it is published, if it is larger than the server takes.",
        "made_at": "When the result was written.",
    },
    "relate_requests": {
        "id": "Requests are answered in this order.",
        "message_id": "The id that the publisher gave to the message; NULL: it gave none, or no message asked.",
        "newest_mark": "The newest mark when the request was applied. The answer is due once the entity has no mark "
        "left that is as old as this one.",
        "edges_before": "How many edges of each type the entity was the source of.",
        "asked_at": "When the request was applied.",
    },
    "schema_version": {"version_num": "The newest migration that was applied."},
    # The tables of links: columns that the revision before left without a comment.
    "relink_marks": {"marked_at": "When the mark was written."},
    "linked": {"linked_at": "When the entity was last linked."},
    "reserves": {},
    "reference_uses": {
        "source_type": "The type of the entity that makes the reference.",
        "source_id": "The id of the entity that makes the reference.",
        "strength": "The strength of the edge that it makes.",
    },
    "tag_weights": {"tag": "The tag, normalised."},
}


def upgrade() -> None:
    _enter_schema()
    for table, before, now in _RENAMED:
        _rename(table, before, now)
    for table, comment in _TABLES.items():
        op.execute(f"COMMENT ON TABLE {table} IS {_quoted(comment)}")
    columns = op.get_bind().exec_driver_sql(
        "SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
        " ORDER BY relname, attnum"
    )
    for table, column in columns.all():
        described = _COLUMNS.get(table, {}).get(column) or _SHARED.get(column)
        if described is not None and table in _COLUMNS:
            op.execute(f'COMMENT ON COLUMN {table}."{column}" IS {_quoted(described)}')


def downgrade() -> None:
    # Comments stay as they are, because no version reads them.
    _enter_schema()
    for table, before, now in _RENAMED:
        _rename(table, now, before)


def _enter_schema() -> None:
    op.execute(f'SET LOCAL search_path TO "{context.config.attributes["schema"]}"')


def _rename(table: str, column: str, to: str) -> None:
    op.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO {to}")
    op.execute(
        f"""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_constraint
                       WHERE conrelid = '{table}'::regclass AND conname = '{table}_{column}_not_null') THEN
                ALTER TABLE {table} RENAME CONSTRAINT {table}_{column}_not_null TO {table}_{to}_not_null;
            END IF;
        END $$
        """
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
