"""Store marks: by what each store is known again, so that another program on its address is noticed."""

from alembic import context, op

revision = "0017"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE store_marks (
            store       text PRIMARY KEY,
            mark        text NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON COLUMN store_marks.store IS
            'platform: the key that our collections bear; else a store, with that by which it is known.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'DROP TABLE "{schema}".store_marks')
