"""A terminated run of the platform's own: once it is reported as over, nothing of it is at work any more."""

import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from dagster import AssetKey, DagsterRunStatus

from dagster_warm_launcher.run_process import RunProcess
from mcp_assets.defs.keys import DRAIN_TAG
from mcp_assets.platform import Platform
from mcp_assets_tests.integration.launcher.conftest import Location
from mcp_assets_tests.observing import put_tasks, rows, send_looks, take_in
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until

MakeLocation = Callable[[str], Location]

DEFINITIONS = "from mcp_assets.definitions import defs"

TASKS = 400


def launch(location: Location, tags: dict[str, str]) -> str:
    return location.launch(
        "index",
        tags={"dagster/asset_partition_range_start": "task-00", "dagster/asset_partition_range_end": "task-03", **tags},
        asset_selection=frozenset(map(AssetKey, ("entities", "embeddings", "relationship_edges"))),
    )


def written(platform: Platform) -> list[Any]:
    return rows(platform, "SELECT entity_id, embedded_at FROM {schema}.embedded ORDER BY 1")


# What Dagster 1.13 does inside itself is no failure of these tests.
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated")
@pytest.mark.parametrize("tags", [{}, {DRAIN_TAG: "task"}], ids=["full sync", "drain"])
@pytest.mark.usefixtures("environment")
def test_a_run_that_is_being_canceled_sends_no_request_and_commits_no_row(
    make_location: MakeLocation, platform: Platform, stub: OpenAIStub, tags: dict[str, str]
) -> None:
    location = make_location(DEFINITIONS)
    tasks = {f"t{n:03}": f"Task {n}" for n in range(TASKS)}
    put_tasks(platform, tasks)
    send_looks(platform, *tasks)
    take_in(platform)
    stub.add_fault("hang", times=None)
    run_id = launch(location, tags)
    until(lambda: stub.stats()["requests"] >= 2, "two requests hang")
    run = location.instance.get_run_by_id(run_id)
    assert run is not None
    process = RunProcess.of(run)
    assert process is not None
    assert process.pid != os.getpid()

    assert location.instance.run_launcher.terminate(run_id) is True
    assert location.finish(run_id).status == DagsterRunStatus.CANCELED, location.messages(run_id)

    sent, committed = stub.stats()["requests"], written(platform)
    stub.clear_faults()
    until(lambda: not psutil.pid_exists(process.pid), "the run's process has ended")
    assert stub.stats()["requests"] == sent
    assert written(platform) == committed == []
