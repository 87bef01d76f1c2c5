"""Collections: the journal of a change of model, from the building of new collections to the move of the aliases."""

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE collection_changes (
            alias          text COLLATE "C" PRIMARY KEY,
            old_collection text COLLATE "C",
            new_collection text COLLATE "C" NOT NULL,
            model          text NOT NULL,
            dimension      integer NOT NULL,
            state          text NOT NULL CHECK (state IN ('building', 'moving', 'moved')),
            begun_at       timestamptz NOT NULL DEFAULT now(),
            moved_at       timestamptz
        );
        COMMENT ON TABLE collection_changes IS 'The journal of a change of model; all its aliases are in one state.';
        COMMENT ON COLUMN collection_changes.old_collection IS
            'Serves until the aliases are moved, and is kept for a while; NULL if there was none. It is the alias '
            'itself where the collection bore the plain name.';
        COMMENT ON COLUMN collection_changes.state IS
            'building: both collections are written; moving: the aliases are being moved, whoever finds this goes on '
            'with it; moved: the old collection is kept for a while.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'DROP TABLE "{schema}".collection_changes')
