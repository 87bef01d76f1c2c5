"""What a sensor asks for is launched at once while there is room, and queued where there is none."""

from collections.abc import Callable

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.run_coordinator import SubmitRunContext

from mcp_assets.launcher import PromptRunCoordinator
from mcp_assets_tests.integration.launcher.conftest import Location

ASSET = """
    @dg.asset
    def quick():
        (OUT / "ran").write_text("true")

    job = dg.define_asset_job("job", [quick])
    defs = dg.Definitions([quick], jobs=[job])
"""

OF_A_SENSOR = {"dagster/sensor_name": "some_sensor"}


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
