"""References have several names and keep the words that made them; everything is linked again by the new rules."""

from alembic import context, op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE reference_uses
            ADD COLUMN written text COLLATE "C" NOT NULL DEFAULT '',
            ADD COLUMN place   smallint NOT NULL DEFAULT 0,
            ADD COLUMN places  smallint NOT NULL DEFAULT 1,
            ADD COLUMN form    text COLLATE "C" NOT NULL DEFAULT '',
            ADD COLUMN context text NOT NULL DEFAULT '';
        COMMENT ON COLUMN reference_uses.written IS
            'Names of one reference have it in common; of them the first, by place, that finds an entity counts.';
        COMMENT ON COLUMN reference_uses.context IS 'The words that made it.';

        -- Other forms are references now, code is none, and edges say more: the linker looks at every entity again.
        INSERT INTO relink_marks (entity_type, entity_id, reason)
        SELECT entity_type, entity_id, reason
        FROM entities, unnest(ARRAY['changed', 'references', 'lists']) AS reason
        WHERE deleted_at IS NULL
        ON CONFLICT DO NOTHING;
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        DELETE FROM reference_uses WHERE place > 0;
        ALTER TABLE reference_uses
            DROP COLUMN written, DROP COLUMN place, DROP COLUMN places, DROP COLUMN form, DROP COLUMN context;
        """
    )
