"""Collections of another program under names of ours: never written to, and replaced only after a person said so."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionNotOurs, StoreRefused
from mcp_assets.sync.collections.adoption import adopt, adopted
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.search.search import search
from mcp_assets.sync.views import doctor
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import assert_points_are, points, put, put_tasks, sync_all

TASKS = {f"t{n}": f"Task {n} about gates" for n in range(9)}
BACKUP = "kanban_tasks-before-mcp-assets"


@pytest.fixture
def client(platform: Platform) -> Iterator[QdrantClient]:
    opened = qdrant_of(platform.settings)
    yield opened
    opened.close()


@pytest.fixture(params=[3, 16], ids=["another dimension", "the dimension of our model"])
def theirs(platform: Platform, client: QdrantClient, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The points of another program in the collection kanban_tasks: random ids, and a payload without our keys."""
    size: int = request.param
    vectors = models.VectorParams(size=size, distance=models.Distance.COSINE)
    client.create_collection("kanban_tasks", vectors_config=vectors)
    client.upsert(
        "kanban_tasks",
        [
            models.PointStruct(id=n, vector=[1.0] * size, payload={"taskId": f"t{n}", "entity_type": "task"})
            for n in range(1, 6)
        ],
        wait=True,
    )
    put_tasks(platform, TASKS)
    put(platform, "wiki_pages", id="p", title="Gates", content="How gates are mended.")
    return payloads(platform, "kanban_tasks")


def payloads(platform: Platform, collection: str) -> dict[str, Any]:
    return {identifier: point.payload for identifier, point in points(platform, collection).items()}


def test_a_collection_of_others_is_neither_written_to_nor_replaced_and_stops_no_other_type(
    platform: Platform, theirs: dict[str, Any]
) -> None:
    with pytest.raises(CollectionNotOurs, match="mcp-assets collections adopt kanban_tasks"):
        sync_all(platform, "task")
    sync_all(platform, "page")

    assert payloads(platform, "kanban_tasks") == theirs
    assert platform.qdrant.alias_target("kanban_tasks") is None
    assert search(platform, "gates", by="meaning").results[0].ref.id == "p"
    finding = evaluate(platform, "collections_match_model")
    assert not finding.passed
    assert "collections adopt kanban_tasks" in finding.rows[0]["detail"]


def test_an_adopted_collection_serves_its_own_readers_until_its_successor_is_complete_and_its_points_are_kept(
    platform: Platform, theirs: dict[str, Any]
) -> None:
    assert adopt(platform, "kanban_tasks", backup=BACKUP).points == len(theirs)
    assert payloads(platform, BACKUP) == theirs
    assert payloads(platform, "kanban_tasks") == theirs

    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)

    assert platform.qdrant.alias_target("kanban_tasks") == "kanban_tasks__stub_16"
    assert_points_are(platform, TASKS)
    assert payloads(platform, BACKUP) == theirs
    assert adopted(platform) == {}
    assert evaluate(platform, "collections_match_model").passed


def test_points_that_came_after_the_adoption_hold_up_the_replacement(
    platform: Platform, client: QdrantClient, theirs: dict[str, Any]
) -> None:
    adopt(platform, "kanban_tasks", backup=BACKUP)
    size = client.get_collection("kanban_tasks").config.params.vectors.size  # type: ignore[union-attr]
    client.upsert("kanban_tasks", [models.PointStruct(id=77, vector=[0.5] * size, payload={})], wait=True)

    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)

    assert platform.qdrant.alias_target("kanban_tasks") is None
    assert len(payloads(platform, "kanban_tasks")) == len(theirs) + 1
    adopt(platform, "kanban_tasks", backup=BACKUP)
    sync_all(platform)
    assert platform.qdrant.alias_target("kanban_tasks") == "kanban_tasks__stub_16"
    assert len(payloads(platform, BACKUP)) == len(theirs) + 1


def test_a_collection_of_our_own_with_points_of_others_is_not_deleted_by_a_change_of_model(
    platform: Platform, client: QdrantClient, make_platform: Callable[..., Platform]
) -> None:
    vectors = models.VectorParams(size=16, distance=models.Distance.COSINE)
    client.create_collection("kanban_tasks", vectors_config=vectors)
    put_tasks(platform, TASKS)
    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)
    client.upsert("kanban_tasks", [models.PointStruct(id=5, vector=[1.0] * 16, payload={"of": "others"})], wait=True)
    other = make_platform(embedding_model="other", previous_model="stub", previous_dimension=16)

    for entity_type in platform.settings.entity_types:
        sync_all(other, entity_type)
    assert payloads(other, "kanban_tasks")["5"] == {"of": "others"}
    assert evaluate(other, "collections_match_model").passed

    client.delete("kanban_tasks", [5], wait=True)
    sync_all(other)
    assert other.qdrant.alias_target("kanban_tasks") == "kanban_tasks__other_16"


def test_nothing_is_adopted_that_is_ours_or_not_there(platform: Platform) -> None:
    for name in ("kanban_tasks", "somebody_elses"):
        with pytest.raises(StoreRefused):
            adopt(platform, name, backup=BACKUP)
    put_tasks(platform, TASKS)
    sync_all(platform)
    with pytest.raises(StoreRefused, match="own"):
        adopt(platform, "kanban_tasks", backup=BACKUP)
    assert BACKUP not in platform.qdrant.collections()


def test_doctor_tries_a_search_and_names_a_collection_of_others(platform: Platform, client: QdrantClient) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    assert "kanban_tasks: 9 points of stub" in doctor._collections(platform)
    client.delete_payload_index("kanban_tasks__stub_16", "entity_type", wait=True)

    # The index is made again before the search is tried.
    assert "kanban_tasks: 9 points of stub" in doctor._collections(platform)
    assert "entity_type" in platform.qdrant.made_for("kanban_tasks", "kanban_tasks__stub_16").indexes

    vectors = models.VectorParams(size=3, distance=models.Distance.DOT)
    client.create_collection("wiki_pages", vectors_config=vectors)
    client.upsert("wiki_pages", [models.PointStruct(id=1, vector=[1.0, 2.0, 3.0])], wait=True)
    with pytest.raises(CollectionNotOurs, match="collections adopt wiki_pages"):
        doctor._collections(platform)
