"""A Dagster of the test's own: storage in the test's PostgreSQL, runs in this process, backfills as the daemon's."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.schema import create_schema

from mcp_assets.cli.load_entities import load, parse_records
from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import DRAIN_TAG
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform

ASSETS = ("entities", "embeddings")

_HERE = Path(__file__).parent

CODE_LOCATION = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="mcp_assets.definitions"), location_name="mcp_assets"
)
"""As in workspace.yaml, but in this process."""

_ANSWER = "{ __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"
_LAUNCH = (
    "mutation($given: LaunchBackfillParams!) { launched: launchPartitionBackfill(backfillParams: $given) " + _ANSWER
)
_RETRY = (
    "mutation($given: ReexecutionParams!) { launched: reexecutePartitionBackfill(reexecutionParams: $given) " + _ANSWER
)

Logged = tuple[str, str]
"""Asset and partition of one event."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What Dagster 1.13 does inside itself is no failure of these tests."""
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"))
            item.add_marker(pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated"))
            # A run inside a backfill's iteration: Dagster closes a second event loop while the first runs.
            item.add_marker(pytest.mark.filterwarnings("ignore:coroutine 'BaseEventLoop.shutdown_asyncgens'"))


def resource_of(platform: Platform) -> PlatformResource:
    """The resource `platform` of definitions that work on the given one."""

    class Given(PlatformResource):
        def get(self) -> Platform:
            return platform

    return Given()


@pytest.fixture
def definitions(platform: Platform) -> dg.Definitions:
    """All definitions, on the test's platform."""
    return build_defs(platform.settings, resource_overrides={"platform": resource_of(platform)})


@pytest.fixture
def instance(environment: None) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance in the storage of dagster.yaml; runs are executed in this process when they are launched."""
    overrides = {
        "storage": {"custom": {"module": "mcp_assets.defs.storage", "class": "SettingsPostgresStorage", "config": {}}},
        "run_launcher": {
            "module": "dagster._core.launcher.sync_in_memory_run_launcher",
            "class": "SyncInMemoryRunLauncher",
        },
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    }
    with instance_for_test(overrides=overrides) as opened:
        yield opened


@dataclass
class Ran:
    """A run that was executed, and what it logged of assets, in order."""

    success: bool
    materialized: list[Logged]
    observed: list[Logged]
    metadata: dict[Logged, dict[str, Any]]
    """Of the materializations."""
    lines: list[str]
    """What it wrote to the run's log by itself."""


@pytest.fixture
def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Callable[..., Ran]:
    """Executes the job `index` over a range of partitions, as the UI launches it, or with `drain` as a sensor does."""

    def execute(first: str, last: str, *, assets: Sequence[str] = ASSETS, drain: bool = False, **config: Any) -> Ran:
        job = definitions.resolve_job_def("index").get_subset(
            asset_selection={dg.AssetKey(asset) for asset in assets}, asset_check_selection=set()
        )
        result = job.execute_in_process(
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
                **({DRAIN_TAG: first.rpartition("-")[0]} if drain else {}),
            },
            run_config={"ops": {"index_entities": {"config": config}}},
            raise_on_error=False,
        )
        return told_by(instance, result.run_id)

    return execute


def told_by(instance: dg.DagsterInstance, run_id: str) -> Ran:
    """What the event log holds of a run."""
    found = instance.get_run_by_id(run_id)
    assert found is not None
    ran = Ran(found.is_success, [], [], {}, [])
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            ran.lines.append(entry.user_message)
        if event is None or event.asset_key is None or event.partition is None:
            continue
        logged = (event.asset_key.to_user_string(), event.partition)
        if event.is_step_materialization:
            ran.materialized.append(logged)
            ran.metadata[logged] = {
                key: value.value for key, value in event.step_materialization_data.materialization.metadata.items()
            }
        elif event.is_asset_observation:
            ran.observed.append(logged)
    return ran


@dataclass
class Backfills:
    """Backfills as the UI launches them and as the daemon carries them out."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext

    def launch(self, partitions: Sequence[str]) -> PartitionBackfill:
        return self._carried_out(
            _LAUNCH,
            {"assetSelection": [{"path": [asset]} for asset in ASSETS], "partitionNames": list(partitions)},
        )

    def retry(self, backfill: PartitionBackfill) -> PartitionBackfill:
        """ "Re-execute from failure": what the backfill has not materialized."""
        return self._carried_out(_RETRY, {"parentRunId": backfill.backfill_id, "strategy": "FROM_FAILURE"})

    def runs(self, backfill: PartitionBackfill) -> list[Ran]:
        """Its runs in the order of their creation."""
        found = self.instance.get_runs(dg.RunsFilter.for_backfill(backfill.backfill_id), ascending=True)
        return [told_by(self.instance, run.run_id) for run in found]

    def shown(self, backfill: PartitionBackfill) -> tuple[set[Logged], set[Logged]]:
        """The assets' partitions that the backfill shows as done, and those that it shows as failed."""
        data = backfill.asset_backfill_data
        assert data is not None

        def named(subset: AssetGraphSubset) -> set[Logged]:
            return {
                (one.asset_key.to_user_string(), one.partition_key)
                for one in subset.iterate_asset_partitions()
                if one.partition_key is not None
            }

        return named(data.materialized_subset), named(data.failed_and_downstream_subset)

    def _carried_out(self, mutation: str, given: Mapping[str, Any]) -> PartitionBackfill:
        with self.workspace.create_request_context() as context:
            answer = create_schema().execute(mutation, variable_values={"given": given}, context_value=context)
        assert answer.errors is None
        assert answer.data is not None
        assert answer.data["launched"]["__typename"] == "LaunchBackfillSuccess", answer.data
        backfill_id = answer.data["launched"]["backfillId"]
        for _ in range(10):
            assert list(execute_backfill_iteration(self.workspace, logging.getLogger("backfill"))) == []
            backfill = self.instance.get_backfill(backfill_id)
            if backfill is not None and backfill.status in BULK_ACTION_TERMINAL_STATUSES:
                return backfill
        raise AssertionError("the backfill does not come to its end")


@pytest.fixture
def backfills(platform: Platform, instance: dg.DagsterInstance) -> Iterator[Backfills]:
    """On the definitions as Dagster loads them; `platform` has made the tables."""
    with ExitStack() as stack:
        yield Backfills(
            instance,
            stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(CODE_LOCATION))),
        )


@pytest.fixture
def write(platform: Platform) -> Callable[..., None]:
    """Writes source rows: ids to texts."""

    def written(entity_type: str, texts: Mapping[str, str]) -> None:
        records = [
            {"entity_type": entity_type, "entity_id": entity_id, "title": "T", "content": text}
            for entity_id, text in texts.items()
        ]
        for _ in load(platform, parse_records(records, "test", platform.settings.entity_types)):
            pass

    return written
