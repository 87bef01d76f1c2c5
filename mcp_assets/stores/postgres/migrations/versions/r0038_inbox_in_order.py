"""Indexes by which a batch of the inbox is read in order, and not all that waits."""

from alembic import context, op

revision = "0038"
down_revision = "0036"
branch_labels = None
depends_on = None

_INDEXES = """
DROP INDEX inbox_pending;
CREATE INDEX inbox_pending ON inbox (entity_type, event_order);
CREATE INDEX inbox_requests ON inbox (kind, event_order) WHERE kind IN ('sync', 'validate');
"""

_INDEXES_BEFORE = """
DROP INDEX inbox_requests;
DROP INDEX inbox_pending;
CREATE INDEX inbox_pending ON inbox (kind, entity_type, event_order);
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_INDEXES)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_INDEXES_BEFORE)
