"""Migrations: each is undone with rows in every table, two processes migrate once, older code goes on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres.migrations import WORKS_WITH
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.migrating import downgrade, execute, upgrade
from mcp_assets_tests.observing import rows

ROW_OF_EACH_TABLE = """
SET search_path TO mcp_assets;
INSERT INTO entities (entity_type, entity_id, slot, origin, title, prepared_by, text_hash, state_hash, changes)
VALUES ('task', 'a', 1, 'source', 'A', 'p', 't', 's', NULL), ('memory', 'e', 2, 'event', 'E', 'p', 't', 's', '[]');
INSERT INTO embedded (entity_type, entity_id, collection, model, text_hash, state_hash, points, vector_checks)
VALUES ('task', 'a', 'kanban_tasks__m', 'm', 't', 's', 1, '{0.5}');
INSERT INTO inbox (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, event_order, stored_at, message_id)
VALUES ('MCP_ASSETS', 2, 7, 'entity', 'mcp.task.updated', 'task', 'a', 'look', 'o', now(), 'm1'),
       ('MCP_ASSETS', 2, 8, 'sync', 'data.sync.request', NULL, NULL, 'look', 'p', now(), 'm2');
INSERT INTO intake_cursors (stream, stream_created_at, last_seq, newest_stored_at, epoch)
VALUES ('MCP_ASSETS', now(), 8, now(), 2);
INSERT INTO wanted_full_syncs (entity_type, reason) VALUES ('page', 'a gap');
INSERT INTO dead_letters (stage, stream, epoch, seq, raw, error_kind, error)
VALUES ('intake', 'MCP_ASSETS', 2, 5, 'a', 'bad_json', 'x'), ('request', 'MCP_ASSETS', 2, 6, 'b', 'failed', 'x');
INSERT INTO dead_letters (stage, entity_type, entity_id, error_kind, error)
VALUES ('embed', 'task', 'b', 'input_refused', 'x');
INSERT INTO drains (entity_type, run_id) VALUES ('task', 'r');
INSERT INTO relink_marks (entity_type, entity_id, reason, in_rebuild)
VALUES ('task', 'a', 'changed', false), ('task', 'a', 'lists', true);
INSERT INTO linked (entity_type, entity_id, tags, semantic_cut_off, linked_by, last_move)
VALUES ('task', 'a', '{t}', 0.5, 'rules', 3);
INSERT INTO reserves (entity_type, entity_id, neighbours, written_after_move)
VALUES ('task', 'a', '[[["task", "b"], 0.6]]', 3);
INSERT INTO reference_uses (source_type, source_id, kind, key, relation, strength, rule, reverse, written, place)
VALUES ('task', 'a', 'title', 'gates', 'cross_reference', 1, 'text', false, 'w', 0),
       ('task', 'a', 'slug', 'gates', 'cross_reference', 1, 'text', false, 'w', 1);
INSERT INTO tag_weights (tag, holders, weight, makes_candidates) VALUES ('t', 2, 0.5, true);
INSERT INTO censuses (entity_type, collection, low, high, deep) VALUES ('task', 'kanban_tasks__m', 0, 65536, true);
INSERT INTO drift (census, kind, subject, detail) SELECT id, 'missing_vector', '', 'd' FROM censuses;
INSERT INTO full_syncs (id, entity_types, force, requested_by)
VALUES ('f', '{task,page}', false, 'test'), ('g', '{memory}', false, 'test');
UPDATE full_syncs SET finished_at = now() WHERE id = 'g';
INSERT INTO full_sync_requests (stream, epoch, seq, subject, full_sync_id)
VALUES ('MCP_ASSETS', 2, 4, 'data.sync.request', 'f');
INSERT INTO full_sync_progress (full_sync_id, entity_type, shard) VALUES ('f', 'task', 0);
INSERT INTO collection_changes (alias, new_collection, model, dimension, state)
VALUES ('kanban_tasks', 'kanban_tasks__m', 'm', 16, 'moved');
INSERT INTO provider_outages (model, reason, next_try_at) VALUES ('m/16', 'quota', now());
INSERT INTO unwritten_vectors (model, text_hash, vectors) VALUES ('m/16', 't', 'v');
INSERT INTO adopted_collections (alias, points) VALUES ('kanban_tasks', 3);
INSERT INTO warnings (subject, error_kind, place, warning, messages, stream, epoch, seq)
VALUES ('mcp.task.updated', 'odd', '$', 'w', 1, 'MCP_ASSETS', 2, 3);
INSERT INTO rechecks (entity_type, entity_id, noted_at, due_at, messages)
VALUES ('task', 'new', now(), now(), '[["entity", "vector.index.request", "m"]]');
INSERT INTO sweeps (entity_type) VALUES ('task');
INSERT INTO sweep_findings (entity_type, entity_id, slot, first_pass, seen_pass) VALUES ('task', 'a', 1, 1, 1);
INSERT INTO store_marks (store, mark) VALUES ('platform', 'key');
INSERT INTO outbox (subject, envelope) VALUES ('vector.index.completed', '{}');
INSERT INTO relate_requests (entity_type, entity_id, newest_mark, edges_before) VALUES ('task', 'a', 1, '{}');
INSERT INTO search_words VALUES ('task', '1', '''plan'':1A', 1);
INSERT INTO edge_verdicts (source_type, source_id, target_type, target_id, edge_type, decision, evidence, decided_by)
VALUES ('task', 'a', 'task', 'b', 'cross_reference', 'rejected', '{}', 'test');
INSERT INTO embedding_rates (model, texts, bytes, seconds) VALUES ('m/16', 1, 2, 3);
INSERT INTO embedding_costs (day, entity_type, model, texts, tokens, estimated_tokens, usd)
VALUES ('2026-11-30', 'task', 'm/16', 1, 2, 0, 0.5);
INSERT INTO budget_raises (day, usd) VALUES ('2026-11-30', 1);
INSERT INTO provider_rates (model, requests, tokens, refilled_at) VALUES ('m/16', 1, 2, now());
INSERT INTO counters (name, label, part, value) VALUES ('event_lag', 'task', 'sum', 0.5);
INSERT INTO synced_partitions (entity_type, shards, shard, indexed_since) VALUES ('task', 4, 0, now());
INSERT INTO deletion_judgements (entity_type, judged_at, gone, living) VALUES ('task', now(), 1, 2);
INSERT INTO changes (kind, reason, entity_type, entity_id, state_hash) VALUES ('indexed', 'new', 'task', 'a', 's');
INSERT INTO model_gates (model, dimension, decision, decided_by, ended_at) VALUES ('m', 16, 'approved', 'anna', now());
INSERT INTO provider_pauses (provider, until) VALUES ('localhost:1', now());
"""
"""A new table gets a row here, so that its migration is undone with a row in it."""

STRUCTURE = """
SELECT relname || coalesce(' ' || reloptions::text, '') || ': ' || attname || ' ' || format_type(atttypid, atttypmod)
       || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END || attidentity::text
       || coalesce(' COLLATE ' || collname, '') || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
LEFT JOIN pg_collation ON pg_collation.oid = attcollation
WHERE relnamespace = 'mcp_assets'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT conrelid::regclass || ': ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'mcp_assets'::regnamespace
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'mcp_assets'
UNION ALL SELECT 'sequence ' || sequencename FROM pg_sequences WHERE schemaname = 'mcp_assets'
"""

KEPT_BY_ALL = {
    "entities": "entity_type, entity_id, slot, origin, title, text_hash, state_hash",
    "embedded": "entity_type, entity_id, collection, points, vector_checks",
    "inbox": "stream, seq, kind, subject, entity_type, entity_id, event_order",
    "dead_letters": "seq, raw, entity_type, entity_id, error_kind",
    "intake_cursors": "stream, last_seq",
    "drains": "entity_type, run_id",
}
"""What even the tables of the first revision hold."""


def structure(settings: Settings) -> list[str]:
    return sorted(str(line) for (line,) in execute(settings, STRUCTURE))


def kept(settings: Settings, table: str) -> list[tuple[object, ...]]:
    # A recheck of an unknown entity waits in the inbox of a version that has no rechecks.
    where = " WHERE stream <> '(looks)'" if table == "inbox" else ""
    return execute(settings, f"SELECT {KEPT_BY_ALL[table]} FROM mcp_assets.{table}{where} ORDER BY 1, 2")


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    return Place(tmp_path, bare_environment() | {"DATABASE_URL": settings.require_database_url()})


def test_each_migration_is_undone_with_rows_in_every_table_and_leaves_the_tables_of_the_revision_before(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    known = make_platform().postgres.schema_state().known
    on_the_way_up = {}
    for revision in known:
        upgrade(settings, revision)
        on_the_way_up[revision] = structure(settings)
    execute(settings, ROW_OF_EACH_TABLE)
    tables = execute(settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'mcp_assets'")
    empty = [name for (name,) in tables if not execute(settings, f"SELECT 1 FROM mcp_assets.{name} LIMIT 1")]
    assert empty == [], "each table has a row in ROW_OF_EACH_TABLE"
    before = {table: kept(settings, table) for table in KEPT_BY_ALL}

    for revision in reversed(known[:-1]):
        downgrade(settings, revision)
        assert structure(settings) == on_the_way_up[revision], f"the tables after the way down to {revision}"
    # The full sync that was under way is asked for; the one that had ended is not.
    wanted = execute(settings, "SELECT entity_type FROM mcp_assets.wanted_full_syncs ORDER BY 1")
    assert wanted == [("page",), ("task",)]
    upgrade(settings, known[-1])

    assert structure(settings) == on_the_way_up[known[-1]]
    assert {table: kept(settings, table) for table in KEPT_BY_ALL} == before
    assert execute(settings, "SELECT entity_id FROM mcp_assets.inbox WHERE stream = '(looks)'") == [("new",)]


def test_of_several_processes_that_migrate_at_once_one_does_it(make_platform: Callable[..., Platform]) -> None:
    starters = [make_platform().postgres for _ in range(4)]
    newest = starters[0].schema_state().newest
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda postgres: postgres.move_schema(newest), starters))
    assert sorted(map(bool, done)) == [False, False, False, True]
    assert all(postgres.schema_state().fits for postgres in starters)


def test_a_version_goes_on_with_newer_tables_that_it_works_with_and_refuses_others(
    make_platform: Callable[..., Platform], place: Place
) -> None:
    rows(
        make_platform(), "UPDATE {schema}.schema_version SET version_num = '9999', works_with = %s RETURNING 1", "0028"
    )
    assert rows(make_platform(), "SELECT 1") == [(1,)]
    answer = place.run("migrate", "--check")
    assert (answer.code, "at revision 9999 of a newer version" in answer.stdout) == (0, True)

    rows(make_platform(), "UPDATE {schema}.schema_version SET works_with = '9998' RETURNING 1")
    with pytest.raises(StoreRefused, match="was migrated by a newer version"):
        rows(make_platform(), "SELECT 1")
    answer = place.run("migrate", "--check")
    assert (answer.code, "`mcp-assets migrate --to " in answer.stderr) == (1, True)
    # Nor does it undo migrations that it does not know.
    assert place.run("migrate", "--to", WORKS_WITH, "--yes").code == 1


def test_the_check_says_what_would_be_migrated_and_changes_nothing(place: Place, settings: Settings) -> None:
    asked = place.answer("migrate", "--check", code=1)
    assert (asked["found"], asked["ok"]) == (None, False)
    assert asked["steps"][0] == {
        "revision": "0001",
        "title": "Intake and ledger: the inbox, its cursors, dead letters, the entities and what Qdrant holds of them.",
    }
    assert asked["steps"][-1]["revision"] == asked["newest"]
    assert execute(settings, "SELECT 1 FROM pg_namespace WHERE nspname = 'mcp_assets'") == []

    assert place.run("migrate").code == 0
    assert place.answer("migrate", "--check") == {**asked, "found": asked["newest"], "steps": [], "ok": True}
    assert "the newest that this version knows" in place.run("migrate").stdout


def test_migrations_are_undone_only_if_a_person_says_so_and_the_platform_stands_still(
    make_platform: Callable[..., Platform], place: Place
) -> None:
    at_work = make_platform()
    rows(at_work, "SELECT 1")
    assert place.run("migrate", "--to", "0024").code == 2
    refused = place.run("migrate", "--to", "0024", "--yes")
    assert (refused.code, "stop webserver, daemon, code server and runs first" in refused.stderr) == (1, True)
    at_work.close()

    undone = place.answer("migrate", "--to", "0024", "--yes")
    assert undone["after"] == "0024"
    assert [step["revision"] for step in undone["steps"]][-1:] == ["0028"]
    unknown = place.run("migrate", "--to", "0009")
    assert (unknown.code, "one of 0001, 0002" in unknown.stderr) == (2, True)
    assert place.answer("migrate")["before"] == "0024"
