"""Possible duplicates: the text by which an entity was last linked; everything is linked again by the new rule."""

from alembic import context, op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE linked ADD COLUMN words_hash text;
        COMMENT ON COLUMN linked.words_hash IS
            'The hash of the text by which its words were last compared with those of its neighbours; NULL: by an '
            'older version, which did not compare words.';

        -- The rules make edges of one type more.
        INSERT INTO relink_marks (entity_type, entity_id, reason)
        SELECT entity_type, entity_id, reason FROM entities, unnest(ARRAY['changed', 'lists']) AS reason
        WHERE deleted_at IS NULL
        ON CONFLICT DO NOTHING;
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("ALTER TABLE linked DROP COLUMN words_hash")
