"""Ledger rows that lie in a column though their hashes are intact: found, mended from the source row, or reported."""

import json
from typing import Any

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import Validation, validate
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.requests.incremental import bring_up_to_date
from mcp_assets_tests.observing import drain_all, ledger, put, put_tasks, rows, send, sync_all
from mcp_assets_tests.openai_stub import OpenAIStub

TYPES = ("task", "page", "memory")

LIES = {
    "content": "content = 'nothing of note'",
    "title": "title = 'a lie'",
    "metadata": """metadata = '{"tags": ["other"]}'""",
}


@pytest.fixture
def world(platform: Platform, stub: OpenAIStub) -> Platform:
    """A page with a source row and a memory that lives by its event, each with edges to a task; all at rest."""
    put_tasks(platform, {"t1": "the target", "t2": "another"})
    put(platform, "wiki_pages", id="p", title="Plan", content="depends on task:t1", tags=["x", "y"])
    for entity_type in TYPES:
        sync_all(platform, entity_type)
    body = {"memoryId": "m", "content": "part of task:t1", "concepts": ["x", "y"]}
    send(platform, ("mcp.memory.node.stored", body))
    drain_all(platform)
    for _ in link_until_done(platform):
        pass
    stub.reset_stats()
    return platform


def edges(platform: Platform) -> list[tuple[Any, ...]]:
    return rows(
        platform,
        "SELECT source_id, target_id, relationship_type, strength, metadata FROM relationships ORDER BY 1, 2, 3",
    )


def lie(platform: Platform, entity_id: str, column: str) -> None:
    rows(platform, f"UPDATE {{schema}}.entities SET {LIES[column]} WHERE entity_id = %s RETURNING 1", entity_id)


def check(platform: Platform, *, repair: bool, deep: bool = True) -> Validation:
    return validate(platform, entity_types=TYPES, repair=repair, deep=deep)


@pytest.mark.parametrize("column", LIES)
def test_a_row_that_lies_is_mended_from_its_source_row_and_loses_no_edge(
    world: Platform, stub: OpenAIStub, column: str
) -> None:
    before, right = edges(world), ledger(world, "page")
    assert ("p", "t1", "sequential_dependency") in {edge[:3] for edge in before}
    lie(world, "p", column)
    assert check(world, repair=False).found == {"lying_ledger": 1}
    report = check(world, repair=True)
    assert (report.mended, report.left) == ({"lying_ledger": 1}, {})
    assert ledger(world, "page") == right
    assert edges(world) == before
    assert stub.stats()["texts"] == 0
    assert check(world, repair=False).found == {}


@pytest.mark.parametrize("column", LIES)
def test_a_row_that_lies_and_was_linked_by_its_lie_gets_its_edges_back(world: Platform, column: str) -> None:
    before = edges(world)
    lie(world, "p", column)
    rows(
        world,
        "INSERT INTO {schema}.relink_marks (entity_type, entity_id, reason)"
        " VALUES ('page', 'p', 'changed'), ('page', 'p', 'references') RETURNING 1",
    )
    for _ in link_until_done(world):
        pass
    assert check(world, repair=True).left == {}
    assert edges(world) == before


@pytest.mark.parametrize("column", LIES)
def test_of_an_entity_without_a_source_row_a_lie_is_reported_and_nothing_is_mended_by_it(
    world: Platform, stub: OpenAIStub, column: str
) -> None:
    before = edges(world)
    lie(world, "m", column)
    report = check(world, repair=True)
    assert (report.found, report.mended, report.left) == ({"damaged_row": 1}, {}, {"damaged_row": 1})
    assert edges(world) == before
    assert stub.stats()["texts"] == 0
    send(world, ("mcp.memory.node.stored", {"memoryId": "m", "content": "part of task:t1", "concepts": ["x", "y"]}))
    drain_all(world)
    for _ in link_until_done(world):
        pass
    assert check(world, repair=False).found == {}
    assert [edge[:4] for edge in edges(world)] == [edge[:4] for edge in before]


def test_a_census_of_edges_by_sample_relinks_nothing_by_a_row_that_lies(world: Platform) -> None:
    before = edges(world)
    for entity_id in ("p", "m"):
        lie(world, entity_id, "content")
    report = check(world, repair=True, deep=False)
    assert report.found.keys() == {"lying_ledger", "damaged_row"}
    assert report.left.keys() == {"damaged_row"}
    assert edges(world) == before


def test_each_look_at_an_entity_mends_a_row_that_lies(world: Platform) -> None:
    right = ledger(world, "page")
    lie(world, "p", "content")
    bring_up_to_date(world, [EntityRef("page", "p")])
    assert ledger(world, "page") == right
    lie(world, "p", "metadata")
    for _ in full_sync(world, "page", range(4), force=True):
        pass
    assert ledger(world, "page") == right


@pytest.mark.parametrize("number", [1e16, 1e22, -1e300, -0.0, 0.1, 1e-7, 2**53, 5])
def test_numbers_that_the_ledger_gives_back_in_another_spelling_are_no_lie(platform: Platform, number: float) -> None:
    for entity_type in TYPES:
        sync_all(platform, entity_type)
    body = {"memoryId": "m", "content": "text", "metadata": {"number": number, "deep": [{"number": number}]}}
    send(platform, ("mcp.memory.node.stored", json.dumps(body).encode()))
    drain_all(platform)
    for _ in link_until_done(platform):
        pass
    assert ledger(platform, "memory")["m"]["content"] == "text"
    assert check(platform, repair=False).found == {}
