"""Runs of the assets: what they bring up to date, and what Dagster's event log says of it, when."""

import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest

from mcp_assets.entities.refs import shard_of, slot_of
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.collections.model_collections import find_collection
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_lock import heartbeats, hold_drain_lock
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.link.marks import pending_links
from mcp_assets.tuning import DefsTuning, InboxTuning, Tuning
from mcp_assets_tests.integration.defs.conftest import ASSETS, Backfills, Logged, Ran
from mcp_assets_tests.observing import take_in
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until

SHARDS = 4
EVERYTHING = ("task-00", "memory-03")
PARTITIONS = [f"{name}-{shard:02}" for name in ("task", "page", "memory") for shard in range(SHARDS)]

Write = Callable[..., None]
Run = Callable[..., Ran]


def both(partitions: list[str]) -> list[Logged]:
    """Each partition with both assets, the ledger first."""
    return [(asset, partition) for partition in partitions for asset in ASSETS]


def partition_of(entity_type: str, entity_id: str) -> str:
    return f"{entity_type}-{shard_of(slot_of(entity_id), SHARDS):02}"


def points(platform: Platform, collection: str = "kanban_tasks") -> int:
    qdrant: Qdrant = platform.qdrant
    found = find_collection(qdrant, collection, platform.embedder.profile)
    return qdrant.count(found.name) if found else 0


def inbox(platform: Platform) -> int:
    with platform.postgres.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) FROM mcp_assets.inbox WHERE kind = %s", (MessageKind.ENTITY.value,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def thin(entity_type: str, *ids: str) -> list[tuple[str, bytes]]:
    return [(f"mcp.{entity_type}.updated", b'{"entity_id": "%s"}' % entity_id.encode()) for entity_id in ids]


def test_a_full_run_materializes_each_partition_of_its_range_once_for_each_asset_and_the_ledger_first(
    platform: Platform, write: Write, run: Run
) -> None:
    write("task", {f"t{n}": f"task {n}" for n in range(60)})
    write("memory", {f"m{n}": f"memory {n}" for n in range(20)})

    ran = run(*EVERYTHING)

    assert ran.success
    assert ran.materialized == both(PARTITIONS)
    assert (points(platform), points(platform, "memory_nodes")) == (60, 20)


def test_a_full_run_keeps_to_the_partitions_of_its_range(
    platform: Platform, write: Write, run: Run, stub: OpenAIStub
) -> None:
    ids = [f"t{n}" for n in range(40)]
    write("task", {entity_id: f"text of {entity_id}" for entity_id in ids})

    ran = run("task-01", "task-02")

    inside = [entity_id for entity_id in ids if partition_of("task", entity_id) in ("task-01", "task-02")]
    assert 0 < len(inside) < len(ids)
    assert ran.materialized == both(["task-01", "task-02"])
    assert points(platform) == len(inside) == stub.stats()["texts"]


def test_a_reversed_range_fails_instead_of_doing_nothing(run: Run) -> None:
    ran = run("task-02", "task-01")
    assert not ran.success
    assert ran.materialized == []


def test_a_second_full_run_without_changes_materializes_again_and_embeds_nothing(
    write: Write, run: Run, stub: OpenAIStub
) -> None:
    write("task", {f"t{n}": f"task {n}" for n in range(20)})
    run(*EVERYTHING)
    ran = run(*EVERYTHING)
    assert ran.materialized == both(PARTITIONS)
    assert stub.stats()["texts"] == 20
    told = [ran.metadata["embeddings", f"task-{shard:02}"] for shard in range(SHARDS)]
    assert sum(of_shard["unchanged"] for of_shard in told) == 20
    assert sum(of_shard["embedded"] for of_shard in told) == 0


def test_a_forced_run_embeds_everything_in_its_range_again(write: Write, run: Run, stub: OpenAIStub) -> None:
    write("task", {f"t{n}": f"task {n}" for n in range(20)})
    write("page", {f"p{n}": f"page {n}" for n in range(5)})
    run(*EVERYTHING)
    ran = run("task-00", "task-03", force=True)
    assert ran.success
    assert stub.stats()["texts"] == 25 + 20


def test_a_materialization_reports_the_numbers_of_its_partition(
    platform: Platform, write: Write, run: Run, stub: OpenAIStub
) -> None:
    in_shard = [f"t{n}" for n in range(40) if partition_of("task", f"t{n}") == "task-00"]
    write("task", {entity_id: f"text of {entity_id}" for entity_id in in_shard})
    run("task-00", "task-00")
    with platform.postgres.transaction() as connection:
        connection.execute("DELETE FROM tasks WHERE id = %s", (in_shard[0],))
    stub.add_fault("nan", times=None, contains="spoilt")
    write("task", {in_shard[1]: "a new text", in_shard[2]: "a spoilt text"})

    ran = run("task-00", "task-00")

    assert ran.success
    assert ran.metadata["entities", "task-00"] == {
        "dagster/row_count": len(in_shard) - 1,
        "dagster/partition_row_count": len(in_shard) - 1,
        "total/task": len(in_shard) - 1,
        "total/page": 0,
        "total/memory": 0,
        "scanned": len(in_shard),
        "changed": 1,
        "unchanged": len(in_shard) - 3,
        "deleted": 1,
        "failed": 1,
    }
    told = ran.metadata["embeddings", "task-00"]
    assert told.pop("texts_per_s") > 0
    assert told.pop("openai.total_tokens") == told.pop("openai.prompt_tokens") > 0
    # Of Dagster's Insights: requests and tokens of the provider. The text that no model takes is asked for once more.
    assert told.pop("openai.calls") > 0
    assert told == {
        "dagster/row_count": points(platform),
        "total/kanban_tasks": points(platform),
        "collection": "kanban_tasks__stub_16",
        "model": "stub, 16 dimensions",
        "scanned": len(in_shard),
        "embedded": 1,
        "texts": 1,
        "payloads_updated": 0,
        "unchanged": len(in_shard) - 3,
        "deleted": 1,
        "failed": 1,
    }


@pytest.mark.tuning(Tuning(defs=DefsTuning(events_every_s=0.0)))
def test_a_full_run_observes_its_progress_and_materializes_nothing_before_it_is_complete(
    platform: Platform, write: Write, run: Run, stub: OpenAIStub
) -> None:
    # Two batches are in flight and at most four are drawn and not reported. Therefore the first of the fifteen batches
    # of task-01 is reported before the last one begins, and fails.
    platform.settings.batch_size, platform.settings.embedding_concurrency = 10, 1
    ids = [f"t{n}" for n in range(600)]
    write("task", {entity_id: f"text of {entity_id}" for entity_id in ids})
    last_of_shard_1 = max(
        (entity_id for entity_id in ids if partition_of("task", entity_id) == "task-01"), key=lambda i: (slot_of(i), i)
    )
    stub.add_fault("insufficient_quota", times=None, contains=f"text of {last_of_shard_1}")

    ran = run("task-00", "task-03")

    assert not ran.success
    # Batches of task-01 are done; it is not complete.
    assert ("embeddings", "task-01") in ran.observed
    assert ran.materialized == both(["task-00"])


@pytest.mark.tuning(Tuning(defs=DefsTuning(events_every_s=0.0)))
def test_the_log_of_a_full_run_says_how_far_indexing_and_linking_are(write: Write, run: Run) -> None:
    write("task", {f"t{n}": f"text of task {n}" for n in range(60)})

    ran = run("task-00", "task-03", assets=[*ASSETS, "relationship_edges"])

    assert ran.success
    parts = [line.partition(": ") for line in ran.lines]
    last = {what: figures for what, _, figures in parts}
    # In the order in which they were first said.
    assert list(last) == ["indexing task", "linking changes", "linking lists of neighbours"]
    assert all(figures.startswith("60 of 60, ") for figures in last.values()), last
    assert all(" 0 seconds left" in figures for figures in last.values()), last
    assert "; then 60 lists of neighbours" in next(figures for what, _, figures in parts if what == "linking changes")


def test_a_run_of_the_entities_alone_leaves_points_to_a_run_of_the_embeddings_alone(
    platform: Platform, write: Write, run: Run, stub: OpenAIStub
) -> None:
    write("task", {f"t{n}": f"task {n}" for n in range(20)})

    of_entities = run("task-00", "task-03", assets=["entities"])
    assert of_entities.materialized == [("entities", f"task-{shard:02}") for shard in range(SHARDS)]
    assert (points(platform), stub.stats()["texts"]) == (0, 0)

    of_embeddings = run("task-00", "task-03", assets=["embeddings"])
    assert of_embeddings.materialized == [("embeddings", f"task-{shard:02}") for shard in range(SHARDS)]
    assert (points(platform), stub.stats()["texts"]) == (20, 20)


def test_a_drain_materializes_only_the_partitions_it_touched(platform: Platform, write: Write, run: Run) -> None:
    write("task", {"t1": "one", "t2": "two", "untouched": "no event names it"})
    platform.nats.publish(thin("task", "t1", "t2"))
    intake(platform, wait_s=2)
    assert inbox(platform) == 2

    ran = run("task-00", "task-03", drain=True)

    assert ran.success
    touched = sorted({partition_of("task", "t1"), partition_of("task", "t2")})
    assert ran.materialized == both(touched)
    assert (inbox(platform), points(platform)) == (0, 2)


def test_a_drain_materializes_the_partitions_of_types_that_it_took_over_as_its_own(
    platform: Platform, write: Write, run: Run
) -> None:
    platform.settings.drain_linger_s = 1.5
    write("task", {"t1": "one"})
    write("page", {"p1": "one"})
    assert heartbeats(platform) == {}

    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(run, "task-00", "task-03", assets=[*ASSETS, "relationship_edges"], drain=True)
        until(lambda: heartbeats(platform), "the drain lives")
        platform.nats.publish(thin("page", "p1"))
        until(lambda: points(platform, "wiki_pages"), "the page has a point")
        platform.nats.publish(thin("task", "t1"))
        ran = running.result()

    assert ran.success
    page, task = partition_of("page", "p1"), partition_of("task", "t1")
    assert sorted(ran.materialized) == sorted(
        both([page, task]) + [("relationship_edges", name) for name in (page, task)]
    )
    for partition in (page, task):
        assert ran.metadata["entities", partition]["changed"] == 1
        assert ran.metadata["embeddings", partition]["embedded"] == 1
        assert "added" in ran.metadata["relationship_edges", partition]
    assert inbox(platform) == 0


def test_a_run_whose_type_is_drained_by_another_succeeds_and_leaves_the_links_to_it(
    platform: Platform, write: Write, run: Run
) -> None:
    write("task", {"t1": "one", "t2": "two"})
    platform.nats.publish(thin("task", "t1"))
    take_in(platform)
    for _ in drain(platform, "task", "before"):
        pass
    marks = pending_links(platform, up_to=10)
    assert marks > 0
    with hold_drain_lock(platform, "task", "another") as alone:
        assert alone
        platform.nats.publish(thin("task", "t2"))
        take_in(platform)
        ran = run("task-00", "task-03", assets=[*ASSETS, "relationship_edges"], drain=True)
        assert ran.success
        assert ran.materialized == []
        assert (inbox(platform), pending_links(platform, up_to=10)) == (1, marks)

    assert run("task-00", "task-03", assets=[*ASSETS, "relationship_edges"], drain=True).success
    assert (inbox(platform), pending_links(platform, up_to=10)) == (0, 0)


def test_a_drain_that_is_terminated_ends_canceled_and_lets_go_of_every_type(
    platform: Platform, write: Write, run: Run, instance: dg.DagsterInstance
) -> None:
    platform.settings.drain_linger_s = 60
    write("page", {"p1": "one"})

    def terminate() -> None:
        try:
            until(lambda: "task" in heartbeats(platform), "the drain lives")
            platform.nats.publish(thin("page", "p1"))
            until(lambda: points(platform, "wiki_pages"), "the page has a point")
            # As launchers terminate a run: the cancellation is reported, then its process is told.
            (started,) = instance.get_runs()
            instance.report_run_canceling(started)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    # Until Dagster has its own, as in a run's process: should it never come to that.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ThreadPoolExecutor(1) as beside:
            terminating = beside.submit(terminate)
            ran = run("task-00", "task-03", drain=True)
            terminating.result()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert not ran.success
    (record,) = instance.get_run_records()
    assert record.dagster_run.status is dg.DagsterRunStatus.CANCELED
    assert ran.materialized == both([partition_of("page", "p1")])
    assert heartbeats(platform) == {}


@pytest.mark.tuning(Tuning(inbox=InboxTuning(taken_over_s=0.0)))
def test_a_drain_that_could_not_do_what_it_took_over_fails_by_name_and_has_done_its_own(
    platform: Platform,
    write: Write,
    run: Run,
    instance: dg.DagsterInstance,
    stub: OpenAIStub,
) -> None:
    platform.settings.drain_linger_s = 5.0
    write("task", {"t1": "one"})
    write("page", {"p1": "a broken page"})
    stub.add_fault("insufficient_quota", times=None, contains="broken")
    platform.nats.publish(thin("task", "t1"))

    def publish_later() -> None:
        # Texts of two types that are embedded at once share a request, and a quota fails it as a whole.
        until(lambda: points(platform) == 1, "the task is embedded")
        platform.nats.publish(thin("page", "p1"))

    with ThreadPoolExecutor(1) as later:
        published = later.submit(publish_later)
        ran = run("task-00", "task-03", assets=[*ASSETS, "relationship_edges"], drain=True)
    published.result()

    assert not ran.success
    task = partition_of("task", "t1")
    assert [logged for logged in ran.materialized if logged[0] in ASSETS] == both([task])
    assert ("relationship_edges", task) in ran.materialized
    assert inbox(platform) == 1
    (record,) = instance.get_run_records()
    said = [entry for entry in instance.all_logs(record.dagster_run.run_id) if "page, which this" in entry.message]
    assert said[0].level == logging.ERROR
    assert "quota" in said[0].message
    (failure,) = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert (
        "page, which this drain had taken over, failed"
        in failure.get_dagster_event().step_failure_data.error_display_string
    )


def test_a_backfill_that_fails_in_mid_range_keeps_what_is_complete_and_its_retry_does_only_the_rest(
    platform: Platform, write: Write, backfills: Backfills, stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One request a batch: the one that fails takes nothing with it that had been embedded.
    monkeypatch.setenv("EMBEDDING_CONCURRENCY", "1")
    monkeypatch.setenv("MCP_ASSETS_BATCH_SIZE", "32")
    ids = [f"t{n}" for n in range(200)]
    write("task", {entity_id: f"text of {entity_id}." for entity_id in ids})
    write("memory", {f"m{n}": f"memory {n}" for n in range(10)})
    victim = next(entity_id for entity_id in ids if partition_of("task", entity_id) == "task-02")
    stub.add_fault("insufficient_quota", times=None, contains=f"text of {victim}.")

    failed = backfills.launch(PARTITIONS)

    (first,) = backfills.runs(failed)
    assert failed.status.value == "COMPLETED_FAILED"
    assert not first.success
    assert first.materialized == both(["task-00", "task-01"])
    # What the backfill's page shows of its partitions, and the asset's own page.
    done, shown_as_failed = backfills.shown(failed)
    assert done == set(both(["task-00", "task-01"]))
    assert shown_as_failed == set(both(PARTITIONS)) - done
    for asset in ASSETS:
        materialized = backfills.instance.get_materialized_partitions(dg.AssetKey(asset))
        assert materialized == {"task-00", "task-01"}

    stub.clear_faults()
    retried = backfills.retry(failed)

    (second,) = backfills.runs(retried)
    assert retried.status.value == "COMPLETED_SUCCESS"
    assert second.materialized == both(PARTITIONS[2:])
    assert (points(platform), points(platform, "memory_nodes")) == (200, 10)
    assert stub.stats()["texts"] == 210
