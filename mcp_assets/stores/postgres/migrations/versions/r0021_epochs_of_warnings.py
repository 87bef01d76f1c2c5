"""Warnings name their newest message with the epoch of its stream."""

from alembic import context, op

revision = "0021"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE warnings ADD COLUMN epoch integer;
        COMMENT ON COLUMN warnings.epoch IS
            'Of the stream, with seq: the newest such message. NULL: it was kept before warnings had epochs.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("ALTER TABLE warnings DROP COLUMN epoch")
