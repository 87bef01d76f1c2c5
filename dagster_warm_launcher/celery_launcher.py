"""The run launcher of Celery workers: dagster.yaml names it, the daemon's threads call it.

It is Dagster's CeleryRunLauncher with three things done otherwise. A run is looked for among what the workers say that
they have, because the result of a task whose worker was killed stays "started" for ever. The task has the id of its
run, so that no run is without one if the daemon is killed in between. A canceled run ends as canceled.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, cast

from dagster import DagsterRun, DagsterRunStatus, Field, Noneable, RunsFilter, StringSource
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG

from dagster_warm_launcher.dagster_internals import (
    CheckRunHealthResult,
    ConfigurableClassData,
    EngineEventData,
    LaunchRunContext,
    UserConfigSchema,
    WorkerStatus,
)
from dagster_warm_launcher.tags import PROMPT_TAG

EXECUTE_RUN = "dagster_warm_launcher.execute_run"
"""The name of the task; its argument is the id of the run."""

WORKER_TAG = "warm_launcher/worker"
"""The tag of a run that says which worker executes it."""

WORKER_SETTINGS: Mapping[str, Any] = {
    # A run is a fork of the worker, which has everything imported, and takes nothing over from the run before.
    "worker_max_tasks_per_child": 1,
    # A worker takes a run when a process is free, so that none waits behind another while a worker is idle.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "broker_connection_retry_on_startup": True,
    # Left on, the workers would write what runs print into their own log, beside Dagster's compute logs.
    "worker_redirect_stdouts": False,
}

_ASKED_EVERY_S = 5.0
"""Seconds for which an answer of the workers stands for all runs: the daemon asks about one run after the other."""

_ANSWERS_WITHIN_S = 2.0
"""Seconds in which workers answer. A run counts as lost only after several questions, so that it need not be long."""

_LOST_AFTER_S = 45.0
"""Seconds in which no worker has said that it has a run, before the run counts as lost: three looks of Dagster's run
monitoring by dagster.yaml. A busy machine delays one answer, hardly three."""


_LOST = (
    f"No Celery worker has said for {_LOST_AFTER_S:.0f} s that it has the run: its worker was killed, or the host of "
    "the worker is gone."
)


class WarmCeleryRunLauncher(CeleryRunLauncher):
    """Executes each run in a fork of a Celery worker that has the code locations imported (`celery_worker`).

    Configured as CeleryRunLauncher; `include` names the modules whose definitions a worker loads before its first run.
    """

    def __init__(self, *args: Any, prompt_queue: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.celery.conf.update(WORKER_SETTINGS)
        self.celery.conf.update(self.config_source)
        self.celery.conf.include = self.include or []
        self._prompt_queue = prompt_queue
        self._lock = threading.Lock()
        self._asked_at = self._looked_at = float("-inf")
        self._held: set[str] = set()
        self._missing_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        stock = cast("dict[str, Field]", super().config_type())
        return {
            **stock,
            "prompt_queue": Field(
                Noneable(StringSource),
                is_required=False,
                description="The queue of runs that a sensor wants at once, so that they do not wait behind backfills.",
            ),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "WarmCeleryRunLauncher":
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to the workers. Raises kombu's OperationalError if the broker does not answer."""
        run = context.dagster_run
        queue = self._queue_of(run)
        self.celery.send_task(EXECUTE_RUN, args=[run.run_id], task_id=run.run_id, queue=queue)
        self._instance.report_engine_event(
            "The run waits for a Celery worker.",
            run,
            EngineEventData({"queue": queue}),
            cls=type(self),
        )

    def _queue_of(self, run: DagsterRun) -> str:
        if DAGSTER_CELERY_QUEUE_TAG in run.tags:
            return run.tags[DAGSTER_CELERY_QUEUE_TAG]
        return self._prompt_queue if self._prompt_queue and PROMPT_TAG in run.tags else self.default_queue

    def terminate(self, run_id: str) -> bool:
        """Cancel the run, whatever worker has it. False if it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        waits = run.status in (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)
        self._instance.report_run_canceling(run)
        # A worker that gets the task later throws it away; the one that has it interrupts its process.
        self.celery.control.revoke(run_id, terminate=True, signal="SIGTERM")
        run = self._instance.get_run_by_id(run_id)
        if waits and run is not None and run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, "The run was canceled before a Celery worker had begun it.")
        return True

    @property
    def supports_resume_run(self) -> bool:
        """No: a run is one step in process, so that resuming it is running it again: retries and sensors do that."""
        return False

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether a worker has the run, or has said how its process ended.

        Runs that were lost while they began are marked as failed by this, too: Dagster asks only about runs that have
        begun, and lets the others be until their start has taken too long.
        """
        self._end_lost_beginnings()
        state = self.celery.AsyncResult(run.run_id).state
        if state == "SUCCESS":
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if state in ("FAILURE", "REVOKED"):
            return CheckRunHealthResult(WorkerStatus.FAILED, "The run's process has ended without saying how.")
        if self._missing_s(run.run_id) < _LOST_AFTER_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, _LOST)

    def _end_lost_beginnings(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _ASKED_EVERY_S:
            return
        self._looked_at = now
        for run in self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTING])):
            # A run that no worker has taken yet has no state: it waits.
            taken = self.celery.AsyncResult(run.run_id).state == "STARTED"
            if taken and self._missing_s(run.run_id) >= _LOST_AFTER_S:
                self._instance.report_run_failed(run, _LOST)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: ARG002  (Dagster's)
        return f"Celery task {run.run_id}: {self.celery.AsyncResult(run.run_id).state}"

    def _missing_s(self, run_id: str) -> float:
        """For how many seconds no worker has said that it has the run; 0 if one has it."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked_at > _ASKED_EVERY_S:
                answers = self.celery.control.inspect(timeout=_ANSWERS_WITHIN_S).active() or {}
                self._held = {task["id"] for tasks in answers.values() for task in tasks}
                self._asked_at = time.monotonic()
                self._missing_since = {
                    known: since for known, since in self._missing_since.items() if known not in self._held
                }
            if run_id in self._held:
                return 0.0
            return now - self._missing_since.setdefault(run_id, now)
