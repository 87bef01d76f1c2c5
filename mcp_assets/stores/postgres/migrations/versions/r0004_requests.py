"""Requests: full syncs that were asked for and how far they are; message ids; dead letters of requests."""

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE inbox ADD COLUMN message_id text;

        ALTER TABLE dead_letters
            ADD COLUMN stored_at timestamptz,
            ADD COLUMN announced integer NOT NULL DEFAULT 0,
            DROP CONSTRAINT dead_letters_stage_check,
            ADD CONSTRAINT dead_letters_stage_check
                CHECK (stage IN ('intake', 'request', 'apply', 'embed', 'upsert'));
        UPDATE dead_letters SET announced = attempts;
        COMMENT ON COLUMN dead_letters.stored_at IS 'When the stream took the message: its place when it is replayed.';
        COMMENT ON COLUMN dead_letters.announced IS 'The number of attempts that was last told on NATS.';
        COMMENT ON COLUMN dead_letters.replayed_at IS 'Replayed at this time, and not done yet.';
        DROP INDEX dead_letters_by_message;
        CREATE UNIQUE INDEX dead_letters_by_message ON dead_letters (stream, stream_created_at, seq)
            WHERE stage IN ('intake', 'request');
        DROP INDEX dead_letters_by_entity;
        CREATE UNIQUE INDEX dead_letters_by_entity ON dead_letters (entity_type, entity_id)
            WHERE stage NOT IN ('intake', 'request');
        CREATE INDEX dead_letters_unannounced ON dead_letters (id) WHERE announced < attempts;

        CREATE TABLE full_syncs (
            id            text COLLATE "C" PRIMARY KEY,
            entity_types  text[] COLLATE "C" NOT NULL,
            force         boolean NOT NULL,
            requested_by  text NOT NULL,
            requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            started_at    timestamptz,
            finished_at   timestamptz,
            error         text
        );
        COMMENT ON TABLE full_syncs IS 'Full syncs asked for; each is one backfill, which bears the same id.';
        COMMENT ON COLUMN full_syncs.error IS 'Why it failed; NULL if it is complete.';
        CREATE INDEX full_syncs_unfinished ON full_syncs (requested_at) WHERE finished_at IS NULL;

        CREATE TABLE full_sync_requests (
            stream        text COLLATE "C" NOT NULL,
            stream_created_at timestamptz NOT NULL,
            seq           bigint NOT NULL,
            subject       text NOT NULL,
            message_id    text COLLATE "C",
            full_sync_id  text COLLATE "C" NOT NULL REFERENCES full_syncs ON DELETE CASCADE,
            PRIMARY KEY (stream, stream_created_at, seq)
        );
        COMMENT ON TABLE full_sync_requests IS 'The messages that each full sync answers.';
        CREATE INDEX full_sync_requests_by_sync ON full_sync_requests (full_sync_id);
        CREATE INDEX full_sync_requests_by_message_id ON full_sync_requests (message_id) WHERE message_id IS NOT NULL;

        CREATE TABLE full_sync_progress (
            full_sync_id  text COLLATE "C" NOT NULL REFERENCES full_syncs ON DELETE CASCADE,
            entity_type   text COLLATE "C" NOT NULL,
            shard         integer NOT NULL,
            differing     bigint NOT NULL DEFAULT 0,
            done          bigint NOT NULL DEFAULT 0,
            scanned       bigint NOT NULL DEFAULT 0,
            embedded      bigint NOT NULL DEFAULT 0,
            updated       bigint NOT NULL DEFAULT 0,
            deleted       bigint NOT NULL DEFAULT 0,
            failed        bigint NOT NULL DEFAULT 0,
            indexed       boolean NOT NULL DEFAULT false,
            linked        boolean NOT NULL DEFAULT false,
            PRIMARY KEY (full_sync_id, entity_type, shard)
        );
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # A request is a dead letter of intake again. A full sync that is not finished is wanted, and answers nothing.
    op.execute(
        """
        INSERT INTO wanted_full_syncs (entity_type, reason)
        SELECT DISTINCT entity_type, 'a full sync was under way when an upgrade was undone'
        FROM full_syncs, unnest(entity_types) AS entity_type WHERE finished_at IS NULL
        ON CONFLICT DO NOTHING;
        DROP TABLE full_sync_progress, full_sync_requests, full_syncs;

        DROP INDEX dead_letters_unannounced, dead_letters_by_entity, dead_letters_by_message;
        UPDATE dead_letters SET stage = 'intake' WHERE stage = 'request';
        ALTER TABLE dead_letters
            DROP COLUMN stored_at,
            DROP COLUMN announced,
            DROP CONSTRAINT dead_letters_stage_check,
            ADD CONSTRAINT dead_letters_stage_check CHECK (stage IN ('intake', 'apply', 'embed', 'upsert'));
        CREATE UNIQUE INDEX dead_letters_by_message ON dead_letters (stream, stream_created_at, seq)
            WHERE stage = 'intake';
        CREATE UNIQUE INDEX dead_letters_by_entity ON dead_letters (entity_type, entity_id) WHERE stage <> 'intake';
        ALTER TABLE inbox DROP COLUMN message_id;
        """
    )
