"""Rows of `relationships` that other programs wrote: reported if an end is missing, removed only when asked."""

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.observing import put, put_tasks, remove, rows, sync_all

TYPES = ("task", "page", "memory")


@pytest.fixture
def shared(platform: Platform) -> Platform:
    """Two tasks, a page that names one of them, and rows of other programs, four of which lack an end."""
    put_tasks(platform, {"t1": "one", "t2": "two"})
    put(platform, "wiki_pages", id="p", title="Plan", content="depends on task:t1")
    for entity_type in TYPES:
        sync_all(platform, entity_type)
    for _ in link_until_done(platform):
        pass
    with platform.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
            " origin) VALUES (NULL, 't1', NULL, 'user-42', 'assigned_to', 1, NULL),"
            " ('task', 't1', 'user', 'user-42', 'assigned_to', 1, 'board'),"
            " (NULL, 'sprint-7', NULL, 't2', 'contains', 1, 'planner'),"
            " ('task', 't1', 'task', 'not yet written', 'blocks', 1, 'planner'),"
            " ('task', 't1', 'task', 't2', 'blocks', 1, 'planner')"
        )
    return platform


def of_others(platform: Platform) -> list[tuple[object, ...]]:
    return rows(
        platform,
        "SELECT source_id, target_id, origin, xmin::text FROM relationships"
        " WHERE origin IS DISTINCT FROM 'mcp_assets' ORDER BY 1, 2, 3",
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_repair_reports_rows_of_others_without_an_end_and_leaves_them(shared: Platform, named: bool) -> None:
    before = of_others(shared)
    entities = [EntityRef("task", "t1"), EntityRef("task", "t2")] if named else []
    report = validate(
        shared, entity_types=TYPES, entities=entities, repair=True, deep=True, allow_mass_delete=True, foreign=True
    )
    assert of_others(shared) == before
    assert report.mended == {}
    assert report.left == {}, "what others wrote is no fault of ours"
    if not named:
        assert report.found == {"foreign_orphaned_edge": 3}
        assert all("origin" in drift.detail for drift in report.examples)


def test_rows_of_others_without_an_end_are_removed_when_they_are_asked_for_and_ours_by_any_repair(
    shared: Platform,
) -> None:
    with shared.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
            " origin) VALUES ('task', 'gone', 'task', 't2', 'cross_reference', 1, 'mcp_assets')"
        )
    assert validate(shared, entity_types=TYPES, repair=True).mended == {"orphaned_edge": 1}
    report = validate(shared, entity_types=TYPES, repair=True, foreign_edges=True)
    assert report.mended == {"foreign_orphaned_edge": 3}
    assert {row[:3] for row in of_others(shared)} == {
        ("t1", "t2", "planner"),
        ("t1", "user-42", "board"),
    }


def test_the_check_warns_of_rows_of_others_and_fails_for_ours(shared: Platform) -> None:
    warned = evaluate(shared, "no_orphaned_relationships")
    assert (warned.passed, warned.severity) == (False, Severity.WARNING)
    remove(shared, "tasks", "t1")
    rows(shared, "DELETE FROM {schema}.entities WHERE entity_id = 't1' RETURNING 1")
    validate(shared, entity_types=TYPES)
    assert evaluate(shared, "no_orphaned_relationships").severity is Severity.ERROR
