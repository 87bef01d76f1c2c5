"""Entities whose search words are still to be cut: those of large batches are cut by the linker."""

from alembic import context, op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_COLUMN = """
ALTER TABLE entities ADD COLUMN words_pending boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN entities.words_pending IS
    'The search words are missing, or of an older text: the linker, for which the entity is marked, writes them.';
COMMENT ON TABLE search_words IS
    'The search words of each living entity, written while its ledger row is locked: of few texts in the transaction '
    'that writes the row, of many by the linker.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_COLUMN)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # So a full sync makes the words.
    op.execute("UPDATE entities SET prepared_by = '' WHERE words_pending")
    op.execute("ALTER TABLE entities DROP COLUMN words_pending")
    op.execute(
        "COMMENT ON TABLE search_words IS"
        " 'The search words of each living entity, written in the transaction that writes its ledger row.'"
    )
