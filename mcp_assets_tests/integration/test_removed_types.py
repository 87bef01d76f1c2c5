"""An entity type that is removed from the settings: found, named, and cleaned up when asked; nothing of it is lost."""

from collections.abc import Callable
from typing import Any

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.removed_types import removed_types
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.requests.dead_letters import Selection, replay
from mcp_assets.sync.views.pending import pending
from mcp_assets_tests.observing import drain_all, inbox, ledger, put, rows, send, sync_all, take_in

TASK = TypeMapping(
    collection="kanban_tasks",
    source=SourceTable(table="tasks", content=("description",), metadata={"tags": "tags"}),
)


def edges(platform: Platform) -> list[tuple[Any, ...]]:
    return rows(
        platform,
        "SELECT source_type, source_id, target_type, target_id, relationship_type, strength FROM relationships"
        " ORDER BY 1, 2, 3, 4, 5",
    )


def settle(platform: Platform) -> None:
    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)
        mark_shards(platform, entity_type, range(4), force=False)
    for _ in link_until_done(platform):
        pass


@pytest.fixture
def both(make_platform: Callable[..., Platform]) -> Platform:
    """Tasks with a source table, and decisions by their events alone, in a collection that they share or not."""
    create_source_tables(make_platform())
    platform = make_platform(types={"task": TASK, "decision": TypeMapping()})
    platform.nats.ensure_stream("MCP_ASSETS")
    put(platform, "tasks", id="t1", title="one two three", description="after decision:d1", tags=["x", "y"])
    put(platform, "tasks", id="t2", title="one two four", description="", tags=["x", "y"])
    send(platform, ("mcp.decision.created", {"entity_id": "d1", "content": "one two three", "tags": ["x", "y"]}))
    drain_all(platform)
    settle(platform)
    return platform


def test_edges_messages_and_wanted_full_syncs_of_a_removed_type_are_named_and_cleaned_up_when_asked(
    make_platform: Callable[..., Platform], both: Platform
) -> None:
    before = edges(both)
    assert any("decision" in edge for edge in before)
    late = {"entity_id": "d2", "title": "Late", "content": "after task:t1", "tags": ["x", "y"], "estimate": 3}
    send(both, ("mcp.decision.created", late))
    take_in(both)
    alone = make_platform(types={"task": TASK})
    settle(alone)
    rows(both, "INSERT INTO {schema}.wanted_full_syncs (entity_type, reason) VALUES ('decision', 'lost') RETURNING 1")
    report = validate(alone, entity_types=["task"])
    assert report.found["removed_type"] == 1
    assert pending(alone).wanted_full_syncs == {"decision": "lost"}
    assert "decision" in next(one.detail for one in report.examples if one.kind == "removed_type")
    assert any("decision" in edge for edge in edges(alone)), "not without being asked"
    assert "decision is no entity type" in evaluate(alone, "intake_is_current").summary

    report = validate(alone, entity_types=["task"], repair=True)
    assert (report.left, report.refused) == ({}, None)
    assert pending(alone).wanted_full_syncs == {}
    assert edges(alone)
    assert not any("decision" in edge for edge in edges(alone))
    assert (inbox(alone), removed_types(alone)) == ([], [])
    assert evaluate(alone, "intake_is_current").passed
    assert validate(alone, entity_types=["task"], deep=True).left == {}
    assert rows(alone, "SELECT error_kind, count(*) FROM {schema}.dead_letters GROUP BY 1") == [("unknown_type", 1)]

    assert replay(both, Selection()).accepted == 1, "named again, the type loses nothing"
    drain_all(both)
    settle(both)
    assert ledger(both, "decision")["d2"]["title"] == "Late"
    assert ledger(both, "decision")["d2"]["content"] == "after task:t1"
    assert ledger(both, "decision")["d2"]["metadata"]["estimate"] == 3
    assert {edge[:5] for edge in before} <= {edge[:5] for edge in edges(both)}
    assert validate(both, entity_types=["task", "decision"], deep=True).left == {}
