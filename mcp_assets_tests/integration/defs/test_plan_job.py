"""The job `plan`: its run reports what a full sync would do, and changes nothing."""

from typing import Any

import dagster as dg
import pytest

from mcp_assets.platform import Platform
from mcp_assets_tests.observing import put_tasks, rows


def run_plan(definitions: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("plan").execute_in_process(
        instance=instance,
        run_config={"ops": {"make_plan": {"config": config}}} if config else {},
        raise_on_error=False,
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


@pytest.fixture
def tasks(platform: Platform) -> Platform:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(20)})
    return platform


def test_without_config_everything_is_planned(
    tasks: Platform, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    found = metadata_of(run_plan(definitions, instance))
    assert (found["embed"], found["stub/16/texts"], found["stub/16/distinct_texts"]) == (20, 20, 20)
    by_partition = {record.data["partition"]: record.data["embed"] for record in found["by_partition"].records}
    assert sum(by_partition.values()) == 20
    assert len(by_partition) == 3 * tasks.settings.shards
    assert rows(tasks, "SELECT count(*) FROM {schema}.entities") == [(0,)]
    assert tasks.qdrant.collections() == []


def test_types_partitions_and_another_model_can_be_chosen(
    tasks: Platform, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    of_pages = metadata_of(run_plan(definitions, instance, types=["page"]))
    assert of_pages["embed"] == 0
    found = metadata_of(run_plan(definitions, instance, partitions=["task-01"], model="text-embedding-3-small"))
    assert [record.data["partition"] for record in found["by_partition"].records] == ["task-01"]
    assert found["text-embedding-3-small/1536/texts"] == found["embed"]
    assert found["text-embedding-3-small/1536/usd"] > 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"types": ["taks"]}, "no entity type 'taks': one of task, page, memory"),
        ({"partitions": ["task-77"]}, "no partition 'task-77'"),
        ({"model": "unheard-of"}, "is not known here"),
    ],
)
def test_a_wrong_config_ends_with_one_sentence(
    definitions: dg.Definitions, instance: dg.DagsterInstance, config: dict[str, Any], said: str
) -> None:
    result = run_plan(definitions, instance, **config)
    assert not result.success
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert said in str(failure.step_failure_data.error) + str(failure.step_failure_data.user_failure_data)
