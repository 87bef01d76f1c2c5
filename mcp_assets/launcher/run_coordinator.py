"""Run coordinator: Dagster's queue, except that what a sensor asks for is launched at once while there is room.

The queue is looked at once a second, which is most of the time between an event and its vector. A sensor's run is
submitted by the daemon, which launches runs in any case: it need not write it down for itself and come back later.
"""

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import SENSOR_NAME_TAG


class PromptRunCoordinator(QueuedRunCoordinator[DagsterInstance]):
    """As QueuedRunCoordinator, with the same configuration; runs of sensors do not wait while others could start.

    They wait like any other run where limits by tag are set, or `max_concurrent_runs` are in progress: two runs that
    are submitted in the same moment may both find the last place free.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        if run.status is not DagsterRunStatus.NOT_STARTED or SENSOR_NAME_TAG not in run.tags or not self._has_room():
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        launched = self._instance.get_run_by_id(run.run_id)
        return launched or run

    def _has_room(self) -> bool:
        config = self.get_run_queue_config()
        if config.tag_concurrency_limits:
            return False
        if config.max_concurrent_runs == -1:
            return True
        ahead = RunsFilter(statuses=[*IN_PROGRESS_RUN_STATUSES, DagsterRunStatus.QUEUED])
        return self._instance.get_runs_count(ahead) < config.max_concurrent_runs
