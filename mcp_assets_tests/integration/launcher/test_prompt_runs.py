"""What a sensor asks for is launched at once while there is room, and queued where there is none."""

from collections.abc import Callable

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import RunOpConcurrency

from dagster_warm_launcher import PROMPT_TAG, PromptRunCoordinator
from mcp_assets_tests.integration.launcher.conftest import Location

ASSET = """
    @dg.asset
    def quick():
        (OUT / "ran").write_text("true")

    job = dg.define_asset_job("job", [quick])
    defs = dg.Definitions([quick], jobs=[job])
"""

OF_ANOTHER_SENSOR = {"dagster/sensor_name": "some_sensor"}

OF_A_SENSOR = {**OF_ANOTHER_SENSOR, PROMPT_TAG: "true"}


def submitted(
    instance: DagsterInstance, location: Location, tags: dict[str, str], **config: object
) -> tuple[DagsterRun, DagsterRunStatus]:
    """A run submitted to a coordinator of its own, and what it is at once."""
    coordinator = PromptRunCoordinator(**config)  # type: ignore[arg-type]
    coordinator.register_instance(instance)
    run = location.create(tags=tags)
    return run, coordinator.submit_run(SubmitRunContext(run, location.workspace)).status


def test_a_run_of_a_sensor_starts_without_any_daemon(
    instance: DagsterInstance, make_location: Callable[[str], Location]
) -> None:
    location = make_location(ASSET)
    run, status = submitted(instance, location, OF_A_SENSOR, max_concurrent_runs=8)
    assert status is not DagsterRunStatus.QUEUED
    assert location.finish(run.run_id).status is DagsterRunStatus.SUCCESS
    assert location.trace("ran")


def test_a_run_of_a_person_is_queued(instance: DagsterInstance, make_location: Callable[[str], Location]) -> None:
    run, status = submitted(instance, make_location(ASSET), {})
    assert status is DagsterRunStatus.QUEUED
    instance.delete_run(run.run_id)


def test_a_run_of_a_sensor_is_queued_where_limits_leave_no_room(
    instance: DagsterInstance, make_location: Callable[[str], Location]
) -> None:
    location = make_location(ASSET)
    waiting, status = submitted(instance, location, OF_A_SENSOR, max_concurrent_runs=0)
    assert status is DagsterRunStatus.QUEUED
    behind, status = submitted(instance, location, OF_A_SENSOR, max_concurrent_runs=1)
    assert status is DagsterRunStatus.QUEUED, "those that wait come first"
    limits = [{"key": "team", "limit": 1}]
    limited, status = submitted(instance, location, OF_A_SENSOR, tag_concurrency_limits=limits)
    assert status is DagsterRunStatus.QUEUED
    for run in (waiting, behind, limited):
        instance.delete_run(run.run_id)


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param(OF_ANOTHER_SENSOR, id="of a sensor that does not ask for it"),
        pytest.param({**OF_A_SENSOR, "dagster/priority": "-1"}, id="with a priority"),
        pytest.param({PROMPT_TAG: "true"}, id="of a person who runs it again"),
    ],
)
def test_a_run_is_queued(
    instance: DagsterInstance, make_location: Callable[[str], Location], tags: dict[str, str]
) -> None:
    run, status = submitted(instance, make_location(ASSET), tags, max_concurrent_runs=8)
    assert status is DagsterRunStatus.QUEUED
    instance.delete_run(run.run_id)


@pytest.mark.parametrize(
    "concurrency",
    [
        {"runs": {"max_concurrent_runs": 0}},
        {"runs": {"tag_concurrency_limits": [{"key": "team", "limit": 1}]}},
    ],
    ids=["max_concurrent_runs", "tag_concurrency_limits"],
)
def test_the_concurrency_block_of_dagster_yaml_counts_before_the_coordinators_own_limits(
    instance: DagsterInstance,
    make_location: Callable[[str], Location],
    monkeypatch: pytest.MonkeyPatch,
    concurrency: dict[str, object],
) -> None:
    get_settings = instance.get_settings
    monkeypatch.setattr(
        instance, "get_settings", lambda key: concurrency if key == "concurrency" else get_settings(key)
    )
    run, status = submitted(instance, make_location(ASSET), OF_A_SENSOR, max_concurrent_runs=8)
    assert status is DagsterRunStatus.QUEUED
    instance.delete_run(run.run_id)


def test_a_run_of_a_pool_is_queued(instance: DagsterInstance, make_location: Callable[[str], Location]) -> None:
    location = make_location(ASSET)
    run = location.create(tags=OF_A_SENSOR)
    pools = RunOpConcurrency(root_key_counts={}, has_unconstrained_root_nodes=False, all_pools={"db"})
    pooled = run._replace(run_op_concurrency=pools)
    coordinator = PromptRunCoordinator(max_concurrent_runs=8)
    coordinator.register_instance(instance)
    assert coordinator.submit_run(SubmitRunContext(pooled, location.workspace)).status is DagsterRunStatus.QUEUED
    instance.delete_run(run.run_id)
