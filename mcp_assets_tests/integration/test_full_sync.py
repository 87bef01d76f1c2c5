"""Full sync: what differs between source and ledger, and what Qdrant lacks, is done once, partition by partition."""

import threading
from collections.abc import Callable

import pytest

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.entities.refs import shard_of, slot_of
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.index.full_sync import Progress, Stages, count_differing, full_sync
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    entity_points,
    is_vector_of,
    ledger,
    points,
    put,
    put_tasks,
    remove,
    rows,
    send,
    summed,
    sync_all,
)
from mcp_assets_tests.openai_stub import OpenAIStub

TASKS = {f"t{n:03}": f"Task {n:03}" for n in range(100)}

LONG = " ".join(f"Sentence number {n} of a long page stands here." for n in range(400))


def shard(entity_id: str, shards: int = 4) -> int:
    return shard_of(slot_of(entity_id), shards)


def in_shards(texts: dict[str, str], *shards: int) -> dict[str, str]:
    return {entity_id: text for entity_id, text in texts.items() if shard(entity_id) in shards}


def test_a_sync_without_change_scans_everything_and_embeds_nothing(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, TASKS)
    first = sync_all(platform)
    assert (first.scanned, first.embedded, first.unchanged) == (100, 100, 0)
    assert count_differing(platform) == 0
    stub.reset_stats()

    second = sync_all(platform)

    assert (second.scanned, second.unchanged, second.embedded, second.deleted) == (100, 100, 0, 0)
    assert stub.stats()["requests"] == 0
    assert_points_are(platform, TASKS)


def test_changed_new_and_gone_rows_are_found_and_nothing_else_is_embedded(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    stub.reset_stats()
    put_tasks(platform, {"t001": "Changed", "new": "New"})
    put(platform, "tasks", id="t002", title="Task 002", status="done")
    put(platform, "tasks", id="t003", title="Task 003", archived_at="2026-01-01")
    remove(platform, "tasks", "t004")
    assert count_differing(platform) == 5

    counts = sync_all(platform)

    assert (counts.embedded, counts.updated, counts.deleted, counts.unchanged) == (2, 1, 2, 96)
    assert counts.scanned == 101
    assert stub.stats()["texts"] == 2
    left = {entity_id: text for entity_id, text in TASKS.items() if entity_id not in {"t003", "t004"}}
    assert_points_are(platform, left | {"t001": "Changed", "new": "New"})


def test_an_entity_that_lives_by_its_events_is_never_deleted_by_a_sync(platform: Platform) -> None:
    send(platform, ("mcp.task.created", {"taskId": "event", "title": "No row"}))
    drain_all(platform)
    assert count_differing(platform) == 0

    for force in (False, True):
        counts = sync_all(platform, force=force)
        assert counts.deleted == 0
    assert_points_are(platform, {"event": "No row"})
    assert counts.embedded == 1


def test_each_shard_is_complete_once_in_order_with_its_own_counts(platform: Platform) -> None:
    put_tasks(platform, TASKS)

    news = list(full_sync(platform, "task", range(4)))

    complete = [progress for progress in news if progress.complete]
    assert [progress.shard for progress in complete] == [0, 1, 2, 3]
    assert [progress.counts.embedded for progress in complete] == [len(in_shards(TASKS, n)) for n in range(4)]
    assert [progress.differing for progress in complete] == [progress.counts.embedded for progress in complete]
    for number in range(4):
        own = [progress for progress in news if progress.shard == number]
        assert own[-1].complete
        assert sum(progress.counts.embedded for progress in own[:-1]) == own[-1].counts.embedded


def test_a_range_of_shards_touches_no_other_shard(platform: Platform) -> None:
    put_tasks(platform, TASKS)

    news = list(full_sync(platform, "task", [1, 2]))

    assert [progress.shard for progress in news if progress.complete] == [1, 2]
    assert set(entity_points(platform)) == set(in_shards(TASKS, 1, 2))
    assert set(ledger(platform)) == set(in_shards(TASKS, 1, 2))


def test_an_empty_shard_is_complete_too(platform: Platform) -> None:
    put_tasks(platform, in_shards(TASKS, 3))

    complete = [progress for progress in full_sync(platform, "task", range(4)) if progress.complete]

    assert [progress.shard for progress in complete] == [0, 1, 2, 3]
    assert [progress.counts.scanned for progress in complete] == [0, 0, 0, len(in_shards(TASKS, 3))]


def test_an_error_in_mid_range_leaves_complete_what_was_and_a_second_call_does_the_rest(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    own = make_platform(batch_size=5, embedding_concurrency=1)
    put_tasks(own, TASKS)
    poison = sorted(in_shards(TASKS, 2))[0]
    stub.add_fault("insufficient_quota", times=None, contains=TASKS[poison])

    complete: list[Progress] = []
    with pytest.raises(EmbedderUnavailable):
        complete.extend(progress for progress in full_sync(own, "task", range(4)) if progress.complete)

    assert [progress.shard for progress in complete] == [0, 1]
    stored = entity_points(own)
    assert in_shards(TASKS, 0, 1).items() <= {entity_id: TASKS[entity_id] for entity_id in stored}.items()
    assert poison not in stored
    stub.clear_faults()
    stub.reset_stats()

    again = [progress for progress in full_sync(own, "task", range(4)) if progress.complete]

    assert [progress.shard for progress in again] == [0, 1, 2, 3]
    assert [progress.differing for progress in again][:2] == [0, 0]
    assert stub.stats()["texts"] == len(TASKS) - len(stored)
    assert_points_are(own, TASKS)


def test_a_refused_entity_is_tried_again_by_each_sync_and_does_not_hold_up_its_shard(platform: Platform) -> None:
    put_tasks(platform, TASKS | {"bad": "REFUSE-ME"})

    counts = sync_all(platform)
    assert (counts.embedded, counts.failed) == (100, 1)
    assert sync_all(platform).failed == 1
    assert dead_letters(platform) == {"bad": "input_refused"}

    put_tasks(platform, {"bad": "Good now"})
    assert sync_all(platform).embedded == 1
    assert dead_letters(platform) == {}
    assert_points_are(platform, TASKS | {"bad": "Good now"})


def test_another_number_of_shards_embeds_nothing_again(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    stub.reset_stats()

    counts = sync_all(make_platform(shards=7))

    assert (counts.scanned, counts.unchanged) == (100, 100)
    assert stub.stats()["requests"] == 0


def test_another_chunk_size_prepares_every_text_and_embeds_long_ones_only(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    put_tasks(platform, {"short": "Mend the gate"})
    put(platform, "tasks", id="long", title="Long", description=LONG)
    send(platform, ("mcp.task.created", {"taskId": "event", "title": "By event", "content": LONG}))
    drain_all(platform)
    sync_all(platform)
    coarse = len(points(platform))
    stub.reset_stats()
    finer = make_platform(chunk_size=1000, chunk_overlap=100)

    counts = sync_all(finer)

    assert (counts.embedded, counts.unchanged) == (2, 1)
    assert stub.times_embedded("Mend the gate") == 0
    assert len(points(platform)) > coarse * 1.5
    assert sync_all(finer).unchanged == 3

    unchunked = make_platform(chunking=False)
    assert sync_all(unchunked).embedded == 2
    assert len(points(platform)) == 3


def test_a_changed_mapping_is_seen_by_a_sync_and_embeds_only_what_has_another_text(
    make_platform: Callable[..., Platform], platform: Platform, stub: OpenAIStub
) -> None:
    def mapped(title: str | None, content: tuple[str, ...], metadata: dict[str, str]) -> Platform:
        source = SourceTable(table="tasks", title=title, content=content, metadata=metadata)
        return make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=source)})

    put(platform, "tasks", id="t1", title="Title", description="text", assignee_id="ann")
    sync_all(mapped(None, ("title", "description"), {"owner": "assignee_id"}))
    stub.reset_stats()
    own = mapped("title", ("description",), {"assignee_id": "assignee_id"})

    assert count_differing(own) == 1
    sync_all(own)
    found = ledger(own)["t1"]
    assert (found["title"], found["content"], found["metadata"]) == ("Title", "text", {"assignee_id": "ann"})
    payload = entity_points(own)["t1"].payload
    assert (payload["title"], payload["assignee_id"], payload.get("owner")) == ("Title", "ann", None)
    assert stub.stats()["texts"] == 0
    assert count_differing(own) == 0


def test_white_space_that_makes_a_list_re_links_without_embedding(platform: Platform, stub: OpenAIStub) -> None:
    def depends_on() -> set[str]:
        found = rows(
            platform,
            "SELECT target_id FROM public.relationships"
            " WHERE source_id = 'X' AND relationship_type = 'sequential_dependency'",
        )
        return {row[0] for row in found}

    put_tasks(platform, {"A": "a", "B": "b"})
    put(platform, "tasks", id="X", title="X", description="depends on: - task:A - task:B")
    sync_all(platform)
    relink(platform)
    assert depends_on() == {"A"}
    stub.reset_stats()
    put(platform, "tasks", id="X", title="X", description="depends on:\n- task:A\n- task:B")
    sync_all(platform)
    relink(platform)

    assert depends_on() == {"A", "B"}
    assert stub.stats()["texts"] == 0


def test_force_embeds_all_and_leaves_the_same_points(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    stub.reset_stats()

    counts = sync_all(platform, force=True)

    assert counts.embedded == 100
    assert stub.stats()["texts"] == 100
    assert_points_are(platform, TASKS)


def test_the_ledger_alone_is_brought_up_to_date_without_any_embedding(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, TASKS)

    sync_all(platform, stages=Stages(embeddings=False))

    assert len(ledger(platform)) == 100
    assert all(row["dirty"] for row in ledger(platform).values())
    assert points(platform) == {}
    assert stub.stats()["requests"] == 0


def test_the_embeddings_alone_are_made_of_what_the_ledger_knows(platform: Platform) -> None:
    put_tasks(platform, {"known": "Mend the gate"})
    sync_all(platform, stages=Stages(embeddings=False))
    put_tasks(platform, {"unknown": "Paint it"})

    counts = sync_all(platform, stages=Stages(ledger=False))

    assert counts.embedded == 1
    assert_points_are(platform, {"known": "Mend the gate"})


def test_the_embeddings_alone_by_force_are_made_again(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    stub.reset_stats()

    assert sync_all(platform, stages=Stages(ledger=False), force=True).embedded == 100
    assert stub.stats()["texts"] == 100


def test_two_syncs_at_once_end_in_the_same_points(platform: Platform, make_platform: Callable[..., Platform]) -> None:
    put_tasks(platform, TASKS)
    errors: list[BaseException] = []

    def sync(own: Platform) -> None:
        try:
            sync_all(own)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=sync, args=(make_platform(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert_points_are(platform, TASKS)


def test_an_absent_source_table_is_refused_and_deletes_nothing(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    sync_all(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("ALTER TABLE tasks RENAME TO todo")

    with pytest.raises(StoreRefused, match=r"source table tasks.*MCP_ASSETS_SOURCE_PRESET"):
        sync_all(platform)

    assert len(entity_points(platform)) == 100
    assert rows(platform, "SELECT count(*) FROM {schema}.entities WHERE deleted_at IS NOT NULL") == [(0,)]


def test_a_row_changed_while_the_sync_runs_is_indexed_as_it_is_now(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    last = max(TASKS, key=slot_of)
    changed = False
    for progress in full_sync(platform, "task", range(4)):
        if not changed and not progress.complete:
            changed = True
            put_tasks(platform, {last: "Changed meanwhile"})
    sync_all(platform)

    assert is_vector_of(entity_points(platform)[last], "Changed meanwhile")


def test_progress_sums_to_what_the_run_did(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    news = list(full_sync(platform, "task", range(4)))

    assert summed(news).embedded == sum(progress.counts.embedded for progress in news if not progress.complete) == 100
