"""The schema says which older version may work with its tables, so that a rolling restart needs no stop."""

from alembic import context, op

revision = "0028"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        ALTER TABLE schema_version ADD COLUMN works_with text;
        COMMENT ON COLUMN schema_version.works_with IS
            'The oldest revision whose code works with these tables. A version that does not know version_num, but '
            'knows this one, goes on; another one refuses to work.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("ALTER TABLE schema_version DROP COLUMN works_with")
