"""What becomes of runs that are canceled or killed, and of runs whose forkserver or daemon is."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from dagster_warm_launcher.run_process import RunProcess
from mcp_assets_tests.integration.launcher.conftest import Location, forkservers_of
from mcp_assets_tests.waiting import until

MakeLocation = Callable[[str], Location]

PATIENT = """
    import json

    @dg.asset
    def patient(context):
        (OUT / context.run_id).write_text(json.dumps([os.getpid(), os.getppid()]))
        while not (OUT / "enough").exists():
            time.sleep(0.02)

    defs = dg.Definitions([patient], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""


def run_of(location: Location, run_id: str) -> DagsterRun:
    run = location.instance.get_run_by_id(run_id)
    assert run is not None
    return run


def status_of(location: Location, run_id: str) -> WorkerStatus:
    return location.instance.run_launcher.check_run_worker_health(run_of(location, run_id)).status


def test_a_run_terminated_from_another_process_ends_as_canceled(make_location: MakeLocation, home: Path) -> None:
    location = make_location(PATIENT)
    run_id = location.launch()
    pid, _ = location.trace(run_id)
    elsewhere = """
        import sys
        from dagster import DagsterInstance
        with DagsterInstance.from_config(sys.argv[1]) as instance:
            run = instance.get_run_by_id(sys.argv[2])
            print(instance.run_launcher.check_run_worker_health(run).status.value)
            print(instance.run_launcher.terminate(sys.argv[2]))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(elsewhere), str(home), run_id],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split() == ["RUNNING", "True"]
    assert location.finish(run_id).status == DagsterRunStatus.CANCELED
    until(lambda: not psutil.pid_exists(pid), "the run's process has ended")
    assert location.instance.run_launcher.terminate(run_id) is False, "it has ended already"


def test_a_run_canceled_before_its_process_begins_is_never_executed(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    run = location.create(status=DagsterRunStatus.STARTING)
    assert location.instance.run_launcher.terminate(run.run_id) is True
    location.instance.run_launcher.launch_run(LaunchRunContext(run, location.workspace))
    assert location.finish(run.run_id).status == DagsterRunStatus.CANCELED
    location.instance.run_launcher.join()
    assert not (location.out / run.run_id).exists()


def test_a_run_terminated_while_its_process_begins_ends_as_canceled(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    run_id = location.launch()
    assert location.instance.run_launcher.terminate(run_id) is True
    assert location.finish(run_id).status == DagsterRunStatus.CANCELED, location.messages(run_id)


@pytest.mark.parametrize("hangs", ["in a thread of its own", "in the main thread, deaf to interrupts"])
def test_a_terminated_run_that_hangs_is_ended_and_canceled(make_location: MakeLocation, hangs: str) -> None:
    location = make_location(
        f"""
        import json, threading
        from dagster_warm_launcher import run

        run.TERMINATION_GRACE_S = 0.5
        forever = threading.Event()

        @dg.asset
        def hanging(context):
            # As a request to a provider that does not answer.
            worker = threading.Thread(target=forever.wait)
            worker.start()
            (OUT / context.run_id).write_text(json.dumps([os.getpid(), os.getppid()]))
            if {hangs == "in a thread of its own"}:
                while True:
                    time.sleep(0.02)
            try:
                worker.join()
            finally:
                worker.join()

        defs = dg.Definitions([hanging], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
        """
    )
    run_id = location.launch()
    pid, _ = location.trace(run_id)
    assert location.instance.run_launcher.terminate(run_id) is True
    assert location.finish(run_id).status == DagsterRunStatus.CANCELED, location.messages(run_id)
    until(lambda: not psutil.pid_exists(pid), "the run's process has ended")


def test_a_killed_run_is_unhealthy_and_fails_saying_so(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    run_id = location.launch()
    pid, _ = location.trace(run_id)
    assert status_of(location, run_id) == WorkerStatus.RUNNING
    os.kill(pid, signal.SIGKILL)
    until(lambda: status_of(location, run_id) == WorkerStatus.FAILED, "its death is noticed")
    assert location.finish(run_id).status == DagsterRunStatus.FAILURE
    assert "was terminated by signal 9 (SIGKILL)" in location.messages(run_id)
    assert location.instance.run_launcher.terminate(run_id) is False


def test_terminating_a_run_whose_process_is_gone_cancels_it(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    run = location.create(status=DagsterRunStatus.STARTED)
    gone = RunProcess.this(run.run_id)
    # This process's number, but not its start: signalling it would end the tests.
    location.instance.add_run_tags(run.run_id, replace(gone, started="long ago").as_tags())
    assert status_of(location, run.run_id) == WorkerStatus.FAILED
    assert location.instance.run_launcher.terminate(run.run_id) is False
    assert run_of(location, run.run_id).status == DagsterRunStatus.CANCELED


def test_of_a_run_on_another_host_nothing_is_claimed(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    run = location.create(status=DagsterRunStatus.STARTED)
    location.instance.add_run_tags(run.run_id, replace(RunProcess.this(run.run_id), host="elsewhere").as_tags())
    assert status_of(location, run.run_id) == WorkerStatus.UNKNOWN
    assert location.instance.run_launcher.terminate(run.run_id) is False
    assert "terminate it from that host" in location.messages(run.run_id)


def test_a_reexecution_is_not_taken_for_the_process_of_its_parent(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    child = location.create(status=DagsterRunStatus.STARTED, tags=RunProcess.this("the parent").as_tags())
    assert status_of(location, child.run_id) == WorkerStatus.NOT_FOUND
    assert location.instance.run_launcher.terminate(child.run_id) is False, "and this process lives on"


def test_a_killed_forkserver_is_replaced_and_its_runs_go_on(make_location: MakeLocation) -> None:
    location = make_location(PATIENT)
    first = location.launch()
    pid, parent = location.trace(first)
    assert [process.pid for process in forkservers_of(os.getpid())] == [parent]
    os.kill(parent, signal.SIGKILL)
    second = location.launch()
    _, other_parent = location.trace(second)
    assert other_parent != parent
    assert psutil.pid_exists(pid)
    (location.out / "enough").touch()
    for run_id in (first, second):
        assert location.finish(run_id).status == DagsterRunStatus.SUCCESS, location.messages(run_id)
    assert [process.pid for process in forkservers_of(os.getpid())] == [other_parent]


def test_runs_outlive_a_killed_daemon_and_the_forkserver_ends_after_them(
    make_location: MakeLocation, home: Path
) -> None:
    location = make_location(PATIENT)
    runs = [location.create().run_id for _ in range(2)]
    daemon = subprocess.Popen(
        [sys.executable, "-m", "mcp_assets_tests.integration.launcher.daemon", home, location.file, *runs],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with daemon:
        try:
            processes = {run_id: location.trace(run_id) for run_id in runs}
        finally:
            daemon.kill()
        ((_, forkserver), *_) = processes.values()
        daemon.wait()
        # The pipe that the runs would write to is closed, too.
    assert all(psutil.pid_exists(pid) for pid, _ in processes.values())
    # The forkserver stays for as long as its runs do, to notice should one of them die.
    os.kill(processes[runs[1]][0], signal.SIGKILL)
    assert location.finish(runs[1]).status == DagsterRunStatus.FAILURE
    (location.out / "enough").touch()
    assert location.finish(runs[0]).status == DagsterRunStatus.SUCCESS, location.messages(runs[0])
    until(lambda: not psutil.pid_exists(forkserver), "the forkserver has ended")
    until(lambda: not psutil.pid_exists(processes[runs[0]][0]), "the run's process has ended")


def test_an_idle_forkserver_ends_with_its_launcher(make_location: MakeLocation, instance: DagsterInstance) -> None:
    location = make_location(PATIENT)
    (location.out / "enough").touch()
    run_id = location.succeed()
    assert json.loads((location.out / run_id).read_text())[1] == forkservers_of(os.getpid())[0].pid
    instance.run_launcher.dispose()
    until(lambda: not forkservers_of(os.getpid()), "the forkserver has ended and is reaped")
