"""The upgrade that renames link tables and columns: what they hold stays, and no old name is left."""

from mcp_assets.settings import Settings
from mcp_assets_tests.migrating import downgrade, execute, upgrade

BEFORE = """
INSERT INTO mcp_assets.relink_marks (entity_type, entity_id, reason, swept)
VALUES ('task', 'a', 'changed', true), ('task', 'b', 'lists', false);
INSERT INTO mcp_assets.linked (entity_type, entity_id, tags, semantic_floor, topical_floor, linked_by, moved)
VALUES ('task', 'a', '{t}', 0.5, 0.25, 'rules', 7);
INSERT INTO mcp_assets.spares (entity_type, entity_id, neighbours, listed)
VALUES ('task', 'a', '[[["task", "b"], 0.6]]', 8);
SELECT setval('mcp_assets.link_epoch', 9);
"""

AFTER = {
    "SELECT entity_id, reason, in_rebuild FROM mcp_assets.relink_marks ORDER BY seq": [
        ("a", "changed", True),
        ("b", "lists", False),
    ],
    "SELECT entity_id, semantic_cut_off, topical_cut_off, last_move FROM mcp_assets.linked": [("a", 0.5, 0.25, 7)],
    "SELECT entity_id, neighbours, written_after_move FROM mcp_assets.reserves": [("a", [[["task", "b"], 0.6]], 8)],
    "SELECT nextval('mcp_assets.move_numbers')": [(10,)],
}

NAMES = """
SELECT relname FROM pg_class WHERE relnamespace = 'mcp_assets'::regnamespace
UNION ALL SELECT conname FROM pg_constraint WHERE connamespace = 'mcp_assets'::regnamespace
UNION ALL SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'mcp_assets'::regnamespace AND relkind = 'r'
      AND relname IN ('linked', 'spares', 'reserves', 'relink_marks')
"""
OLD_WORDS = ("spare", "floor", "swept", "link_epoch", "linked_moved", "listed")


def names(settings: Settings) -> list[str]:
    return sorted(str(name) for (name,) in execute(settings, NAMES))


def test_rows_marks_and_the_sequence_keep_their_values_under_the_new_names(settings: Settings) -> None:
    upgrade(settings, "0021")
    execute(settings, BEFORE)
    upgrade(settings, "0022")
    assert {query: execute(settings, query) for query in AFTER} == AFTER


def test_no_object_keeps_a_part_of_an_old_name_and_a_downgrade_gives_all_old_names_back(settings: Settings) -> None:
    upgrade(settings, "0021")
    before = names(settings)
    assert [name for name in before if any(word in name for word in OLD_WORDS)]
    upgrade(settings, "0022")
    assert not [name for name in names(settings) if any(word in name for word in OLD_WORDS)]
    downgrade(settings, "0021")
    assert names(settings) == before
