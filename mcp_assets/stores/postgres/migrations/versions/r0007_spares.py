"""Spares: the neighbours behind an entity's list, so that a list which loses a member need not be asked for again."""

from alembic import context, op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE SEQUENCE link_epoch;
        COMMENT ON SEQUENCE link_epoch IS 'Rises with each batch of vectors that is worked into the lists of others.';
        -- What is listed before the first batch has the first number.
        SELECT nextval('link_epoch');

        ALTER TABLE linked ADD COLUMN moved bigint NOT NULL DEFAULT 0;
        COMMENT ON COLUMN linked.moved IS 'The epoch in which its vector was last worked into the lists of others.';
        COMMENT ON COLUMN linked.semantic_floor IS
            'Nobody scores higher who is in neither list nor spares; NULL if that is nobody.';
        COMMENT ON COLUMN linked.topical_floor IS
            'Nobody scores higher who is not in the list; NULL if that is nobody.';

        -- Beside `linked`, whose rows are read by the thousand for their floors.
        CREATE TABLE spares (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            neighbours    jsonb NOT NULL,
            listed        bigint NOT NULL,
            PRIMARY KEY (entity_type, entity_id)
        ) WITH (fillfactor = 70);
        COMMENT ON TABLE spares IS 'The neighbours that come next when the semantic list of an entity loses a member.';
        COMMENT ON COLUMN spares.neighbours IS '[[type, id], score], best first.';
        COMMENT ON COLUMN spares.listed IS 'The epoch in which they were right: whoever moved later is none any more.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # Floors of the time before are those of the lists alone: everybody is asked anew.
    op.execute(
        """
        DROP TABLE spares;
        ALTER TABLE linked DROP COLUMN moved;
        DROP SEQUENCE link_epoch;
        INSERT INTO relink_marks (entity_type, entity_id, reason)
        SELECT entity_type, entity_id, 'lists' FROM linked ON CONFLICT DO NOTHING;
        """
    )
