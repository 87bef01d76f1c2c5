"""Link tables and columns get the words of the code: reserves, cut-offs, move numbers, rebuild. Only names change.

While processes of two versions run, those of the version before cannot link and cannot take a census of edges: their
queries name tables or columns that are gone, so that these runs fail, and nothing is written. They mark entities and
index them as before, because the columns that this writes keep their names. Their marks stay, and the first process of
the new version links them. Each table is locked for the time of a rename, once the linker's open transaction has ended.
"""

from alembic import context, op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Table, and a name in those of its constraints: before, now.
_IN_CONSTRAINTS = (
    ("reserves", "spares", "reserves"),
    ("reserves", "listed", "written_after_move"),
    ("linked", "moved", "last_move"),
    ("relink_marks", "swept", "in_rebuild"),
)


def upgrade() -> None:
    _enter_schema()
    op.execute(
        """
        ALTER TABLE spares RENAME TO reserves;
        ALTER TABLE reserves RENAME COLUMN listed TO written_after_move;
        ALTER TABLE linked RENAME COLUMN semantic_floor TO semantic_cut_off;
        ALTER TABLE linked RENAME COLUMN topical_floor TO topical_cut_off;
        ALTER TABLE linked RENAME COLUMN moved TO last_move;
        ALTER TABLE relink_marks RENAME COLUMN swept TO in_rebuild;
        ALTER INDEX relink_marks_unswept RENAME TO relink_marks_outside_rebuild;
        ALTER SEQUENCE link_epoch RENAME TO move_numbers;
        """
    )
    for table, before, now in _IN_CONSTRAINTS:
        _rename_constraints(table, before, now)
    op.execute(
        """
        COMMENT ON TABLE relink_marks IS
            'Entities that have to be linked again, and why. A change writes a mark in its own transaction. The linker '
            'deletes the mark in the transaction that writes the edges. Marks are not updated, except that a rebuild '
            'sets in_rebuild, so that no change waits for another.';
        COMMENT ON COLUMN relink_marks.seq IS 'The order in which marks are linked.';
        COMMENT ON COLUMN relink_marks.reason IS
            'changed: the ledger row is compared with the row in linked. vector: the point was written or removed. '
            'tags: a tag of the entity has another weight. references: its reference edges are resolved again. '
            'lists: its own neighbours are asked for.';
        COMMENT ON COLUMN relink_marks.in_rebuild IS
            'A rebuild covers the change: all living entities were marked for lists after it, so that the change is '
            'not compared with the lists of others.';

        COMMENT ON TABLE linked IS
            'Each living entity as it was when it was last linked. Only the linker writes this table. Its difference '
            'from the ledger is what has to be linked.';
        COMMENT ON COLUMN linked.point IS 'The entity''s own point in Qdrant; NULL: it has none.';
        COMMENT ON COLUMN linked.title_key IS 'The key under which references by title find the entity; NULL: none.';
        COMMENT ON COLUMN linked.slug_key IS 'The key under which references by slug find the entity; NULL: none.';
        COMMENT ON COLUMN linked.tags IS 'Its tags, concepts and category, normalised.';
        COMMENT ON COLUMN linked.semantic_cut_off IS
            'Upper bound of the score of any entity outside the semantic list and its reserves; NULL: there is no '
            'such entity at or above the threshold. An entity that scores lower cannot enter the list.';
        COMMENT ON COLUMN linked.topical_cut_off IS
            'Upper bound of the score of any entity outside the topical list; NULL: there is no such entity at or '
            'above the threshold.';
        COMMENT ON COLUMN linked.linked_by IS
            'A hash of the rules and settings by which it was linked; other rules make it be linked again.';
        COMMENT ON COLUMN linked.last_move IS
            'Move number of the last batch in which its vector changed; 0: it was only linked by a rebuild.';

        COMMENT ON TABLE reserves IS
            'The neighbours that come directly after the semantic list of an entity. The first one takes the last '
            'place when the list loses a member, so that Qdrant is not asked.';
        COMMENT ON COLUMN reserves.neighbours IS '[[type, id], score] of each, best first.';
        COMMENT ON COLUMN reserves.written_after_move IS
            'The highest move number when the row was written. A reserve whose linked.last_move is higher has another '
            'vector now, and is dropped when the row is read.';

        COMMENT ON SEQUENCE move_numbers IS
            'Move numbers: each batch of entities whose vectors changed, and whose neighbours'' lists are updated in '
            'one transaction, gets the next one.';

        COMMENT ON TABLE reference_uses IS
            'References that texts and metadata make, resolved or not. A reference has a row for each of its '
            'alternative names.';
        COMMENT ON COLUMN reference_uses.kind IS 'What key is: the id, the title or the slug of an entity.';
        COMMENT ON COLUMN reference_uses.key IS 'The name by which an entity is looked up; of an id, <type>:<id>.';
        COMMENT ON COLUMN reference_uses.within IS 'The only entity type that it can mean; NULL: any type, or an id.';
        COMMENT ON COLUMN reference_uses.relation IS 'The type of the edge that it makes.';
        COMMENT ON COLUMN reference_uses.rule IS 'metadata:<key>, text:<phrase>, text or slug: part of the evidence.';
        COMMENT ON COLUMN reference_uses.reverse IS
            'The entity that makes the reference is the target of the edge. Only references by id are ever reverse.';
        COMMENT ON COLUMN reference_uses.written IS
            'Identifies the reference among those of its source. Rows with the same value are alternative names.';
        COMMENT ON COLUMN reference_uses.place IS
            'The place of this name among the alternative names, from 0. The first name that finds an entity counts.';
        COMMENT ON COLUMN reference_uses.places IS 'How many alternative names there are.';
        COMMENT ON COLUMN reference_uses.form IS 'How it is written, for example as a wiki link or an address.';
        COMMENT ON COLUMN reference_uses.context IS 'The words that made it, on one line.';

        COMMENT ON TABLE tag_weights IS
            'The weight of each tag: an input of the topical rule. Only the refresh of tag weights changes it, so that '
            'one new entity does not change the edges of all other holders.';
        COMMENT ON COLUMN tag_weights.holders IS 'How many entities had the tag at the last refresh.';
        COMMENT ON COLUMN tag_weights.weight IS '1 / (1 + floor(log2 holders)).';
        COMMENT ON COLUMN tag_weights.makes_candidates IS
            'The tag has few enough holders, so that its holders are candidates for one another''s lists.';
        """
    )


def downgrade() -> None:
    # Comments stay as they are, because no version reads them.
    _enter_schema()
    for table, before, now in reversed(_IN_CONSTRAINTS):
        _rename_constraints(table, now, before)
    op.execute(
        """
        ALTER SEQUENCE move_numbers RENAME TO link_epoch;
        ALTER INDEX relink_marks_outside_rebuild RENAME TO relink_marks_unswept;
        ALTER TABLE relink_marks RENAME COLUMN in_rebuild TO swept;
        ALTER TABLE linked RENAME COLUMN last_move TO moved;
        ALTER TABLE linked RENAME COLUMN topical_cut_off TO topical_floor;
        ALTER TABLE linked RENAME COLUMN semantic_cut_off TO semantic_floor;
        ALTER TABLE reserves RENAME COLUMN written_after_move TO listed;
        ALTER TABLE reserves RENAME TO spares;
        """
    )


def _enter_schema() -> None:
    op.execute(f'SET LOCAL search_path TO "{context.config.attributes["schema"]}"')


def _rename_constraints(table: str, name: str, to: str) -> None:
    """Put `to` in the place of `name`. From PostgreSQL 18 on, NOT NULL is a constraint with a name, too."""
    op.execute(
        f"""
        DO $$ DECLARE found record; BEGIN
            FOR found IN
                SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND conname ~ '(^|_){name}_'
            LOOP
                EXECUTE format('ALTER TABLE {table} RENAME CONSTRAINT %I TO %I', found.conname,
                               regexp_replace(found.conname, '(^|_){name}_', '\\1{to}_'));
            END LOOP;
        END $$
        """  # noqa: S608  (names of this module)
    )
