"""The indexer (I3, I5, I6, I7, I10): points are the living entities, at no more embedding than what changed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from qdrant_client import QdrantClient, models

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.entities.points import RESERVED_KEYS, Key, chunk_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index.batch_report import BatchReport
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.sync.index.point_writer import PointWriter
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    entity_points,
    inbox,
    is_vector_of,
    ledger,
    points,
    put,
    put_tasks,
    remove,
    rows,
    send,
    send_looks,
    sync_all,
    take_in,
)
from mcp_assets_tests.openai_stub import Kind, OpenAIStub

LONG = " ".join(f"Sentence number {n} of a long page stands here." for n in range(400))
"""19,000 characters: more than an entity's own point embeds."""


class Killed(BaseException):
    """Stands for a process that dies: nothing in the product may catch it."""


@contextmanager
def dies_after_write(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The block's first write to Qdrant is applied, and the process dies before anything is committed."""
    real = Qdrant.write

    def write(self: Qdrant, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Qdrant, "write", write)
        yield


def look(platform: Platform, *ids: str, entity_type: str = "task", force: bool = False) -> BatchReport:
    return Indexer(platform, entity_type).run([Wanted(entity_id) for entity_id in ids], force=force)


def chunks_of(platform: Platform, entity_id: str, entity_type: str = "task") -> dict[int, Any]:
    """The chunk points of an entity, by number."""
    found = {}
    own = point_id(EntityRef(entity_type, entity_id))
    collection = {"task": "kanban_tasks", "page": "wiki_pages"}[entity_type]
    for identifier, point in points(platform, collection).items():
        if point.payload[Key.KIND] == "chunk" and point.payload["entity_id"] == entity_id:
            assert identifier == str(chunk_id(own, point.payload[Key.CHUNK]))
            found[point.payload[Key.CHUNK]] = point
    return found


# Points are the living entities (I3).


def test_points_are_exactly_the_living_entities_of_each_type(platform: Platform) -> None:
    tasks = {f"t{n}": f"Task {n} about gate {n % 7}" for n in range(130)}
    put_tasks(platform, tasks)
    for n in range(5):
        put(platform, "wiki_pages", id=f"p{n}", title=f"Page {n}", content=f"Words of page {n}.")
        put(platform, "memory_nodes", id=f"m{n}", content=f"What was said on day {n}.")
    put(platform, "tasks", id="archived", title="Done long ago", archived_at="2026-01-01")
    send(
        platform,
        *(("mcp.task.created", {"taskId": entity_id}) for entity_id in [*tasks, "archived"]),
        *(("mcp.wiki.page.created", {"pageId": f"p{n}"}) for n in range(5)),
        *(("mcp.memory.node.stored", {"memoryId": f"m{n}"}) for n in range(5)),
    )

    drain_all(platform)

    assert_points_are(platform, tasks)
    assert_points_are(platform, {f"p{n}": f"Page {n} Words of page {n}." for n in range(5)}, "page")
    assert_points_are(platform, {f"m{n}": f"What was said on day {n}." for n in range(5)}, "memory")


def test_the_payload_is_the_metadata_flat_and_our_own_keys_which_win(platform: Platform) -> None:
    put(
        platform,
        "tasks",
        id="a",
        title="Mend the gate",
        status="open",
        tags=["garden", "wood"],
        due_date="2026-05-01",
        metadata={"story": {"points": 3}, "status": "the column wins", **dict.fromkeys(RESERVED_KEYS, "mine")},
    )
    look(platform, "a")

    payload = entity_points(platform)["a"].payload
    row = ledger(platform)["a"]
    assert payload["tags"] == ["garden", "wood"]
    assert payload["status"] == "open"
    assert payload["story"] == {"points": 3}
    assert payload["due_date"] == "2026-05-01"
    assert payload["title"] == "Mend the gate"
    assert payload[Key.KIND] == "entity"
    assert (payload["entity_type"], payload["entity_id"]) == ("task", "a")
    assert (payload[Key.TEXT_HASH], payload[Key.STATE_HASH]) == (row["text_hash"], row["state_hash"])
    assert payload[Key.MODEL] == "stub"
    assert -1 <= payload[Key.VECTOR_CHECK] <= 1
    assert payload[Key.SLOT] == EntityRef("task", "a").slot
    assert not {Key.CHUNK, Key.START, Key.END} & payload.keys()


def test_an_update_replaces_the_point_and_a_delete_removes_it(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate", "b": "Paint it"})
    look(platform, "a", "b")
    put_tasks(platform, {"a": "Mend the fence"})
    look(platform, "a", "b")
    assert_points_are(platform, {"a": "Mend the fence", "b": "Paint it"})

    remove(platform, "tasks", "b")
    report = look(platform, "b")
    assert_points_are(platform, {"a": "Mend the fence"})
    assert sum(counts.deleted for counts in report.shards.values()) == 1


def test_an_entity_without_any_text_has_no_point_and_gets_one_with_its_first_words(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="  ", description=" \n\t ")
    report = look(platform, "a")
    assert sum(counts.empty for counts in report.shards.values()) == 1
    assert points(platform) == {}
    assert not ledger(platform)["a"]["dirty"]
    assert dead_letters(platform) == {}

    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")
    assert_points_are(platform, {"a": "Mend the gate"})
    put_tasks(platform, {"a": ""})
    look(platform, "a")
    assert points(platform) == {}


def test_an_entity_deleted_and_restored_has_its_point_again(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")
    remove(platform, "tasks", "a")
    look(platform, "a")
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")

    assert_points_are(platform, {"a": "Mend the gate"})


def test_the_same_id_in_two_types_makes_two_points(platform: Platform) -> None:
    put_tasks(platform, {"1": "A task"})
    put(platform, "wiki_pages", id="1", title="A page")
    look(platform, "1")
    look(platform, "1", entity_type="page")

    assert_points_are(platform, {"1": "A task"})
    assert_points_are(platform, {"1": "A page"}, "page")


# No more is embedded than what changed (I5).


def test_unchanged_text_is_never_embedded_again(platform: Platform, stub: OpenAIStub) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(20)}
    put_tasks(platform, texts)
    look(platform, *texts)
    assert stub.stats()["texts"] == 20

    look(platform, *texts)
    put_tasks(platform, {"t0": "  Task   0 "})
    send_looks(platform, *texts, *texts)
    drain_all(platform)
    sync_all(platform)
    put_tasks(platform, {"t1": "Task 1, changed"})
    look(platform, *texts)

    assert stub.stats()["texts"] == 21
    assert_points_are(platform, texts | {"t1": "Task 1, changed"})


def test_a_change_of_metadata_alone_replaces_the_payload_without_embedding(
    platform: Platform, stub: OpenAIStub
) -> None:
    put(platform, "tasks", id="a", title="Mend the gate", status="open", metadata={"old": 1, "both": 1})
    look(platform, "a")
    stub.reset_stats()
    put(platform, "tasks", id="a", title="Mend the gate", status="done", metadata={"new": 2, "both": 2})

    report = look(platform, "a")

    assert stub.stats()["texts"] == 0
    assert sum(counts.updated for counts in report.shards.values()) == 1
    payload = entity_points(platform)["a"].payload
    assert (payload["status"], payload["new"], payload["both"]) == ("done", 2, 2)
    assert "old" not in payload
    assert_points_are(platform, {"a": "Mend the gate"})


def test_a_change_of_metadata_of_a_long_text_replaces_the_payload_of_every_chunk_without_embedding(
    platform: Platform, stub: OpenAIStub
) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG, metadata={"old": 1})
    look(platform, "a")
    before = chunks_of(platform, "a")
    stub.reset_stats()
    put(platform, "tasks", id="a", title="Long", description=LONG, metadata={"new": 2})
    look(platform, "a")

    after = chunks_of(platform, "a")
    assert stub.stats()["texts"] == 0
    assert len(before) > 5
    assert before.keys() == after.keys()
    for number, chunk in after.items():
        assert "old" not in chunk.payload
        assert chunk.payload["new"] == 2
        assert (chunk.payload[Key.START], chunk.payload[Key.END]) == (
            before[number].payload[Key.START],
            before[number].payload[Key.END],
        )
        assert np.array_equal(chunk.vector, before[number].vector)
        assert chunk.payload[Key.VECTOR_CHECK] == before[number].payload[Key.VECTOR_CHECK]


def test_force_embeds_what_is_unchanged(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, {"a": "Mend the gate", "b": "Paint it"})
    look(platform, "a", "b")
    remove(platform, "tasks", "b")
    look(platform, "b")
    stub.reset_stats()

    look(platform, "a", "b", force=True)

    assert stub.stats()["texts"] == 1
    assert_points_are(platform, {"a": "Mend the gate"})


def test_a_text_that_returns_to_what_it_was_before_it_was_indexed_is_not_embedded(
    platform: Platform, stub: OpenAIStub
) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")
    put_tasks(platform, {"a": "Mend the fence"})
    apply(platform, "task", [Wanted("a")])
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")

    assert stub.stats()["texts"] == 1
    assert_points_are(platform, {"a": "Mend the gate"})


# Long texts.


def test_a_long_text_has_chunk_points_over_its_whole_length(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG)
    look(platform, "a")

    built = f"Long\n\n{LONG}"
    chunks = chunks_of(platform, "a")
    assert sorted(chunks) == list(range(len(chunks)))
    reached = 0
    for number in sorted(chunks):
        payload = chunks[number].payload
        assert built[reached : payload[Key.START]].strip() == ""
        reached = payload[Key.END]
        assert is_vector_of(chunks[number], " ".join(built[payload[Key.START] : payload[Key.END]].split()))
        assert payload[Key.TEXT_HASH] == ledger(platform)["a"]["text_hash"]
    assert reached == len(built)
    assert is_vector_of(entity_points(platform)["a"], " ".join(built.split())[:8000].rstrip())


def test_a_text_that_shrinks_loses_its_surplus_chunks(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG)
    look(platform, "a")
    many = len(chunks_of(platform, "a"))
    put(platform, "tasks", id="a", title="Long", description=LONG[: len(LONG) // 2])
    look(platform, "a")
    fewer = chunks_of(platform, "a")
    assert 0 < len(fewer) < many
    assert sorted(fewer) == list(range(len(fewer)))

    put(platform, "tasks", id="a", title="Short", description="now")
    look(platform, "a")
    assert_points_are(platform, {"a": "Short now"})


def test_a_deleted_long_text_takes_its_chunks_with_it(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG)
    put(platform, "tasks", id="b", title="Long too", description=LONG)
    look(platform, "a", "b")
    remove(platform, "tasks", "a")
    look(platform, "a")

    assert {point.payload["entity_id"] for point in points(platform).values()} == {"b"}


def test_no_chunk_stays_behind_of_a_long_text_whose_indexing_died_before_its_commit(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG)
    with dies_after_write(platform, monkeypatch):
        look(platform, "a")
    assert len(chunks_of(platform, "a")) > 5
    put_tasks(platform, {"a": "Long"})
    put(platform, "tasks", id="a", title="Short", description="now")
    look(platform, "a")

    assert_points_are(platform, {"a": "Short now"})


def test_a_shrinking_that_died_before_its_commit_is_done_by_the_next_run(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG)
    look(platform, "a")
    many = len(chunks_of(platform, "a"))
    put(platform, "tasks", id="a", title="Long", description=LONG[:12_000])
    with dies_after_write(platform, monkeypatch):
        look(platform, "a")
    put(platform, "tasks", id="a", title="Long", description=LONG)
    look(platform, "a")
    assert len(chunks_of(platform, "a")) == many
    remove(platform, "tasks", "a")
    with dies_after_write(platform, monkeypatch):
        look(platform, "a")
    look(platform, "a")

    assert points(platform) == {}


def test_what_died_between_qdrants_write_and_the_commit_is_written_again_and_right(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks(platform, {"a": "Mend the gate", "b": "Paint it"})
    look(platform, "a", "b")
    put_tasks(platform, {"a": "Mend the fence"})
    with dies_after_write(platform, monkeypatch):
        look(platform, "a")
    assert ledger(platform)["a"]["dirty"]
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")

    assert_points_are(platform, {"a": "Mend the gate", "b": "Paint it"})


# One bad entity harms no other (I6).


def test_a_refused_entity_is_dead_lettered_its_neighbours_are_indexed_and_its_last_good_point_stays(
    platform: Platform,
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(12)}
    put_tasks(platform, texts)
    look(platform, *texts)
    changed = {entity_id: f"{text}, changed" for entity_id, text in texts.items()}
    put_tasks(platform, changed | {"t5": "REFUSE-ME", "new": "REFUSE-ME too"})
    send_looks(platform, *changed, "new")

    counts = drain_all(platform)

    assert (counts.embedded, counts.failed) == (11, 2)
    assert inbox(platform) == []
    assert dead_letters(platform) == {"t5": "input_refused", "new": "input_refused"}
    errors = rows(platform, "SELECT stage, error FROM {schema}.dead_letters")
    assert all(stage == "embed" and "refused" in error for stage, error in errors)
    stored = entity_points(platform)
    assert "new" not in stored
    assert is_vector_of(stored["t5"], "Task 5")
    assert all(is_vector_of(stored[entity_id], changed[entity_id]) for entity_id in texts if entity_id != "t5")


def test_an_entity_replayed_after_its_cause_is_mended_is_indexed_and_its_dead_letter_resolved(
    platform: Platform, stub: OpenAIStub
) -> None:
    put_tasks(platform, {"a": "REFUSE-ME", "b": "Paint it"})
    look(platform, "a", "b")
    look(platform, "a")
    assert rows(platform, "SELECT attempts FROM {schema}.dead_letters") == [(2,)]

    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")

    assert dead_letters(platform) == {}
    assert_points_are(platform, {"a": "Mend the gate", "b": "Paint it"})


def test_a_dead_letter_of_an_entity_that_is_deleted_is_resolved(platform: Platform) -> None:
    put_tasks(platform, {"a": "REFUSE-ME"})
    look(platform, "a")
    remove(platform, "tasks", "a")
    look(platform, "a")

    assert dead_letters(platform) == {}


def test_a_refused_chunk_refuses_its_entity_and_writes_none_of_its_points(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Long", description=LONG + " REFUSE-ME")
    put_tasks(platform, {"b": "Paint it"})
    look(platform, "a", "b")

    assert dead_letters(platform) == {"a": "input_refused"}
    assert_points_are(platform, {"b": "Paint it"})


@pytest.mark.parametrize(
    ("kind", "error_kind"), [("nan", "not_finite"), ("wrong_dimension", "wrong_dimension"), ("zero", "zero_vector")]
)
def test_a_vector_that_is_unfit_is_never_stored_and_its_neighbours_are_indexed(
    platform: Platform, stub: OpenAIStub, kind: Kind, error_kind: str
) -> None:
    put_tasks(platform, {"a": "Mend the gate", "bad": "Cursed words", "b": "Paint it"})
    stub.add_fault(kind, times=None, contains="Cursed")
    look(platform, "a", "bad", "b")

    assert dead_letters(platform) == {"bad": error_kind}
    assert set(entity_points(platform)) == {"a", "b"}

    stub.clear_faults()
    look(platform, "bad")
    assert_points_are(platform, {"a": "Mend the gate", "bad": "Cursed words", "b": "Paint it"})
    assert dead_letters(platform) == {}


# What else a provider may answer is tested with the embedder itself.
TRANSIENT: list[dict[str, Any]] = [
    {"kind": "rate_limit", "times": 2, "retry_after_s": 0.05},
    {"kind": "server_error", "times": 2},
    {"kind": "drop", "times": 1},
    {"kind": "too_few", "times": 1},
    {"kind": "duplicate_index", "times": 1},
    {"kind": "reordered", "times": None},
    {"kind": "nan", "times": 1},
    {"kind": "wrong_dimension", "times": 1},
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: fault["kind"])
def test_a_provider_that_recovers_leaves_every_point_right_and_no_dead_letter(
    platform: Platform, stub: OpenAIStub, fault: dict[str, Any]
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(40)}
    put_tasks(platform, texts)
    stub.add_fault(**fault)
    look(platform, *texts)

    assert_points_are(platform, texts)
    assert dead_letters(platform) == {}


LASTING: list[dict[str, Any]] = [
    {"kind": "rate_limit", "retry_after_s": 0.01},
    {"kind": "server_error"},
    {"kind": "hang"},
    {"kind": "nan"},
    {"kind": "refuse"},
]


@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault["kind"])
def test_an_outage_of_the_provider_leaves_everything_pending_and_the_next_run_does_it_once(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub, fault: dict[str, Any]
) -> None:
    own = make_platform(embedding_timeout_s=0.3, batch_size=20, drain_linger_s=0)
    texts = {f"t{n}": f"Task {n}" for n in range(40)}
    put_tasks(own, texts | {"kept": "Indexed before"})
    look(own, "kept")
    put_tasks(own, {"kept": "Changed"})
    send_looks(own, *texts, "kept")
    take_in(own)
    stub.add_fault(times=None, **fault)

    with pytest.raises(EmbedderUnavailable):
        list(drain(own, "task", "run"))

    assert len(inbox(own)) == 41
    assert dead_letters(own) == {}
    assert set(entity_points(own)) == {"kept"}
    assert is_vector_of(entity_points(own)["kept"], "Indexed before")

    stub.clear_faults()
    stub.reset_stats()
    drain_all(own)
    assert_points_are(own, texts | {"kept": "Changed"})
    if fault["kind"] != "hang":  # the stub answers those that gave up on it, too
        assert stub.stats()["texts"] == stub.stats()["distinct_texts"] == 41


def test_an_outage_in_the_middle_wastes_no_batch_that_was_committed(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    own = make_platform(batch_size=10, embedding_concurrency=1, drain_linger_s=0)
    texts = {f"t{n:02}": f"Task {n:02}" for n in range(40)}
    put_tasks(own, texts)
    send_looks(own, *texts)
    take_in(own)
    stub.add_fault("insufficient_quota", times=None, contains="Task 25")
    with pytest.raises(EmbedderUnavailable):
        list(drain(own, "task", "run"))
    committed = set(entity_points(own))
    assert committed
    assert "t25" not in committed
    stub.clear_faults()
    drain_all(own)

    assert_points_are(own, texts)
    assert all(stub.times_embedded(texts[entity_id]) == 1 for entity_id in committed)


# A store that is silent is not an empty store (I7, I10).


def test_a_silent_qdrant_is_unavailable_and_the_work_stays(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"a": "Mend the gate", "gone": "Paint it"})
    look(platform, "a", "gone")
    put_tasks(platform, {"a": "Mend the fence"})
    remove(platform, "tasks", "gone")
    send_looks(platform, "a", "gone")
    away = make_platform(qdrant_url="http://127.0.0.1:1", retry_attempts=2, drain_linger_s=0)

    take_in(platform)
    with pytest.raises(StoreUnavailable, match=r"Qdrant does not answer.*QDRANT_URL"):
        list(drain(away, "task", "run"))
    with pytest.raises(StoreUnavailable, match="Qdrant does not answer"):
        list(full_sync(away, "task", range(4)))

    assert sorted(inbox(platform)) == ["a", "gone"]
    assert set(entity_points(platform)) == {"a", "gone"}
    drain_all(platform)
    assert_points_are(platform, {"a": "Mend the fence"})


def test_a_silent_database_is_unavailable_and_deletes_nothing(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")
    away = make_platform(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"), retry_attempts=1
    )

    with pytest.raises(StoreUnavailable, match=r"PostgreSQL does not answer.*DATABASE_URL"):
        list(full_sync(away, "task", range(4)))
    with pytest.raises(StoreUnavailable, match="PostgreSQL does not answer"):
        list(drain(away, "task", "run"))
    with pytest.raises(StoreUnavailable, match="PostgreSQL does not answer"):
        look(away, "a")

    assert_points_are(platform, {"a": "Mend the gate"})


def test_a_claim_whose_connection_dies_while_texts_are_embedded_leaves_its_messages_to_the_next_claim(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    own = make_platform(retry_attempts=1, drain_linger_s=0)
    put_tasks(platform, {"a": "Mend the gate"})
    send_looks(platform, "a")
    take_in(platform)

    def kill_connections() -> None:
        with platform.postgres.session() as session:
            session.execute(
                "SELECT pg_terminate_backend(pid, 10_000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    undo = while_embedding(own, monkeypatch, kill_connections)
    with pytest.raises(StoreUnavailable):
        list(drain(own, "task", "run"))
    undo()

    # Another batch of the same drain may have claimed it meanwhile.
    drain_all(platform)
    assert inbox(platform) == []
    assert_points_are(platform, {"a": "Mend the gate"})
    assert stub.stats()["texts"] == 1


# Collections of another make.


@contextmanager
def qdrant_client(platform: Platform) -> Iterator[QdrantClient]:
    client = qdrant_of(platform.settings)
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize(
    ("changes", "made_for"),
    [
        ({"embedding_dimension": 8}, r"the collection kanban_tasks__stub_16 .*made for .*16 dimensions.*stub with 8"),
        ({"embedding_model": "other"}, r"made for stub with 16 dimensions, the settings ask for other with 16"),
    ],
)
def test_a_collection_made_for_another_model_or_dimension_is_not_written_to(
    platform: Platform, make_platform: Callable[..., Platform], changes: dict[str, Any], made_for: str
) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    look(platform, "a")
    before = points(platform)
    put_tasks(platform, {"a": "Mend the fence", "b": "Paint it"})
    other = make_platform(**changes)

    with pytest.raises(CollectionMismatch, match=made_for) as caught:
        look(other, "a", "b")
    assert "nothing was written" in str(caught.value)
    assert "EMBEDDING_MODEL" in str(caught.value)
    assert "full sync" in str(caught.value)
    after = points(platform)
    assert before.keys() == after.keys()
    assert all(before[key].payload == after[key].payload for key in before)


def test_a_collection_of_another_distance_is_refused(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    with qdrant_client(platform) as client:
        client.create_collection("kanban_tasks", models.VectorParams(size=16, distance=models.Distance.DOT))

    with pytest.raises(CollectionMismatch, match=r"measures Dot.*needs Cosine"):
        look(platform, "a")


def test_a_collection_that_bears_the_plain_name_is_kept(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    with qdrant_client(platform) as client:
        client.create_collection("kanban_tasks", models.VectorParams(size=16, distance=models.Distance.COSINE))
        look(platform, "a")
        assert [entry.name for entry in client.get_collections().collections] == ["kanban_tasks"]

    assert_points_are(platform, {"a": "Mend the gate"})


def test_a_vanished_collection_is_rebuilt_by_a_full_sync_though_no_row_changed(
    platform: Platform, stub: OpenAIStub
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(20)}
    put_tasks(platform, texts)
    sync_all(platform)
    with qdrant_client(platform) as client:
        client.delete_collection("kanban_tasks__stub_16")
    stub.reset_stats()

    sync_all(platform)

    assert_points_are(platform, texts)
    assert stub.stats()["texts"] == 20


def test_after_an_event_brought_a_vanished_collection_back_a_full_sync_brings_the_rest(platform: Platform) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(5)}
    put_tasks(platform, texts)
    sync_all(platform)
    with qdrant_client(platform) as client:
        client.delete_collection("kanban_tasks__stub_16")
    put_tasks(platform, {"t0": "Task 0, changed"})
    look(platform, "t0")
    assert set(entity_points(platform)) == {"t0"}
    sync_all(platform)

    assert_points_are(platform, texts | {"t0": "Task 0, changed"})


@pytest.mark.parametrize("dies_at", ["create_payload_index", "update_collection_aliases"])
def test_a_vanished_collection_is_rebuilt_though_the_process_that_made_it_again_died(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(5)}
    put_tasks(platform, texts)
    sync_all(platform)
    with qdrant_client(platform) as client:
        client.delete_collection("kanban_tasks__stub_16")
    put_tasks(platform, {"t0": "Task 0, changed"})

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(QdrantClient, dies_at, die)
        look(platform, "t0")
    sync_all(platform)

    assert_points_are(platform, texts | {"t0": "Task 0, changed"})


# Appliers that overtake each other (I11).


def while_embedding(platform: Platform, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> Callable[[], None]:
    """The next call of the platform's embedder has its answer when `act` runs, before it returns."""
    real = platform.embedder.embed
    done: list[bool] = []

    def embed(texts: Any, **options: Any) -> Any:
        result = real(texts, **options)
        if not done:
            done.append(True)
            act()
        return result

    monkeypatch.setattr(platform.embedder, "embed", embed)
    return monkeypatch.undo


def test_a_state_superseded_while_it_was_embedded_is_not_written_over_the_newer_one(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_platform()
    put_tasks(platform, {"a": "Old words", "b": "Paint it"})

    def overtake() -> None:
        put_tasks(other, {"a": "New words"})
        look(other, "a")

    undo = while_embedding(platform, monkeypatch, overtake)
    report = look(platform, "a", "b")
    undo()

    assert report.superseded == {"a"}
    assert_points_are(platform, {"a": "New words", "b": "Paint it"})


def test_an_entity_deleted_while_it_was_embedded_has_no_point(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_platform()
    put_tasks(platform, {"a": "Old words"})

    def overtake() -> None:
        remove(other, "tasks", "a")
        look(other, "a")

    undo = while_embedding(platform, monkeypatch, overtake)
    look(platform, "a")
    undo()

    assert points(platform) == {}


def test_a_full_sync_goes_on_until_what_was_superseded_is_written_too(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = make_platform(shards=1), make_platform()
    put_tasks(platform, {"a": "Old words", "b": "Paint it"})

    def overtake() -> None:
        put_tasks(other, {"a": "New words"})
        apply(other, "task", [Wanted("a")])

    undo = while_embedding(own, monkeypatch, overtake)
    sync_all(own)
    undo()

    assert_points_are(platform, {"a": "New words", "b": "Paint it"})


def test_a_payload_is_not_put_on_the_vector_of_another_text(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text went and came back meanwhile: the point bears another text's vector when the payload is written."""
    other = make_platform()
    put(platform, "tasks", id="a", title="First words", metadata={"n": 1})
    look(platform, "a")
    put(platform, "tasks", id="a", title="First words", metadata={"n": 2})
    put_tasks(platform, {"b": "Takes long to embed"})

    def overtake() -> None:
        put(other, "tasks", id="a", title="Other words", metadata={"n": 2})
        look(other, "a")
        put(other, "tasks", id="a", title="First words", metadata={"n": 2})
        apply(other, "task", [Wanted("a")])  # and that applier dies before it embeds

    undo = while_embedding(platform, monkeypatch, overtake)
    look(platform, "a", "b")
    undo()
    sync_all(platform)

    assert_points_are(platform, {"a": "First words", "b": "Takes long to embed"})


def test_a_payload_is_not_written_to_a_point_that_went_with_its_collection(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_platform()
    put(platform, "tasks", id="a", title="First words", metadata={"n": 1})
    look(platform, "a")
    put(platform, "tasks", id="a", title="First words", metadata={"n": 2})
    put_tasks(platform, {"b": "Takes long to embed"})

    def overtake() -> None:
        with qdrant_client(other) as client:
            client.delete_collection("kanban_tasks__stub_16")
        Indexer(other, "task").ensure_collection()

    undo = while_embedding(platform, monkeypatch, overtake)
    look(platform, "a", "b")
    undo()
    sync_all(platform)

    assert_points_are(platform, {"a": "First words", "b": "Takes long to embed"})


def test_more_batches_in_flight_than_database_connections_do_not_starve_each_other(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    own = make_platform(batch_size=1, embedding_concurrency=24, drain_linger_s=0)
    texts = {f"t{n}": f"Task {n}" for n in range(60)}
    put_tasks(own, texts)
    send_looks(own, *texts)
    take_in(own)
    stub.add_fault("latency", times=None, latency_s=0.05)

    drain_all(own)

    assert_points_are(own, texts)


def test_appliers_at_once_leave_every_point_at_the_last_write(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    ids = [f"t{n}" for n in range(4)]
    errors: list[BaseException] = []

    def write_and_look(own: Platform, name: str) -> None:
        try:
            for turn in range(25):
                entity_id = ids[(turn * 7 + ord(name)) % len(ids)]
                if turn % 6 == 5:
                    remove(own, "tasks", entity_id)
                else:
                    put(
                        own,
                        "tasks",
                        id=entity_id,
                        title=f"{name} {turn % 3}",
                        description=LONG if turn % 8 == 0 else "",
                    )
                wanted = [entity_id]
                while wanted:
                    wanted = list(look(own, *wanted).superseded)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write_and_look, args=(make_platform(), name)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    living = rows(platform, "SELECT id, title, description FROM tasks")
    stored = entity_points(platform)
    assert set(stored) == {row[0] for row in living}
    for entity_id, title, description in living:
        text = " ".join(f"{title} {description}".split())[:8000].rstrip()
        assert is_vector_of(stored[entity_id], text)
        assert len(chunks_of(platform, entity_id)) == ledger(platform)[entity_id]["chunk_bound"]
        assert bool(chunks_of(platform, entity_id)) == bool(description)
    assert not any(row["dirty"] for row in ledger(platform).values())


def test_a_batch_that_dies_behind_another_which_wrote_the_same_leaves_the_entity_to_be_looked_at_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks(platform, {"t": "Old text"})
    sync_all(platform)
    put_tasks(platform, {"t": "New text"})
    forget = PointWriter._forget_replaced

    def behind_another(self: PointWriter, *args: Any) -> None:
        # Two messages about one entity, in two batches of one drain: the other is done, this one dies.
        monkeypatch.setattr(PointWriter, "_forget_replaced", forget)
        assert look(platform, "t").shards
        forget(self, *args)
        raise Killed

    monkeypatch.setattr(PointWriter, "_forget_replaced", behind_another)
    with pytest.raises(Killed):
        look(platform, "t")

    look(platform, "t")

    assert_points_are(platform, {"t": "New text"})
    held = rows(platform, "SELECT text_hash FROM {schema}.embedded WHERE entity_id = 't'")
    assert held == [(ledger(platform)["t"]["text_hash"],)]
