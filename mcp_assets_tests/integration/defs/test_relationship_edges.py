"""`relationship_edges` in Dagster: full runs, drains, requests to re-link, and what a materialization tells."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import nats
import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.definitions import build_defs
from mcp_assets.defs import index_run
from mcp_assets.defs.keys import DRAIN_TAG, EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.announce import answer_relinked
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.link import linker
from mcp_assets.sync.link.counts import LinkReport
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.locks import sole_linker
from mcp_assets.sync.link.marks import Reason, mark, pending_links
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets.tuning import DefsTuning, LinkTuning, Tuning
from mcp_assets_tests.integration.defs.conftest import resource_of
from mcp_assets_tests.linking import TYPES, AngleEmbedder, graph, index, relink, write_source

A, B, PAGE = EntityRef("task", "A"), EntityRef("task", "B"), EntityRef("page", "P")


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES, shards=2)
    create_source_tables(platform)
    platform.nats.ensure_stream(platform.settings.streams[0])
    return platform


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def run(
    world: Platform,
    instance: dg.DagsterInstance,
    job: str = "index",
    first: str = "task-00",
    last: str = "memory-01",
    *,
    drain: bool = False,
    selection: list[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    definition = build_defs(world.settings, {"platform": resource_of(world)}).resolve_job_def(job)
    if selection is not None:
        definition = definition.get_subset(asset_selection=set(selection), asset_check_selection=set())
    result = definition.execute_in_process(
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
            **({DRAIN_TAG: first.rpartition("-")[0]} if drain else {}),
        },
    )
    assert result.success
    return result


def materialized(result: dg.ExecuteInProcessResult) -> list[tuple[str, str]]:
    """Asset and partition of each materialization, in order."""
    found = []
    for event in result.all_events:
        if event.is_step_materialization:
            assert event.asset_key is not None and event.partition is not None
            found.append((event.asset_key.to_user_string(), event.partition))
    return found


def test_a_full_run_materializes_each_partition_once_and_edges_after_all_is_embedded(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "see page:P")
    write_source(world, PAGE, "@5", "")
    order = materialized(run(world, instance))
    partitions = [f"{name}-{shard:02}" for name in ("task", "page", "memory") for shard in range(2)]
    assert order[-6:] == [("relationship_edges", partition) for partition in partitions]
    assert order[:12] == [(asset, partition) for partition in partitions for asset in ("entities", "embeddings")]
    assert {key.type for key in graph(world)} == {EdgeType.SEMANTIC_SIMILARITY, EdgeType.CROSS_REFERENCE}


def test_a_materialization_reports_edges_by_type_the_strongest_and_a_plot(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "see page:P")
    write_source(world, PAGE, "@5", "")
    result = run(world, instance)
    (event,) = (
        event
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == EDGES and event.partition == partition_of(world, A)
    )
    metadata: Mapping[str, Any] = event.step_materialization_data.materialization.metadata
    assert metadata["added"].value == 2
    assert metadata["added/cross_reference"].value == 1
    assert metadata["removed"].value == 0
    assert metadata["strongest_new_edges"].value.records[0].data["strength"] == 1.0
    assert metadata["dagster/row_count"].value == len(graph(world))
    plot = metadata["strengths"].value
    assert re.search(r"\| cross\sreference \| 1 \| `·{19}█` \|", plot)
    assert len(plot) < 1_000, "the UI hides what is longer behind a link"


def partition_of(world: Platform, ref: EntityRef) -> str:
    return f"{ref.type}-{ref.slot * world.settings.shards >> 16:02}"


def test_a_run_of_edges_alone_embeds_nothing_and_links_what_is_embedded(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "")
    write_source(world, PAGE, "@5", "")
    run(world, instance, selection=[ENTITIES, EMBEDDINGS])
    assert graph(world) == {}
    write_source(world, B, "@1", "")
    run(world, instance, selection=[EDGES])
    assert {key.source for key in graph(world)} == {A, PAGE}


def test_a_drain_links_what_it_has_embedded(world: Platform, instance: dg.DagsterInstance) -> None:
    write_source(world, A, "@0", "")
    write_source(world, B, "@5", "")
    for entity_id in "AB":
        world.nats.publish([("mcp.task.updated", json.dumps({"task_id": entity_id}).encode())])
    intake(world, wait_s=1)
    order = materialized(run(world, instance, last="task-01", drain=True))
    assert {asset for asset, _ in order} == {"entities", "embeddings", "relationship_edges"}
    assert len(graph(world)) == 2


def test_a_request_to_relink_mends_the_edges_of_the_entity_and_is_answered_with_counts(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "")
    write_source(world, B, "@5", "")
    run(world, instance)
    whole = graph(world)
    with world.postgres.transaction() as connection:
        connection.execute("DELETE FROM relationships WHERE source_id = 'A'")
    body = {"entity_id": "A", "entity_type": "task", "content": "@90 is not what the source says", "context": {}}
    world.nats.publish([("relationship.analyze.request", json.dumps(body).encode())])
    intake(world, wait_s=1)

    async def answer() -> bytes:
        client = await nats.connect(world.settings.require_nats_url())
        heard = await client.subscribe("relationship.analyze.completed")
        await client.flush()
        await asyncio.to_thread(run, world, instance, "relate", "task-00", "task-01", drain=True)
        message = await heard.next_msg(timeout=10)
        await client.close()
        return message.data

    told = json.loads(asyncio.run(answer()))["data"]
    assert graph(world) == whole
    assert told["added"] == {"semantic_similarity": 1}
    assert told["entities"] == [{"entity_type": "task", "entity_id": "A", "edges": {"semantic_similarity": 1}}]


def test_a_run_leaves_the_marks_to_another_linker_and_does_not_wait_for_it_even_when_asked_to_relink(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "")
    write_source(world, B, "@5", "")
    body = {"message_id": "r", "data": {"entity_id": "A", "entity_type": "task"}}
    world.nats.publish([("relationship.analyze.request", json.dumps(body).encode())])
    intake(world, wait_s=1)
    with sole_linker(world) as session:
        assert session is not None
        run(world, instance, "relate", "task-00", "task-01", drain=True)
    assert graph(world) == {}
    assert pending_links(world, up_to=1) == 1
    assert answer_relinked(world) == 0
    relink(world)
    assert answer_relinked(world) == 1


def ticked(world: Platform, instance: dg.DagsterInstance, defs: dg.Definitions) -> Sequence[dg.RunRequest]:
    """The runs that one tick of the sensor of relationships asks for."""
    resources = {"platform": resource_of(world)}
    with dg.build_sensor_context(instance=instance, definitions=defs, resources=resources) as context:
        return defs.resolve_sensor_def("relationship_sensor").evaluate_tick(context).run_requests or ()


def test_linking_ends_with_the_time_of_its_drain_and_leaves_the_marks_that_the_sensor_then_asks_a_run_for(
    world: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tuning = Tuning(defs=DefsTuning(marks_left_s=0.0), link=LinkTuning(changes_at_once=1))
    changes = linker._Linker.changes
    batches: list[int] = []

    def counted(own: Any) -> LinkReport:
        batches.append(1)
        return changes(own)

    monkeypatch.setattr(linker._Linker, "changes", counted)
    in_time = index_run._Beside._is_over
    # The first transaction outlasts the drain.
    monkeypatch.setattr(index_run._Beside, "_is_over", lambda _: bool(batches))
    for entity_id in "ABCD":
        write_source(world, EntityRef("task", entity_id), "@0", "")
        world.nats.publish([("mcp.task.updated", json.dumps({"task_id": entity_id}).encode())])
    intake(world, wait_s=1)
    run(world, instance, last="task-01", drain=True)
    assert len(batches) == 1
    assert pending_links(world, up_to=1) == 1

    defs = build_defs(world.settings, {"platform": resource_of(world)})
    (request,) = ticked(world, instance, defs)
    assert request.tags[DRAIN_TAG] == "task"
    monkeypatch.setattr(index_run._Beside, "_is_over", in_time)
    run(world, instance, "relate", "task-00", "task-01", drain=True)
    assert pending_links(world, up_to=1) == 0
    assert len(graph(world)) == 12


def test_what_is_committed_while_a_full_run_links_is_left_to_others(world: Platform) -> None:
    write_source(world, A, "@0", "")
    write_source(world, B, "@5", "")
    index(world, A, B)
    for reports, _ in enumerate(link_until_done(world)):
        # Each time something is linked, more is marked: without a bound it would go on for ever.
        assert reports < 50
        index_again(world, B)


def index_again(world: Platform, ref: EntityRef) -> None:
    with world.postgres.transaction() as connection:
        mark(world, connection, [ref], Reason.CHANGED)


def test_what_a_request_carries_becomes_an_entity_that_has_no_source_row(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    write_source(world, A, "@0", "")
    run(world, instance)
    body = {"entity_id": "M", "entity_type": "memory", "content": "@3 about task:A", "context": {"tags": ["x"]}}
    world.nats.publish([("relationship.analyze.request", json.dumps(body).encode())])
    intake(world, wait_s=1)
    run(world, instance, "relate", "memory-00", "memory-01", drain=True)
    memory = EntityRef("memory", "M")
    assert {(key.source, key.type) for key in graph(world)} == {
        (memory, EdgeType.SEMANTIC_SIMILARITY),
        (memory, EdgeType.CROSS_REFERENCE),
        (A, EdgeType.SEMANTIC_SIMILARITY),
    }


def test_the_sensor_asks_for_a_drain_where_requests_wait(world: Platform, instance: dg.DagsterInstance) -> None:
    world.nats.publish([("relationship.analyze.request", b'{"entity_id": "P", "entity_type": "page"}')])
    defs = build_defs(world.settings, {"platform": resource_of(world)})
    (request,) = ticked(world, instance, defs)
    assert request.tags["dagster/asset_partition_range_start"] == "page-00"
    assert set(request.asset_selection or ()) == {ENTITIES, EMBEDDINGS, EDGES}


def test_the_job_for_tag_weights_relinks_the_holders(world: Platform, instance: dg.DagsterInstance) -> None:
    write_source(world, A, "@0", "", {"tags": ["x", "y"]})
    write_source(world, B, "@90", "", {"tags": ["x", "z"]})
    run(world, instance)
    assert len(graph(world)) == 2
    defs = build_defs(world.settings, {"platform": resource_of(world)})
    assert defs.resolve_job_def("refresh_tag_weights").execute_in_process(instance=instance).success
    assert graph(world) == {}
    assert refresh_tag_weights(world).changed == 0
