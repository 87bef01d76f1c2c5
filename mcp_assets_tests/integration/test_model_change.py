"""A change of model: new collections are built beside those that serve, and all aliases move once they are complete."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import variable_of
from mcp_assets.stores.errors import CollectionMismatch, StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.collections.model_change import describe_model_change
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.index.full_sync import count_differing, full_sync
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link import linker as linker_module
from mcp_assets.sync.link.index_wait import IndexWait
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.locks import sole_linker
from mcp_assets.sync.link.marks import pending_links
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.search.search import search
from mcp_assets.sync.views.pending import pending
from mcp_assets_tests.clients import key_in, qdrant_of
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    entity_points,
    ledger,
    points,
    put,
    put_tasks,
    remove,
    rows,
    send,
    send_looks,
    sync_all,
)
from mcp_assets_tests.openai_stub import OpenAIStub

OLD, NEW = "kanban_tasks__stub_16", "kanban_tasks__other_16"

TASKS = {f"t{n:02}": f"Task {n} about gate {n % 7}" for n in range(40)}

PREVIOUS = {"previous_model": "stub", "previous_dimension": 16}

Make = Callable[..., Platform]


@contextmanager
def qdrant(platform: Platform) -> Iterator[QdrantClient]:
    client = qdrant_of(platform.settings)
    try:
        yield client
    finally:
        client.close()


def sync_everything(platform: Platform) -> None:
    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)


def begin_building(platform: Platform) -> None:
    """A full sync of one of four partitions: its model's collections are there, and far from complete."""
    list(full_sync(platform, "task", [0]))


def models_in(platform: Platform, collection: str = "kanban_tasks") -> set[str]:
    return {point.payload[Key.MODEL] for point in points(platform, collection).values()}


def texts_in(platform: Platform, collection: str) -> dict[str, str]:
    """Entity id -> text hash of the entities' own points."""
    found = entity_points(platform, collection=collection)
    return {entity_id: point.payload[Key.TEXT_HASH] for entity_id, point in found.items()}


def hashes(platform: Platform, ids: Collection[str]) -> dict[str, str]:
    return {entity_id: row["text_hash"] for entity_id, row in ledger(platform).items() if entity_id in ids}


def physical(platform: Platform) -> set[str]:
    return set(platform.qdrant.collections())


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A platform of the model `stub`, with 40 tasks and a page, all indexed."""
    put_tasks(platform, TASKS)
    put(platform, "wiki_pages", id="p", title="Gates", content="How gates are mended.")
    sync_everything(platform)
    return platform


@pytest.fixture
def other(filled: Platform, make_platform: Make, stub: OpenAIStub) -> Platform:
    """The same stores with another model in the settings, the one before still configured."""
    stub.reset_stats()
    return make_platform(embedding_model="other", **PREVIOUS)


def test_all_aliases_move_in_one_call_when_the_last_type_is_complete_and_everything_is_embedded_once(
    filled: Platform, other: Platform, stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Mapping[str, str]] = []
    real = Qdrant.move_aliases

    def noted(self: Qdrant, targets: Mapping[str, str]) -> None:
        moves.append(dict(targets))
        real(self, targets)

    monkeypatch.setattr(Qdrant, "move_aliases", noted)

    sync_all(other)
    assert moves == []
    assert models_in(other) == {"stub"}
    assert models_in(other, NEW) == {"other"}

    sync_everything(other)

    assert [move["kanban_tasks"] for move in moves] == [NEW]
    assert moves[0].keys() == {"kanban_tasks", "wiki_pages", "memory_nodes"}
    assert_points_are(other, TASKS)
    assert models_in(other) == models_in(other, "wiki_pages") == {"other"}
    assert stub.stats()["texts"] == len(TASKS) + 1
    stub.reset_stats()
    sync_everything(other)
    assert count_differing(other) == 0
    assert stub.stats()["texts"] == 0


def test_after_the_move_every_entity_is_linked_again_by_the_new_model(other: Platform) -> None:
    list(link_until_done(other))
    assert linked_models(other) == {"stub"}

    sync_everything(other)
    assert pending_links(other, up_to=len(TASKS)) == len(TASKS)
    list(link_until_done(other))

    assert linked_models(other) == {"other"}


def test_a_linker_that_looked_up_the_old_collections_removes_no_mark_of_the_move(other: Platform) -> None:
    """Its edges would be the old model's, and the marks gone."""
    list(link_until_done(other))
    journal, semantic = read_journal(other), SemanticNeighbours(other)
    index = IndexWait(other, semantic, lambda: False)
    with sole_linker(other) as session, Prefetch(other, semantic) as prefetch:
        assert session is not None
        before = linker_module._Linker(other, session, journal, semantic, prefetch, index)
        sync_everything(other)
        marks = pending_links(other, up_to=1_000)

        for work in (before.changes, lambda: list(before.lists())):
            with pytest.raises(linker_module._Superseded):
                work()

    assert pending_links(other, up_to=1_000) == marks
    list(link_until_done(other))
    assert linked_models(other) == {"other"}


def test_a_move_right_after_the_linker_looked_collections_up_is_noticed(
    other: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(link_until_done(other))
    put_tasks(other, {"new": "Order hinges"})
    send_looks(other, "new")
    drain_all(other)
    looked_up = []

    def look_up_and_be_superseded(platform: Platform) -> SemanticNeighbours:
        semantic = SemanticNeighbours(platform)
        looked_up.append(semantic.profile.name)
        if len(looked_up) == 1:
            sync_everything(other)
        return semantic

    monkeypatch.setattr(linker_module, "SemanticNeighbours", look_up_and_be_superseded)
    list(link_until_done(other))

    assert looked_up == ["stub", "other"]
    assert linked_models(other) == {"other"}


def linked_models(platform: Platform) -> set[str]:
    found = rows(
        platform,
        "SELECT DISTINCT metadata->>'model' FROM relationships WHERE relationship_type = 'semantic_similarity'",
    )
    return {row[0] for row in found}


def test_while_it_builds_neighbours_are_those_of_the_old_model_and_searches_go_to_it(other: Platform) -> None:
    begin_building(other)
    put_tasks(other, {"new": "Order hinges"})
    send_looks(other, "new")
    drain_all(other)

    assert SemanticNeighbours(other).collections == [OLD, "wiki_pages__stub_16", "memory_nodes__stub_16"]
    list(link_until_done(other))
    assert linked_models(other) == {"stub"}
    best = search(other, "Order hinges", by="meaning").results[0]
    assert (best.ref.id, round(best.score, 3)) == ("new", 1)


def test_a_question_is_embedded_by_the_model_of_the_collection_that_serves(
    filled: Platform, make_platform: Make
) -> None:
    with OpenAIStub(dimension=8) as smaller:
        own = make_platform(
            embedding_model="other",
            embedding_dimension=8,
            openai_base_url=smaller.base_url,
            previous_base_url=filled.settings.openai_base_url,
            **PREVIOUS,
        )
        for step in (lambda: None, lambda: begin_building(own), lambda: sync_all(own), lambda: sync_everything(own)):
            step()
            best = search(own, TASKS["t07"], by="meaning").results[0]
            assert (best.ref.id, round(best.score, 3)) == ("t07", 1)
        assert own.qdrant.alias_target("kanban_tasks") == "kanban_tasks__other_8"
        assert smaller.stats()["texts"] == len(TASKS) + 2  # one of them a question


def test_another_dimension_of_the_same_model_is_a_change_too(
    filled: Platform, make_platform: Make, stub: OpenAIStub
) -> None:
    with OpenAIStub(dimension=8) as smaller:
        own = make_platform(
            embedding_dimension=8,
            openai_base_url=smaller.base_url,
            previous_base_url=stub.base_url,
            **PREVIOUS,
        )
        sync_everything(own)

        assert own.qdrant.alias_target("kanban_tasks") == "kanban_tasks__stub_8"
        assert {len(point.vector) for point in points(own).values()} == {8}


def test_an_event_before_any_full_sync_reaches_the_old_collection(other: Platform) -> None:
    put_tasks(other, {"t00": "Changed before"})
    send_looks(other, "t00")
    drain_all(other)

    assert physical(other) >= {OLD}
    assert NEW not in physical(other)
    assert_points_are(other, TASKS | {"t00": "Changed before"})


def test_events_during_the_build_land_in_both_collections(other: Platform, stub: OpenAIStub) -> None:
    begin_building(other)
    built = set(texts_in(other, NEW))
    gone = sorted(built)[0]
    put_tasks(other, {"t01": "Changed meanwhile", "new": "Made meanwhile"})
    remove(other, "tasks", gone)
    send_looks(other, "t01", "new", gone)
    stub.reset_stats()
    drain_all(other)

    changed = hashes(other, ["t01", "new"])
    for collection in (OLD, NEW):
        held = texts_in(other, collection)
        assert changed.items() <= held.items()
        assert gone not in held
    assert stub.stats()["texts"] == 4
    assert not any(row["dirty"] for row in ledger(other).values())

    sync_everything(other)
    left = {entity_id: text for entity_id, text in TASKS.items() if entity_id != gone}
    assert_points_are(other, left | {"t01": "Changed meanwhile", "new": "Made meanwhile"})


def test_without_the_model_before_the_old_collection_is_frozen_and_status_says_so(
    filled: Platform, make_platform: Make
) -> None:
    own = make_platform(embedding_model="other")
    put_tasks(own, {"t01": "Changed meanwhile"})
    with pytest.raises(CollectionMismatch, match=r"nothing was written.*EMBEDDING_PREVIOUS_MODEL=stub"):
        Indexer(own, "task").run([Wanted("t01")])
    begin_building(own)
    Indexer(own, "task").run([Wanted("t01")])

    changed = hashes(own, ["t01"])
    assert texts_in(own, NEW)["t01"] == changed["t01"]
    assert texts_in(own, OLD)["t01"] != changed["t01"]
    assert any("frozen" in line and OLD in line and "EMBEDDING_PREVIOUS_MODEL" in line for line in pending(own).lines())
    with pytest.raises(CollectionMismatch, match="EMBEDDING_PREVIOUS_MODEL=stub"):
        search(own, "gate", by="meaning")

    sync_everything(own)
    assert_points_are(own, TASKS | {"t01": "Changed meanwhile"})
    assert search(own, "Changed meanwhile", by="meaning").results[0].ref.id == "t01"


def test_status_reports_how_far_the_build_is(other: Platform) -> None:
    assert describe_model_change(other) == []
    begin_building(other)
    left = len(TASKS) - len(texts_in(other, NEW))

    assert (
        f"collection kanban_tasks: {NEW} for other is being built: {left} of 40 entities to go"
        in describe_model_change(other)
    )
    assert not any("frozen" in line for line in describe_model_change(other))

    sync_everything(other)
    assert f"collection kanban_tasks: {OLD}, which served before, is kept for a day" in describe_model_change(other)


def test_a_model_set_back_during_the_build_gives_it_up_and_catches_up_what_was_frozen(
    filled: Platform, make_platform: Make, stub: OpenAIStub
) -> None:
    own = make_platform(embedding_model="other")
    begin_building(own)
    put_tasks(own, {"t01": "Changed meanwhile"})
    remove(own, "tasks", "t02")
    Indexer(own, "task").run([Wanted("t01"), Wanted("t02")])
    stub.reset_stats()

    sync_everything(filled)

    left = {entity_id: text for entity_id, text in TASKS.items() if entity_id != "t02"}
    assert_points_are(filled, left | {"t01": "Changed meanwhile"})
    assert stub.stats()["texts"] == 1
    assert NEW not in physical(filled)
    assert describe_model_change(filled) == []


def test_a_process_that_knows_only_the_old_model_leaves_what_it_writes_for_the_new_one(
    filled: Platform, other: Platform
) -> None:
    """As while a new configuration is rolled out."""
    begin_building(other)
    put_tasks(filled, {"t01": "Changed meanwhile"})
    Indexer(filled, "task").run([Wanted("t01")])
    assert texts_in(filled, OLD)["t01"] == hashes(filled, ["t01"])["t01"]

    sync_everything(other)

    assert_points_are(other, TASKS | {"t01": "Changed meanwhile"})


def test_going_back_after_the_move_embeds_only_what_changed_meanwhile(
    filled: Platform, other: Platform, stub: OpenAIStub
) -> None:
    long = " ".join(f"Sentence number {n} of a long page stands here." for n in range(400))
    put(filled, "tasks", id="long", title="Long", description=long)
    sync_everything(filled)
    sync_everything(other)
    put_tasks(other, {"t01": "Changed meanwhile"})
    put(other, "tasks", id="long", title="Short now", description="")
    remove(other, "tasks", "t02")
    sync_everything(other)
    stub.reset_stats()

    sync_everything(filled)

    assert filled.qdrant.alias_target("kanban_tasks") == OLD
    left = {entity_id: text for entity_id, text in TASKS.items() if entity_id != "t02"}
    assert_points_are(filled, left | {"t01": "Changed meanwhile", "long": "Short now"})
    assert stub.stats()["texts"] == 2


def test_the_old_collections_go_with_the_first_full_sync_a_day_after_the_move(other: Platform) -> None:
    sync_everything(other)
    sync_everything(other)
    assert OLD in physical(other)
    with other.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.collection_changes SET moved_at = moved_at - interval '25 hours'")

    sync_all(other)

    assert not {name for name in physical(other) if "__stub_" in name}
    assert describe_model_change(other) == []
    assert rows(other, "SELECT count(*) FROM {schema}.embedded WHERE collection = %s", OLD) == [(0,)]
    assert_points_are(other, TASKS)


def test_a_third_model_during_the_build_of_the_second_takes_its_place(other: Platform, make_platform: Make) -> None:
    begin_building(other)
    third = make_platform(embedding_model="third", **PREVIOUS)

    sync_everything(third)

    assert models_in(third) == {"third"}
    assert NEW not in physical(third)
    assert_points_are(third, TASKS)


@pytest.mark.parametrize("saved", [0, 1, 2, 5, 6])
def test_a_change_of_aliases_of_which_qdrant_saved_a_part_is_finished_by_the_first_that_looks(
    other: Platform, saved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real Qdrant saves the actions of one request one by one, so that a crash can leave some of them undone."""
    real = QdrantClient.update_collection_aliases
    asked: list[int] = []

    def partly(self: QdrantClient, operations: list[Any]) -> bool:
        asked.append(len(operations))
        if saved:
            real(self, operations[:saved])
        raise ResponseHandlingException(ConnectionError("crashed"))

    sync_all(other)
    monkeypatch.setattr(QdrantClient, "update_collection_aliases", partly)
    with pytest.raises(StoreUnavailable):
        sync_all(other, "page")
    assert asked
    monkeypatch.setattr(QdrantClient, "update_collection_aliases", real)

    assert search(other, TASKS["t07"], by="meaning").results[0].ref.id == "t07"

    assert {change.state for change in read_journal(other)} == {"moved"}
    assert set(other.qdrant.aliases()) == {"kanban_tasks", "wiki_pages", "memory_nodes"}
    assert models_in(other) == models_in(other, "wiki_pages") == {"other"}
    assert_points_are(other, TASKS)


@pytest.fixture
def plain(platform: Platform) -> Platform:
    """As `filled`, on a collection that bears the plain name, as a site had it before."""
    with qdrant(platform) as client:
        client.create_collection("kanban_tasks", models.VectorParams(size=16, distance=models.Distance.COSINE))
    put_tasks(platform, TASKS)
    sync_everything(platform)
    return platform


def test_a_collection_of_the_plain_name_is_replaced_by_its_alias(plain: Platform, make_platform: Make) -> None:
    own = make_platform(embedding_model="other", **PREVIOUS)
    assert own.qdrant.alias_target("kanban_tasks") is None
    begin_building(own)
    assert search(own, TASKS["t07"], by="meaning").results[0].ref.id == "t07"

    sync_everything(own)

    assert own.qdrant.alias_target("kanban_tasks") == NEW
    assert "kanban_tasks" not in physical(own)
    assert_points_are(own, TASKS)


def test_a_batch_that_was_embedded_for_the_plain_collection_is_not_written_to_its_successor(
    plain: Platform, make_platform: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_platform(embedding_model="other", **PREVIOUS)
    put_tasks(plain, {"late": "Embedded by the old model"})
    embed = type(plain.embedder).embed

    def move_meanwhile(self: Any, texts: Any, **stopping: Any) -> Any:
        monkeypatch.undo()
        sync_everything(own)
        assert own.qdrant.alias_target("kanban_tasks") == NEW
        return embed(self, texts, **stopping)

    monkeypatch.setattr(type(plain.embedder), "embed", move_meanwhile)
    report = Indexer(plain, "task").run([Wanted("late")])

    assert report.superseded == {"late"}
    assert models_in(own) == {"other"}
    assert_points_are(own, TASKS | {"late": "Embedded by the old model"})


def test_points_that_the_new_collection_lost_hold_up_the_move_and_are_written_again(
    other: Platform, stub: OpenAIStub
) -> None:
    sync_all(other)
    lost = [str(point_id(EntityRef("task", entity_id))) for entity_id in ("t03", "t04")]
    with qdrant(other) as client:
        client.delete(NEW, models.PointIdsList(points=list(lost)), wait=True)
        client.set_payload(NEW, {Key.TEXT_HASH: "wrong"}, [str(point_id(EntityRef("task", "t05")))], wait=True)
    stub.reset_stats()
    sync_all(other, "page")
    assert models_in(other) == {"stub"}

    sync_all(other)

    assert models_in(other) == {"other"}
    assert_points_are(other, TASKS)
    assert stub.stats()["texts"] == 1 + 3


def test_one_entity_that_the_new_model_refuses_does_not_hold_up_the_move_but_many_do(
    filled: Platform, other: Platform, stub: OpenAIStub
) -> None:
    put_tasks(other, {f"bad{n}": f"REFUSE-ME {n}" for n in range(12)})
    put(other, "tasks", id="empty", title="")
    sync_everything(other)
    assert models_in(other) == {"stub"}
    assert len(dead_letters(other)) == 12

    put_tasks(other, {f"bad{n}": f"Accepted {n}" for n in range(1, 12)})
    sync_everything(other)

    assert models_in(other) == {"other"}
    assert dead_letters(other) == {"bad0": "input_refused"}


def test_a_type_that_had_no_collection_is_built_with_the_others(filled: Platform, other: Platform) -> None:
    begin_building(other)
    send(other, ("mcp.memory.node.stored", {"memoryId": "m", "content": "Said meanwhile"}))
    drain_all(other)

    sync_everything(other)

    assert models_in(other, "memory_nodes") == {"other"}
    assert_points_are(other, {"m": "Said meanwhile"}, "memory")


# Killed by SIGKILL, it goes on.

_DIES = """
import os, signal, sys
from mcp_assets.settings import load_settings
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.collections import model_change
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.platform import Platform

where = sys.argv[1]
writes = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dies(name, before=False, after=lambda *args, **kwargs: True):
    real = getattr(Qdrant, name)
    def call(self, *args, **kwargs):
        if before:
            die()
        answer = real(self, *args, **kwargs)
        if after(*args, **kwargs):
            die()
        return answer
    setattr(Qdrant, name, call)

def third_to_the_new(collection, **written):
    global writes
    writes += collection == "kanban_tasks__other_16"
    return writes == 3

if where == "building":
    dies("write", after=third_to_the_new)
elif where == "begun":
    model_change.make_building_collection = lambda *args, **kwargs: die()
elif where == "moving":
    model_change.move_aliases = lambda *args: die()
elif where == "plain collection deleted":
    dies("move_aliases", before=True)
elif where == "aliases moved":
    dies("move_aliases")
platform = Platform(load_settings())
for entity_type in platform.settings.entity_types:
    for _ in full_sync(platform, entity_type, range(platform.settings.shards)):
        pass
"""


@pytest.mark.parametrize("where", ["begun", "building", "moving", "plain collection deleted", "aliases moved"])
def test_a_change_of_model_that_was_killed_goes_on_and_embeds_nothing_twice(
    plain: Platform, make_platform: Make, stub: OpenAIStub, where: str
) -> None:
    stub.reset_stats()
    changes = {"embedding_model": "other", "batch_size": 5, "embedding_concurrency": 1, **PREVIOUS}
    own = make_platform(**changes)
    killed = subprocess.run([sys.executable, "-c", _DIES, where], env=environment(own), capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    embedded = stub.stats()["texts"]

    best = search(own, TASKS["t07"], by="meaning").results[0]
    assert (best.ref.id, round(best.score, 3)) == ("t07", 1)
    moved = where not in ("begun", "building")
    assert models_in(own) == ({"other"} if moved else {"stub"})
    put_tasks(own, {"t01": "Changed since"})
    send_looks(own, "t01")
    drain_all(own)
    sync_everything(own)

    assert models_in(own) == {"other"}
    assert_points_are(own, TASKS | {"t01": "Changed since"})
    assert pending_links(own, up_to=1)
    again = stub.stats()["texts"] - len(TASKS) - 1  # the question
    # The event's, for one or both collections; in mid-build also what the batches in flight had.
    assert again <= 2 + (2 * 5 if where == "building" else 0), (embedded, again)


def environment(platform: Platform) -> dict[str, str]:
    """The platform's settings, for a process of its own."""
    settings = platform.settings
    given = {
        "database_url": settings.require_database_url(),
        "nats_url": settings.require_nats_url(),
        "qdrant_url": settings.require_qdrant_url(),
        "qdrant_api_key": key_in(settings),
        "openai_base_url": settings.openai_base_url or "",
        **{
            name: str(getattr(settings, name))
            for name in ("embedding_model", "embedding_dimension", "batch_size", "embedding_concurrency", *PREVIOUS)
        },
    }
    return {**os.environ, **{variable_of(name): value for name, value in given.items()}}
