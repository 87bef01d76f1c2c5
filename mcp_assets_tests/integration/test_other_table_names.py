"""The upgrade that renames columns of heartbeats, rechecks and sweeps, and the comments on all tables and columns."""

from mcp_assets.settings import Settings
from mcp_assets_tests.migrating import downgrade, execute, upgrade

BEFORE = """
INSERT INTO mcp_assets.drains (entity_type, run_id, beat_at) VALUES ('task', 'r', '2026-01-02 03:04:05+00');
INSERT INTO mcp_assets.rechecks (entity_type, entity_id, noted_at, due_at, asked)
VALUES ('task', 'a', now(), now(), '[["entity", "vector.index.request", "m"]]');
INSERT INTO mcp_assets.sweep_findings (entity_type, entity_id, slot, first_pass, seen_pass, asked_at)
VALUES ('task', 'a', 1, 2, 3, '2026-01-02 03:04:05+00'), ('task', 'b', 4, 5, 6, NULL);
"""

AFTER = {
    "SELECT run_id, extract(epoch FROM heartbeat_at)::bigint FROM mcp_assets.drains": [("r", 1767323045)],
    "SELECT entity_id, messages FROM mcp_assets.rechecks": [("a", [["entity", "vector.index.request", "m"]])],
    "SELECT entity_id, look_at IS NULL FROM mcp_assets.sweep_findings ORDER BY entity_id": [("a", False), ("b", True)],
}

NAMES = """
SELECT conname FROM pg_constraint WHERE connamespace = 'mcp_assets'::regnamespace
UNION ALL SELECT relname || '.' || attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'mcp_assets'::regnamespace AND relkind = 'r'
"""
OLD_NAMES = ("drains.beat_at", "rechecks.asked", "sweep_findings.asked_at")

WITHOUT_COMMENT = """
SELECT relname || coalesce('.' || attname, '')
FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
WHERE relnamespace = 'mcp_assets'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
  AND (obj_description(pg_class.oid, 'pg_class') IS NULL OR col_description(pg_class.oid, attnum) IS NULL)
"""


def names(settings: Settings) -> list[str]:
    return sorted(str(name) for (name,) in execute(settings, NAMES))


def test_heartbeats_rechecks_and_findings_keep_their_values_under_the_new_names(settings: Settings) -> None:
    upgrade(settings, "0022")
    execute(settings, BEFORE)
    upgrade(settings, "0023")
    assert {query: execute(settings, query) for query in AFTER} == AFTER


def test_no_old_name_is_left_and_a_downgrade_gives_all_of_them_back(settings: Settings) -> None:
    upgrade(settings, "0022")
    before = names(settings)
    assert set(OLD_NAMES) <= set(before)
    upgrade(settings, "0023")
    left = names(settings)
    assert set(left).isdisjoint(OLD_NAMES)
    assert not [name for name in left if "beat_at" in name.replace("heartbeat_at", "")]
    downgrade(settings, "0022")
    assert names(settings) == before


def test_every_table_and_column_of_the_platform_is_described(settings: Settings) -> None:
    upgrade(settings, "head")
    assert execute(settings, WITHOUT_COMMENT) == []
