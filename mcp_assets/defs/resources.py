"""Resources: how assets and sensors reach the platform. Clients live as long as the process, not as a resource."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from mcp_assets import traces
from mcp_assets.defs.keys import CENSUS, CENSUS_JOB
from mcp_assets.defs.partitions import every_partition
from mcp_assets.logs import describe_process
from mcp_assets.platform import Platform, shared_platform
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The stores and the embedding model, by the settings in the environment. It has no configuration of its own."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Give a run of the census that names no partition all of them, before Dagster asks for its partitions.

        Dagster fails such a run before any code of the asset begins, once an asset that it depends on is materialized.
        """
        run = context.run
        if run is not None:
            _describe(run)
        if run is None or run.tags.keys() & {PARTITION_NAME_TAG, ASSET_PARTITION_RANGE_START_TAG}:
            return
        if run.job_name == CENSUS_JOB or CENSUS in (run.asset_selection or ()):
            every = every_partition(self.get().settings)
            assert context.instance is not None  # noqa: S101  (a run has an instance)
            # In the storage for the UI, and in the run that the steps are given, whose tags are a dict.
            context.instance.add_run_tags(run.run_id, every)
            assert isinstance(run.tags, dict)  # noqa: S101
            run.tags.update(every)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Write what the run has not written yet of its costs and spans: its process ends next."""
        if context.run is not None:
            self.get().companion(EmbeddingCosts).write()
            traces.flush()

    def get(self) -> Platform:
        return shared_platform()


def _describe(run: dg.DagsterRun) -> None:
    """Have the lines of logs name the run."""
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    named = f"{first}...{last}" if first and first != last else first
    describe_process(run=run.run_id, job=run.job_name, partitions=run.tags.get(PARTITION_NAME_TAG) or named)


_NAME = "platform"
"""Under which assets and jobs ask for the resource."""


def platform_of(given: Mapping[str, Any]) -> PlatformResource:
    """The resource for settings that the component's defs.yaml gives: `given`, by field.

    A process that works on a run evaluates the definitions before, and so has its settings from the same file. If that
    file has changed since the definitions were loaded that launched the run, the run fails: a partition, for example,
    would mean other entities than the UI shows for it. What was given is in the description of the resource, which
    Dagster keeps with each run.
    """

    class Given(PlatformResource):
        def setup_for_execution(self, context: dg.InitResourceContext) -> None:
            launched = _description_at_launch(context)
            if launched is not None and launched != Given.__doc__:
                raise dg.Failure(
                    f"the definitions that launched this run had other settings ({launched}) than defs.yaml has now "
                    f"({Given.__doc__}): reload the code location, and launch the run again",
                    allow_retries=False,
                )
            super().setup_for_execution(context)

        def get(self) -> Platform:
            return shared_platform(given)

    Given.__doc__ = f"mcp_assets, with these settings from defs.yaml: {json.dumps(given, sort_keys=True)}"
    return Given()


def _description_at_launch(context: dg.InitResourceContext) -> str | None:
    """The description that the resource had in the definitions that launched the run; None outside a run."""
    run = context.run
    if run is None or run.job_snapshot_id is None or context.instance is None:
        return None
    snapshot = context.instance.get_job_snapshot(run.job_snapshot_id)
    resources = (one for mode in snapshot.mode_def_snaps for one in mode.resource_def_snaps)
    return next((one.description for one in resources if one.name == _NAME), None)


@contextmanager
def embedding_until_interrupted(platform: Platform) -> Iterator[Platform]:
    """The platform for a run. Once it is interrupted, its process sends no more requests to the embedding provider.

    Otherwise a thread whose request is in flight at that moment would send the next one.
    """
    try:
        yield platform
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        platform.stop_embedding()
        raise
