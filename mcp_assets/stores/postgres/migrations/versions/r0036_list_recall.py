"""The recall of similarity edges, which a census measures where searches are approximate; comments on two tables."""

from alembic import context, op

revision = "0036"
down_revision = "0034"
branch_labels = None
depends_on = None

_COLUMNS = """
ALTER TABLE censuses
    ADD COLUMN lists_compared integer, ADD COLUMN exact_neighbours integer, ADD COLUMN neighbours_found integer;
COMMENT ON COLUMN censuses.lists_compared IS
    'Similarity lists of a sample that were compared with exact ones; NULL: all searches are exact, so that none were.';
COMMENT ON COLUMN censuses.exact_neighbours IS 'Neighbours in the exact lists of the sample.';
COMMENT ON COLUMN censuses.neighbours_found IS
    'Those of them that have a similarity edge; divided by exact_neighbours it is the recall.';
COMMENT ON COLUMN relink_marks.in_rebuild IS
    'The change is not compared with the lists of others: a rebuild covers it, because all living entities were marked '
    'for lists after it, or only references are resolved again.';
COMMENT ON TABLE tag_weights IS
    'The weight of each tag: an input of the topical rule. Only the refresh of tag weights changes it, so that one new '
    'entity does not change the edges of all other holders; but a tag that comes to too many holders between two '
    'refreshes makes no candidates from then on.';
"""

_COMMENTS_BEFORE = """
COMMENT ON TABLE tag_weights IS
    'The weight of each tag: an input of the topical rule. Only the refresh of tag weights changes it, so that '
    'one new entity does not change the edges of all other holders.';
COMMENT ON COLUMN relink_marks.in_rebuild IS
    'A rebuild covers the change: all living entities were marked for lists after it, so that the change is '
    'not compared with the lists of others.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_COLUMNS)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        "ALTER TABLE censuses DROP COLUMN lists_compared, DROP COLUMN exact_neighbours, DROP COLUMN neighbours_found"
    )
    op.execute(_COMMENTS_BEFORE)
