"""Outbox: results that NATS has not confirmed; requests to re-link that are not answered; what a full sync answers."""

from alembic import context, op

revision = "0020"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE outbox (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            subject       text NOT NULL,
            envelope      bytea NOT NULL,
            made_at       timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON TABLE outbox IS
            'Results, each written in the transaction of what it tells, until NATS has confirmed that it has them.';
        COMMENT ON COLUMN outbox.envelope IS 'The message as JSON. It may be larger than the server takes.';

        CREATE TABLE relate_requests (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            message_id    text COLLATE "C",
            newest_mark   bigint NOT NULL,
            edges_before  jsonb NOT NULL,
            asked_at      timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON TABLE relate_requests IS 'Requests to re-link that are not answered yet.';
        COMMENT ON COLUMN relate_requests.newest_mark IS
            'Its answer is due once no mark of the entity is left that was made no later than this one.';
        COMMENT ON COLUMN relate_requests.edges_before IS 'How many edges the entity was the source of, by edge type.';

        ALTER TABLE full_syncs ADD COLUMN comparing_at timestamptz;
        UPDATE full_syncs SET comparing_at = started_at;
        COMMENT ON COLUMN full_syncs.comparing_at IS
            'When the first of its runs began to compare: a request that comes later needs a full sync of its own.';
        ALTER TABLE full_sync_requests ADD COLUMN entity_types text[] COLLATE "C";
        COMMENT ON COLUMN full_sync_requests.entity_types IS
            'The types that the message asked for, of which its answer tells; NULL: all of the full sync.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        DROP TABLE outbox, relate_requests;
        ALTER TABLE full_syncs DROP COLUMN comparing_at;
        ALTER TABLE full_sync_requests DROP COLUMN entity_types;
        """
    )
