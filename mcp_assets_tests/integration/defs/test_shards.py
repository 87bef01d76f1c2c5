"""Another number of shards: nothing is embedded or written again; Dagster shows which partitions are to come."""

from collections.abc import Callable

import dagster as dg
import pytest

from mcp_assets.definitions import build_defs
from mcp_assets.defs.partitions import partitions_of, whole_type
from mcp_assets.entities.points import Key
from mcp_assets.platform import Platform
from mcp_assets.sync.link.marks import pending_links
from mcp_assets_tests.integration.defs.conftest import Ran, resource_of
from mcp_assets_tests.observing import drain_all, entity_points, put_tasks, send_looks
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
