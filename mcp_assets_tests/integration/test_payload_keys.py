"""Payload keys: points that were written before our keys got a prefix are moved over, and nothing is embedded."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models

from mcp_assets.entities.points import FORMER_KEYS, INDEXED_KEYS, PREFIX, RESERVED_KEYS, Key
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.collections.serving import serving_collections
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.search.search import search
from mcp_assets.tuning import CollectionTuning, Tuning
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import points, put, put_tasks, sync_all
from mcp_assets_tests.openai_stub import OpenAIStub

LONG = " ".join(f"word{n} of a page about gates" for n in range(500))
THEIRS = {"kind": "story", "start": "2026-01-01", "model": ["a", "b"], "slot": "late"}


def set_back(platform: Platform, collection: str) -> None:
    """Have the collection look as it did before the prefix: payload keys, indexes, metadata that gave way."""
    client = qdrant_of(platform.settings)
    try:
        for identifier, point in points(platform, collection).items():
            former = {
                key.removeprefix(PREFIX) if key in RESERVED_KEYS else key: value
                for key, value in point.payload.items()
                if key in RESERVED_KEYS or key not in FORMER_KEYS
            }
            client.overwrite_payload(collection, former, [identifier], wait=True)
        for key in INDEXED_KEYS:
            client.delete_payload_index(collection, key, wait=True)
        for key, schema in (("kind", "keyword"), ("entity_id", "keyword"), ("slot", "integer")):
            client.create_payload_index(collection, key, models.PayloadSchemaType(schema), wait=True)
    finally:
        client.close()


def indexes(platform: Platform, collection: str) -> frozenset[str]:
    return platform.qdrant.made_for(collection, collection).indexes


@pytest.fixture
def before(platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub) -> Platform:
    """Tasks, and a page with chunks, in collections of the time before the prefix."""
    put_tasks(platform, {f"t{n}": f"Task {n} about gates" for n in range(30)})
    put(platform, "tasks", id="theirs", title="Mend the gate", metadata=THEIRS)
    put(platform, "wiki_pages", id="long", title="Gates", content=LONG)
    for entity_type in ("task", "page"):
        sync_all(platform, entity_type)
    for collection in ("kanban_tasks", "wiki_pages"):
        set_back(platform, collection)
    stub.reset_stats()
    return make_platform()


def without_times(platform: Platform) -> dict[str, dict[str, Any]]:
    found = points(platform) | points(platform, "wiki_pages")
    return {
        identifier: {key: value for key, value in point.payload.items() if key != Key.INDEXED_AT}
        for identifier, point in found.items()
    }


def assert_moved(platform: Platform, stub: OpenAIStub) -> None:
    for payload in without_times(platform).values():
        assert payload.keys() >= {Key.KIND, Key.SLOT, Key.TEXT_HASH, Key.STATE_HASH, Key.MODEL, Key.VECTOR_CHECK}
    for collection in ("kanban_tasks", "wiki_pages"):
        assert indexes(platform, collection) >= INDEXED_KEYS.keys()
        assert not indexes(platform, collection) & FORMER_KEYS.keys()
    for entity_type in ("task", "page"):
        for shard in range(platform.settings.shards):
            assert take_census(platform, entity_type, shard, deep=True).clean
    assert stub.stats()["texts"] == 0


def test_points_of_before_are_moved_by_the_first_that_looks_and_nothing_is_embedded(
    before: Platform, stub: OpenAIStub
) -> None:
    list(link_until_done(before))

    assert_moved(before, stub)
    (theirs,) = (payload for payload in without_times(before).values() if payload["entity_id"] == "theirs")
    assert {key: theirs[key] for key in THEIRS} == THEIRS
    assert search(before, "Task 7 about gates", by="meaning").results[0].ref.id == "t7"
    assert sync_all(before).unchanged == 31


@pytest.mark.tuning(Tuning(collections=CollectionTuning(payloads_a_page=7)))
def test_a_pass_that_dies_on_its_way_is_gone_on_with_by_the_next_that_looks(
    before: Platform, stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Qdrant.write
    written: list[int] = []

    def dying(self: Qdrant, collection: str, **changes: Any) -> None:
        if len(written) == 2:
            raise StoreUnavailable("gone")
        written.append(len(changes["payloads"]))
        real(self, collection, **changes)

    monkeypatch.setattr(Qdrant, "write", dying)
    with pytest.raises(StoreUnavailable):
        serving_collections(before)
    assert written == [7, 7]
    monkeypatch.setattr(Qdrant, "write", real)

    serving_collections(before)

    assert_moved(before, stub)


def test_points_of_others_keep_their_payload(before: Platform) -> None:
    client = qdrant_of(before.settings)
    others: dict[int | str, dict[str, Any]] = {
        7: {"kind": "entity", "entity_id": "t1", "entity_type": "task"},
        str(UUID(int=9)): {"slot": 3, "kind": "chunk"},
    }
    client.upsert(
        "kanban_tasks",
        [
            models.PointStruct(id=identifier, vector=[1.0] * 16, payload=carried)
            for identifier, carried in others.items()
        ],
        wait=True,
    )

    serving_collections(before)

    found = client.retrieve("kanban_tasks", list(others), with_payload=True)
    assert {record.id: record.payload for record in found} == others
    client.close()
