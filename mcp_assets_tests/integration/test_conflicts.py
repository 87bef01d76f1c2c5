"""Conflicts: differences between source, ledger, Qdrant and edges are reported, resolved, and compared again."""

from typing import Any, cast

import pytest
from qdrant_client import QdrantClient, models

from mcp_assets.entities.points import Key, chunk_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import SyncTarget
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.conflicts import Difference, Strategy, resolve_conflicts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import (
    assert_points_are,
    drain_all,
    entity_points,
    ledger,
    put,
    put_tasks,
    remove,
    rows,
    send,
    sync_all,
)
from mcp_assets_tests.openai_stub import OpenAIStub

TEXTS = {f"t{number}": f"text of {number}" for number in range(6)}


@pytest.fixture
def at_rest(platform: Platform, stub: OpenAIStub) -> Platform:
    """A platform with six tasks and a page that refers to one, all at rest; the stub counts from here."""
    put_tasks(platform, TEXTS)
    put(platform, "wiki_pages", id="p", title="Plan", content="depends on task:t1")
    sync_all(platform)
    sync_all(platform, "page")
    for _ in link_until_done(platform):
        pass
    stub.reset_stats()
    return platform


def resolve_and_list(platform: Platform, *ids: str, strategy: Strategy = Strategy.SOURCE) -> list[Difference]:
    targets = [SyncTarget(*name.split(":")) if ":" in name else SyncTarget(None, name) for name in ids]
    return resolve_conflicts(platform, targets, strategy).differences


def kinds(differences: list[Difference]) -> dict[tuple[str, str], str]:
    return {(one.ref.id, one.place.value): one.what for one in differences}


def qdrant(platform: Platform) -> QdrantClient:
    return qdrant_of(platform.settings)


def edit_ledger(platform: Platform, assignment: str, *ids: str) -> None:
    rows(platform, f"UPDATE {{schema}}.entities SET {assignment} WHERE entity_id = ANY(%s) RETURNING 1", list(ids))


def pid(entity_id: str) -> str:
    return str(point_id(EntityRef("task", entity_id)))


def edges(platform: Platform) -> list[tuple[Any, ...]]:
    return rows(
        platform,
        "SELECT source_id, target_id, relationship_type, strength FROM public.relationships ORDER BY 1, 2, 3",
    )


def damage(platform: Platform) -> None:
    """One fault for each of t0 to t4, none for t5; and one for the edges of the page."""
    put_tasks(platform, {"t0": "another text"})  # written without an event
    edit_ledger(platform, "content = 'a lie', title = 'a lie'", "t1")
    client = qdrant(platform)
    try:
        client.delete("kanban_tasks", [pid("t2")], wait=True)
        client.set_payload("kanban_tasks", {"priority": "forged"}, [pid("t3")], wait=True)
        client.update_vectors("kanban_tasks", [models.PointVectors(id=pid("t4"), vector=[0.0] * 15 + [1.0])], wait=True)
    finally:
        client.close()
    rows(platform, "UPDATE public.relationships SET strength = 0.123 WHERE source_id = 'p' RETURNING 1")


def test_entities_at_rest_have_no_differences(at_rest: Platform, stub: OpenAIStub) -> None:
    assert resolve_and_list(at_rest, *TEXTS, "page:p") == []
    assert stub.stats()["texts"] == 0


def test_every_fault_is_found_and_resolved_and_only_what_is_broken_is_embedded(
    at_rest: Platform, stub: OpenAIStub
) -> None:
    before = edges(at_rest)
    damage(at_rest)

    found = resolve_and_list(at_rest, *TEXTS, "page:p")

    assert kinds(found).items() >= {
        (("t0", "ledger"), "behind"),
        (("t0", "qdrant"), "text"),
        (("t1", "ledger"), "record"),
        (("t2", "qdrant"), "missing"),
        (("t3", "qdrant"), "metadata"),
        (("t4", "qdrant"), "vector"),
        (("p", "edges"), "edges"),
    }
    assert all(one.resolved for one in found)
    assert "t5" not in {one.ref.id for one in found if one.place.value != "edges"}
    assert_points_are(at_rest, {**TEXTS, "t0": "another text"})
    assert stub.stats()["texts"] == 3
    assert [edge for edge in edges(at_rest) if edge[0] == "p"] == [edge for edge in before if edge[0] == "p"]
    assert resolve_and_list(at_rest, *TEXTS, "page:p") == []


def test_with_report_every_difference_is_reported_and_nothing_changes(at_rest: Platform, stub: OpenAIStub) -> None:
    damage(at_rest)
    first = resolve_and_list(at_rest, *TEXTS, "page:p", strategy=Strategy.REPORT)
    assert first
    assert {one.decision for one in first} == {"reported, not settled"}
    assert not any(one.resolved for one in first)
    assert resolve_and_list(at_rest, *TEXTS, "page:p", strategy=Strategy.REPORT) == first
    assert stub.stats()["texts"] == 0


def test_with_newest_what_was_written_after_the_source_row_is_left_and_both_times_are_reported(
    at_rest: Platform,
) -> None:
    rows(at_rest, "UPDATE tasks SET title = 'older', updated_at = '2001-01-01T00:00Z' WHERE id = 't0' RETURNING 1")
    rows(at_rest, "UPDATE tasks SET title = 'newer', updated_at = '2999-01-01T00:00Z' WHERE id = 't1' RETURNING 1")

    found = resolve_and_list(at_rest, "t0", "t1", strategy=Strategy.NEWEST)

    left = [one for one in found if one.ref.id == "t0" and one.place.value != "edges"]
    assert left
    assert all("was written after the source row" in one.decision and not one.resolved for one in left)
    assert all(one.truth_at is not None and one.found_at is not None and one.truth_at < one.found_at for one in left)
    assert all(one.resolved for one in found if one.ref.id == "t1")
    assert (ledger(at_rest)["t0"]["title"], ledger(at_rest)["t1"]["title"]) == (TEXTS["t0"], "newer")


def test_a_point_and_edges_of_an_entity_that_nothing_stands_behind_are_removed(at_rest: Platform) -> None:
    remove(at_rest, "tasks", "t1")
    rows(at_rest, "DELETE FROM {schema}.entities WHERE entity_id = 't1' RETURNING 1")
    assert pid("t1") in {str(point_id(EntityRef("task", one))) for one in entity_points(at_rest)}

    found = resolve_and_list(at_rest, "task:t1", "nobody")

    assert kinds(found)["t1", "qdrant"] == "orphan"
    assert all(one.resolved for one in found), found
    assert "t1" not in entity_points(at_rest)
    assert [edge for edge in edges(at_rest) if "t1" in edge[:2]] == []


def test_an_entity_without_a_row_is_what_its_newest_event_says(at_rest: Platform) -> None:
    for text in ("first", "second"):
        send(at_rest, ("mcp.memory.node.stored", {"memoryId": "m", "content": text}))
    drain_all(at_rest, "memory")
    client = qdrant(at_rest)
    try:
        client.delete("memory_nodes", [str(point_id(EntityRef("memory", "m")))], wait=True)
    finally:
        client.close()
    (one, *rest) = resolve_and_list(at_rest, "memory:m")
    assert (one.what, one.resolved, [two for two in rest if not two.resolved]) == ("missing", True, [])
    assert entity_points(at_rest, "memory").keys() == {"m"}
    assert ledger(at_rest, "memory")["m"]["content"] == "second"


def test_work_under_way_is_no_difference(at_rest: Platform) -> None:
    put_tasks(at_rest, {"t0": "another text"})
    send(at_rest, ("mcp.task.updated", {"taskId": "t0"}))
    assert resolve_and_list(at_rest, "t0", strategy=Strategy.REPORT) == []


def test_each_point_that_names_an_entity_and_should_not_be_is_found_and_removed(at_rest: Platform) -> None:
    client = qdrant(at_rest)
    try:
        (own,) = client.retrieve("kanban_tasks", [pid("t1")], with_vectors=True)
        assert own.payload is not None
        far = str(chunk_id(point_id(EntityRef("task", "t1")), 50))
        payload = {**own.payload, Key.KIND: "chunk", Key.CHUNK: 50}
        client.upsert(
            "kanban_tasks",
            [models.PointStruct(id=far, vector=cast(list[float], own.vector), payload=payload)],
            wait=True,
        )
        (found,) = resolve_and_list(at_rest, "t1")
        assert (found.what, found.resolved) == ("chunks", True)
        assert client.retrieve("kanban_tasks", [far]) == []
        assert len(client.retrieve("kanban_tasks", [pid("t1")])) == 1
    finally:
        client.close()
