"""The launcher of Celery workers: when a run counts as lost, and to which queue it goes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from dagster_warm_launcher import PROMPT_TAG
from dagster_warm_launcher.celery_launcher import WarmCeleryRunLauncher


class Workers:
    """What the workers of a broker say that they have, on a clock that the test moves."""

    def __init__(self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.launcher = WarmCeleryRunLauncher(
            default_queue="dagster", prompt_queue="prompt", broker="memory://", backend="cache+memory://"
        )
        self.launcher.register_instance(instance)
        self.now = 1000.0
        self.active: dict[str, list[dict[str, Any]]] | None = None
        monkeypatch.setattr("dagster_warm_launcher.celery_launcher.time.monotonic", lambda: self.now)
        inspect = SimpleNamespace(active=lambda: self.active)
        monkeypatch.setattr(self.launcher.celery.control, "inspect", lambda **_: inspect)

    def status(self, run: dg.DagsterRun) -> WorkerStatus:
        return self.launcher.check_run_worker_health(run).status


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def workers(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(instance, monkeypatch)


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    made: dg.DagsterRun = create_run_for_test(instance, job_name="any")
    return made


def test_a_run_is_lost_once_no_worker_has_said_for_long_that_it_has_it(workers: Workers, run: dg.DagsterRun) -> None:
    workers.active = {"east@host": [{"id": run.run_id}]}
    assert workers.status(run) is WorkerStatus.RUNNING
    workers.active = {"west@host": [{"id": "another"}]}
    for _ in range(3):
        workers.now += 15
        assert workers.status(run) is WorkerStatus.RUNNING, "an answer may be late"
    workers.now += 15
    assert workers.status(run) is WorkerStatus.FAILED


def test_a_run_whose_worker_answers_again_is_not_lost(workers: Workers, run: dg.DagsterRun) -> None:
    for active in (None, None, {"east@host": [{"id": run.run_id}]}, None, None, None):
        workers.now += 15
        workers.active = active
        assert workers.status(run) is WorkerStatus.RUNNING


def test_a_run_that_its_worker_took_and_never_began_is_marked_as_failed_and_one_that_waits_is_not(
    workers: Workers, instance: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    taken, waiting = (
        create_run_for_test(instance, job_name="any", status=dg.DagsterRunStatus.STARTING).run_id for _ in range(2)
    )
    workers.launcher.celery.backend.store_result(taken, None, "STARTED")
    for _ in range(5):
        workers.now += 15
        workers.status(run)
    statuses = [found.status for found in (instance.get_run_by_id(taken), instance.get_run_by_id(waiting)) if found]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTING]


@pytest.mark.parametrize(
    ("state", "status"),
    [("SUCCESS", WorkerStatus.SUCCESS), ("FAILURE", WorkerStatus.FAILED), ("REVOKED", WorkerStatus.FAILED)],
)
def test_a_run_whose_process_has_ended_is_as_its_worker_says(
    workers: Workers, run: dg.DagsterRun, state: str, status: WorkerStatus
) -> None:
    workers.launcher.celery.backend.store_result(run.run_id, None, state)
    assert workers.status(run) is status


def test_runs_that_a_sensor_wants_at_once_do_not_wait_behind_others(workers: Workers, run: dg.DagsterRun) -> None:
    prompt, chosen = {PROMPT_TAG: "true"}, {"dagster-celery/queue": "chosen"}
    queues = [workers.launcher._queue_of(run.with_tags(tags)) for tags in ({}, prompt, prompt | chosen)]
    assert queues == ["dagster", "prompt", "chosen"]
