"""Warnings of odd messages, and the changes that events state of entities without a source row."""

from alembic import context, op

revision = "0014"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE entities ADD COLUMN changes jsonb;
        COMMENT ON COLUMN entities.changes IS
            'Of an entity without a source row: what events beyond event_order change of it, each with its own order.';

        CREATE TABLE warnings (
            subject       text COLLATE "C" NOT NULL,
            error_kind    text COLLATE "C" NOT NULL,
            place         text COLLATE "C" NOT NULL,
            warning       text NOT NULL,
            entity_type   text COLLATE "C",
            entity_id     text COLLATE "C",
            stream        text COLLATE "C",
            seq           bigint,
            messages      bigint NOT NULL,
            first_at      timestamptz NOT NULL DEFAULT now(),
            last_at       timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (subject, error_kind, place)
        );
        COMMENT ON TABLE warnings IS
            'What is odd in messages that were taken in: a row for each subject, kind and place.';
        CREATE INDEX warnings_by_age ON warnings (last_at);
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("DROP TABLE warnings; ALTER TABLE entities DROP COLUMN changes")
