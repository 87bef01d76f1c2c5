"""Adopted collections: those of another program that a person allowed to be replaced by an alias of this platform."""

from alembic import context, op

revision = "0011"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE adopted_collections (
            alias      text COLLATE "C" PRIMARY KEY,
            backup     text COLLATE "C",
            points     bigint NOT NULL,
            adopted_at timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE adopted_collections IS
            'Collections of another program that a person allowed to be replaced. A row goes when that is done.';
        COMMENT ON COLUMN adopted_collections.alias IS 'The name of ours that the collection bears.';
        COMMENT ON COLUMN adopted_collections.backup IS 'The copy of it that is kept; NULL: none was wanted.';
        COMMENT ON COLUMN adopted_collections.points IS 'Points that it held when it was adopted.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'DROP TABLE "{schema}".adopted_collections')
