"""Points of others in a collection of ours: they are reported, and stop and change nothing."""

from typing import Any
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.checks import CHECKS, evaluate
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.search.search import search
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import entity_points, points, put_tasks, rows, sync_all

TASKS = {f"t{n}": f"Mend gate {n % 3}" for n in range(12)}

RANDOM = "936da01f-9abd-4d9d-80c7-02af85c822a8"


@pytest.fixture
def client(platform: Platform) -> Any:
    opened = qdrant_of(platform.settings)
    yield opened
    opened.close()


def plant(platform: Platform, client: QdrantClient, *ids: int | str) -> None:
    """Points of others that look as ours do: payload and vector are those of t3."""
    own = entity_points(platform)["t3"]
    client.upsert(
        "kanban_tasks",
        [models.PointStruct(id=one, vector=own.vector.tolist(), payload=own.payload) for one in ids],
        wait=True,
    )


def test_a_point_under_an_id_that_is_none_of_ours_stops_neither_linking_nor_census_nor_repair_nor_search(
    platform: Platform, client: QdrantClient
) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    list(link_until_done(platform))
    edges = "SELECT source_id, target_id, strength FROM relationships ORDER BY 1, 2"
    before = rows(platform, edges)
    assert before
    plant(platform, client, 2, 2**63, RANDOM)
    theirs = {identifier: points(platform)[identifier].payload for identifier in ("2", str(2**63), RANDOM)}

    put_tasks(platform, {"t3": "Mend gate 0!"})
    sync_all(platform)
    put_tasks(platform, {"t3": TASKS["t3"]})
    sync_all(platform)
    list(link_until_done(platform))
    report = validate(platform, entity_types=["task"], repair=True, deep=True)

    assert report.found == {DriftKind.FOREIGN_POINT: 3}
    assert rows(platform, edges) == before
    assert {found.ref.id for found in search(platform, TASKS["t3"], limit=20, by="meaning").results} == set(TASKS)
    assert {identifier: points(platform)[identifier].payload for identifier in theirs} == theirs
    assert validate(platform, entity_types=["task"], repair=True, foreign=True).mended == {DriftKind.FOREIGN_POINT: 3}
    assert not theirs.keys() & points(platform).keys()


def test_a_point_of_an_unknown_entity_is_an_orphan_whatever_its_id(platform: Platform, client: QdrantClient) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    own = entity_points(platform)["t3"]
    never = EntityRef("task", "never")
    ids = [str(point_id(never)), str(UUID(int=7, version=5))]
    payload = own.payload | {Key.ENTITY_ID: never.id, Key.SLOT: never.slot}
    client.upsert(
        "kanban_tasks",
        [models.PointStruct(id=one, vector=own.vector.tolist(), payload=payload) for one in ids],
        wait=True,
    )

    report = validate(platform, entity_types=["task"], repair=True)

    assert report.found == {DriftKind.ORPHAN_VECTOR: 2}
    assert report.left == {}
    assert not set(ids) & points(platform).keys()


def test_every_check_answers_with_a_point_of_others_in_the_collection(platform: Platform, client: QdrantClient) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    plant(platform, client, 2)

    for name in CHECKS:
        evaluate(platform, name)
