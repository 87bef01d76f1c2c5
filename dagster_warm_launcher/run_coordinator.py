"""Run coordinator: Dagster's queue, except that runs which ask for it are launched at once while there is room.

The daemon reads the queue once a second, which is most of the time between an event and its vector. A sensor's run is
submitted by the daemon itself, which launches runs in any case, so that the run need not wait for the next reading.
"""

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from dagster_warm_launcher.dagster_internals import (
    IN_PROGRESS_RUN_STATUSES,
    PRIORITY_TAG,
    SENSOR_NAME_TAG,
    QueuedRunCoordinator,
    SubmitRunContext,
)
from dagster_warm_launcher.tags import PROMPT_TAG


class PromptRunCoordinator(QueuedRunCoordinator[DagsterInstance]):
    """As QueuedRunCoordinator, with the same configuration; a sensor's runs with PROMPT_TAG start while others could.

    They wait like any other run where limits by tag are set, where they belong to a pool or have a priority, or while
    `max_concurrent_runs` are in progress: two runs that are submitted in the same moment may both find the last place
    free. All limits are those of dagster.yaml, whether they stand in its `concurrency:` block or with the coordinator.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        if run.status is not DagsterRunStatus.NOT_STARTED or not _is_prompt(run) or not self._has_room():
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        launched = self._instance.get_run_by_id(run.run_id)
        return launched or run

    def _has_room(self) -> bool:
        # What `get_concurrency_config` of the instance merges, too.
        settings = self._instance.get_settings("concurrency") or {}
        limits = self.get_run_queue_config().with_concurrency_settings(settings)
        if limits.tag_concurrency_limits:
            return False
        if limits.max_concurrent_runs == -1:
            return True
        ahead = RunsFilter(statuses=[*IN_PROGRESS_RUN_STATUSES, DagsterRunStatus.QUEUED])
        return self._instance.get_runs_count(ahead) < limits.max_concurrent_runs


def _is_prompt(run: DagsterRun) -> bool:
    """Whether the run asks not to be queued, and nothing but the queue can say whether its turn has come."""
    pools = run.run_op_concurrency is not None and run.run_op_concurrency.all_pools
    return SENSOR_NAME_TAG in run.tags and PROMPT_TAG in run.tags and PRIORITY_TAG not in run.tags and not pools
