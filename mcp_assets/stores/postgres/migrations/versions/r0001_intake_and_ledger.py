"""Intake and ledger: the inbox, its cursors, dead letters, the entities and what Qdrant holds of them."""

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE entities (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            slot          integer NOT NULL CHECK (slot BETWEEN 0 AND 65535),
            origin        text NOT NULL CHECK (origin IN ('source', 'event')),
            title         text,
            content       text NOT NULL DEFAULT '',
            metadata      jsonb NOT NULL DEFAULT '{}',
            source_hash   text,
            prepared_by   text NOT NULL,
            text_hash     text NOT NULL,
            state_hash    text NOT NULL,
            event_order   text COLLATE "C",
            deleted_at    timestamptz,
            dirty         boolean NOT NULL DEFAULT true,
            chunk_bound   integer NOT NULL DEFAULT 0,
            changed_at    timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (entity_type, entity_id)
        );
        COMMENT ON TABLE entities IS 'The ledger: one row an entity, its newest state and its hashes.';
        COMMENT ON COLUMN entities.event_order IS 'Place of the newest event applied: time stored, stream, sequence.';
        COMMENT ON COLUMN entities.dirty IS 'Qdrant does not hold this state yet.';
        COMMENT ON COLUMN entities.chunk_bound IS 'Qdrant holds no chunk point numbered this or higher.';
        CREATE INDEX entities_by_slot ON entities (entity_type, slot);
        CREATE INDEX entities_dirty ON entities (entity_type, slot) WHERE dirty;

        CREATE TABLE embedded (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            collection    text COLLATE "C" NOT NULL,
            model         text NOT NULL,
            text_hash     text NOT NULL,
            state_hash    text NOT NULL,
            points        integer NOT NULL,
            vector_checks double precision[] NOT NULL,
            embedded_at   timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (entity_type, entity_id, collection)
        );
        COMMENT ON TABLE embedded IS 'What each physical collection holds of each entity, as last written.';

        CREATE TABLE inbox (
            stream        text COLLATE "C" NOT NULL,
            stream_created_at timestamptz NOT NULL,
            seq           bigint NOT NULL,
            kind          text NOT NULL CHECK (kind IN ('entity', 'relate', 'sync', 'validate')),
            subject       text NOT NULL,
            entity_type   text COLLATE "C",
            entity_id     text COLLATE "C",
            verb          text NOT NULL,
            payload       jsonb,
            event_order   text COLLATE "C" NOT NULL,
            stored_at     timestamptz NOT NULL,
            received_at   timestamptz NOT NULL DEFAULT now(),
            not_before    timestamptz NOT NULL DEFAULT now(),
            attempts      integer NOT NULL DEFAULT 0,
            PRIMARY KEY (stream, stream_created_at, seq)
        );
        COMMENT ON TABLE inbox IS 'Events accepted and not yet applied.';
        CREATE INDEX inbox_pending ON inbox (kind, entity_type, event_order);

        CREATE TABLE intake_cursors (
            stream            text COLLATE "C" PRIMARY KEY,
            stream_created_at timestamptz NOT NULL,
            last_seq          bigint NOT NULL,
            last_stored_at    timestamptz NOT NULL DEFAULT 'epoch'
        );

        CREATE TABLE wanted_full_syncs (
            entity_type   text COLLATE "C" PRIMARY KEY,
            wanted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            reason        text NOT NULL
        );
        COMMENT ON TABLE wanted_full_syncs IS 'Entity types of which events were lost, until a full sync is through.';

        CREATE TABLE dead_letters (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            stage         text NOT NULL CHECK (stage IN ('intake', 'apply', 'embed', 'upsert')),
            subject       text,
            stream        text COLLATE "C",
            stream_created_at timestamptz,
            seq           bigint,
            entity_type   text COLLATE "C",
            entity_id     text COLLATE "C",
            raw           bytea NOT NULL DEFAULT '',
            error_kind    text NOT NULL,
            error         text NOT NULL,
            attempts      integer NOT NULL DEFAULT 1,
            first_at      timestamptz NOT NULL DEFAULT now(),
            last_at       timestamptz NOT NULL DEFAULT now(),
            replayed_at   timestamptz
        );
        CREATE UNIQUE INDEX dead_letters_by_message ON dead_letters (stream, stream_created_at, seq)
            WHERE stage = 'intake';
        CREATE UNIQUE INDEX dead_letters_by_entity ON dead_letters (entity_type, entity_id) WHERE stage <> 'intake';

        CREATE TABLE drains (
            entity_type   text COLLATE "C" NOT NULL,
            run_id        text NOT NULL,
            beat_at       timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (entity_type, run_id)
        );
        COMMENT ON TABLE drains IS 'Drains that live, by their last heartbeat.';
        """
    )


def downgrade() -> None:
    raise RuntimeError("the first revision has nothing before it: drop the schema to remove the platform's tables")
