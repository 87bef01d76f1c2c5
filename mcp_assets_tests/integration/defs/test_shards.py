"""Another number of shards: nothing is embedded or written again; Dagster shows which partitions are to come."""

from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import DRAIN_TAG
from mcp_assets.defs.partitions import partitions_of, whole_type
from mcp_assets.entities.points import Key
from mcp_assets.platform import Platform
from mcp_assets.sync.link.marks import pending_links
from mcp_assets_tests.integration.defs.conftest import Ran, resource_of
from mcp_assets_tests.observing import drain_all, entity_points, put_tasks, send_looks, take_in
from mcp_assets_tests.openai_stub import OpenAIStub

TASKS = {f"t{n:02}": f"Task {n}" for n in range(60)}
ALL = ("entities", "embeddings", "relationship_edges")


def full_sync_of_tasks(platform: Platform, instance: dg.DagsterInstance) -> bool:
    """As a person launches it over all partitions of the type, on definitions made for the platform's settings."""
    first, last = whole_type(platform.settings, "task")
    definitions = build_defs(platform.settings, resource_overrides={"platform": resource_of(platform)})
    result = definitions.resolve_job_def("index").execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset) for asset in ALL],
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
    )
    return result.success


def shown(platform: Platform, instance: dg.DagsterInstance, asset: str) -> tuple[set[str], set[str]]:
    """The partitions of tasks that Dagster shows as materialized, and those that it shows as missing."""
    keys = {key for key in partitions_of(platform.settings).get_partition_keys() if key.startswith("task-")}
    materialized = instance.get_materialized_partitions(dg.AssetKey(asset)) & keys
    return materialized, keys - materialized


@pytest.mark.parametrize("shards", [3, 8])
def test_another_number_of_shards_embeds_and_links_nothing_and_is_complete_after_one_full_sync(
    platform: Platform,
    make_platform: Callable[..., Platform],
    run: Callable[..., Ran],
    instance: dg.DagsterInstance,
    stub: OpenAIStub,
    shards: int,
) -> None:
    put_tasks(platform, TASKS)
    assert run("task-00", "task-03", assets=ALL).success
    before = entity_points(platform)
    stub.reset_stats()
    own = make_platform(shards=shards)

    # What Dagster has logged stands under the same names, of which each means another range now.
    later = {f"task-{shard:02}" for shard in range(4, shards)}
    for asset in ALL:
        assert shown(own, instance, asset) == ({f"task-{shard:02}" for shard in range(min(4, shards))}, later)
    put_tasks(own, {"t07": "Changed before the full sync"})
    send_looks(own, "t07")
    assert drain_all(own).embedded == 1
    assert stub.stats()["texts"] == 1
    marks = pending_links(own, up_to=100)

    assert full_sync_of_tasks(own, instance)

    assert stub.stats()["texts"] == 1
    assert 0 < marks < len(TASKS)
    assert pending_links(own, up_to=1) == 0
    for asset in ALL:
        assert shown(own, instance, asset) == ({f"task-{shard:02}" for shard in range(shards)}, set())
    after = entity_points(own)
    assert after.keys() == before.keys()
    rewritten = [key for key in after if after[key].payload[Key.INDEXED_AT] != before[key].payload[Key.INDEXED_AT]]
    assert rewritten == ["t07"]


@pytest.mark.parametrize("theirs", [3, 8])
def test_a_run_that_a_process_with_another_number_of_shards_asked_for_fails_and_does_nothing_unless_it_is_a_drain(
    platform: Platform,
    make_platform: Callable[..., Platform],
    instance: dg.DagsterInstance,
    stub: OpenAIStub,
    theirs: int,
) -> None:
    put_tasks(platform, TASKS)
    asking = make_platform(shards=theirs)
    first, last = whole_type(asking.settings, "task")

    def job_of(own: Platform) -> dg.JobDefinition:
        definitions = build_defs(own.settings, resource_overrides={"platform": resource_of(own)})
        return definitions.resolve_job_def("index").get_subset(asset_selection={dg.AssetKey(asset) for asset in ALL})

    def executed(**tags: str) -> dg.DagsterRun:
        """A run made from the definitions of the process that asks, and executed by those of `platform`."""
        job = job_of(asking)
        run = instance.create_run_for_job(
            job,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last, **tags},
            asset_selection=frozenset(dg.AssetKey(asset) for asset in ALL),
        )
        execute_run(InMemoryJob(job_of(platform)), run, instance)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    run = executed()
    assert run.status is dg.DagsterRunStatus.FAILURE
    errors = [str(entry.dagster_event) for entry in instance.all_logs(run.run_id) if entry.is_dagster_event]
    assert any(f"MCP_ASSETS_SHARDS={theirs}" in error for error in errors)
    assert stub.stats()["texts"] == 0

    send_looks(platform, "t07")
    take_in(platform)
    drained = executed(**{DRAIN_TAG: "task"})
    assert drained.status is dg.DagsterRunStatus.SUCCESS
    assert entity_points(platform).keys() == {"t07"}
