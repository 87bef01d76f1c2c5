"""Entities that live by events alone though their type has a source table: counted by the census, ended when asked."""

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.end_entities import end_entities
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.observing import drain_all, entity_points, ledger, put_tasks, rows, send, sync_all

ROW, GHOST, OTHER = (EntityRef("task", name) for name in ("row", "ghost", "other"))


def test_an_entity_without_a_row_is_counted_by_the_census_and_ended_when_asked(platform: Platform) -> None:
    put_tasks(platform, {"row": "has a row"})
    send(
        platform,
        ("mcp.task.created", {"taskId": "ghost", "title": "by events", "description": "after task:row"}),
        ("mcp.task.created", {"taskId": "other", "title": "by events too", "description": "after task:ghost"}),
    )
    drain_all(platform)
    sync_all(platform)
    for _ in link_until_done(platform):
        pass
    report = validate(platform, entity_types=["task"], deep=True)
    assert (report.found, report.by_events, set(report.by_events_examples)) == ({}, 2, {GHOST, OTHER})

    ended = end_entities(platform, [GHOST, ROW, EntityRef("task", "unknown")])
    assert (ended.refs, ended.left) == ([GHOST], [ROW, EntityRef("task", "unknown")])
    assert set(entity_points(platform)) == {"row", "other"}
    assert not rows(platform, "SELECT FROM relationships WHERE 'ghost' IN (source_id, target_id)")
    report = validate(platform, entity_types=["task"], deep=True)
    assert (report.left, report.by_events) == ({}, 1)

    send(platform, ("mcp.task.updated", {"taskId": "ghost", "title": "it is back"}))
    drain_all(platform)
    assert not ledger(platform)["ghost"]["deleted"], "a newer event brings it back"
