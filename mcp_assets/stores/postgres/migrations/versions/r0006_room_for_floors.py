"""Room for floors: the floors of a row of `linked` are written after it, mostly in the page where it is."""

from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No index holds a floor: in a page that has room, no index has to be told of the new version of the row.
    _alter("SET (fillfactor = 70)")


def downgrade() -> None:
    _alter("RESET (fillfactor)")


def _alter(what: str) -> None:
    op.execute(f'ALTER TABLE "{context.config.attributes["schema"]}".linked {what}')
