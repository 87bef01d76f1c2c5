"""The Celery app of the workers that execute runs: `celery --app dagster_warm_launcher.celery_worker worker`.

Broker, queues and modules are those of the run launcher in the worker's own dagster.yaml. The worker imports Dagster,
and evaluates the definitions of these modules, before it takes its first run. Each run is a fork of it: it begins
without importing anything, and ends with its process.
"""

import logging
import os
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import worker_init, worker_process_init
from dagster import DagsterInstance, DagsterRunStatus

from dagster_warm_launcher.before_fork import load_for_runs
from dagster_warm_launcher.celery_launcher import EXECUTE_RUN, WORKER_TAG, WarmCeleryRunLauncher
from dagster_warm_launcher.dagster_internals import (
    InstanceRef,
    capture_interrupts,
    loadable_targets_from_python_module,
    repository_def_from_target_def,
)
from dagster_warm_launcher.preload import import_plugins, reseed
from dagster_warm_launcher.run import carry_out, end_when_terminated


def instance_ref() -> InstanceRef:
    """Dagster's instance as the worker's dagster.yaml has it; nothing is opened.

    Raises:
        SystemExit: there is none, or its run launcher is another one.
    """
    home = os.environ.get("DAGSTER_HOME", "")
    if not (Path(home) / "dagster.yaml").is_file() or not home:
        raise SystemExit("DAGSTER_HOME does not name a folder with a dagster.yaml: set it to the worker's own folder")
    found: InstanceRef = InstanceRef.from_dir(home)
    if not isinstance(found.run_launcher, WarmCeleryRunLauncher):
        raise SystemExit(
            f"the run launcher in {home}/dagster.yaml is not dagster_warm_launcher.celery_launcher."
            "WarmCeleryRunLauncher: copy it from the daemon's dagster.yaml, because both have to name one broker"
        )
    return found


def make_app() -> Celery:
    """The app on the broker that dagster.yaml names."""
    launcher = instance_ref().run_launcher
    assert isinstance(launcher, WarmCeleryRunLauncher)  # noqa: S101  (instance_ref has seen to it)
    return launcher.celery


app = make_app()


@worker_init.connect
def preload(**_: Any) -> None:
    """Import what runs need, in the process from which they are forked. A module that fails ends the worker."""
    import_plugins(instance_ref())
    for module in app.conf.include:
        for target in loadable_targets_from_python_module(module, working_directory=None):
            # Only for what the definitions import: each run evaluates them again.
            repository_def_from_target_def(target.target_definition)
    load_for_runs()


@worker_process_init.connect
def begin(**_: Any) -> None:
    """What a fork does first."""
    reseed()
    # At the level INFO, at which Celery says which runs it has, httpx would log each request of a run.
    logging.getLogger("httpx").setLevel(logging.WARNING)


@app.task(name=EXECUTE_RUN, track_started=True, bind=True)
def execute_run(task: Task, run_id: str) -> None:
    """Execute a run of Dagster in this process. A message that is delivered a second time does nothing."""
    with capture_interrupts():
        end_when_terminated()
        with DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished or run.status is DagsterRunStatus.STARTED:
                return
            instance.add_run_tags(run_id, {WORKER_TAG: task.request.hostname})
            carry_out(instance, run_id)
