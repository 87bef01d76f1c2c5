"""What a warm run is: a process of its own, forked from one that has the current code loaded."""

import json
import os
import signal
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from dagster_warm_launcher.forkserver import LaunchRefused
from mcp_assets_tests.integration.launcher.conftest import Location, forkservers_of
from mcp_assets_tests.waiting import until

MakeLocation = Callable[[str], Location]

HELLO = """
    import json, random, signal
    import numpy.random

    @dg.asset
    def hello(context):
        print("said by the run", flush=True)
        os.system("echo said by its child")
        print("complained by the run", file=sys.stderr, flush=True)
        (OUT / context.run_id).write_text(json.dumps({
            "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
            "signals": [int(signal.getsignal(number)) for number in (signal.SIGCHLD, signal.SIGPIPE)],
            "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                                  if os.path.exists(f"/proc/self/fd/{fd}")),
            "randoms": [random.random(), numpy.random.random()],
        }))

    defs = dg.Definitions([hello], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""

VERSIONED = """
    @dg.asset
    def versioned(context):
        (OUT / context.run_id).write_text('"{version}"')

    defs = dg.Definitions([versioned], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""


def test_a_run_succeeds_and_its_output_is_in_the_compute_logs(make_location: MakeLocation) -> None:
    location = make_location(HELLO)
    run_id = location.succeed()
    events = location.instance.all_logs(run_id)
    materialized = [
        event.dagster_event.asset_key
        for event in events
        if event.dagster_event and event.dagster_event.is_step_materialization
    ]
    assert materialized == [AssetKey("hello")]
    (captured,) = [
        event.dagster_event
        for event in events
        if event.dagster_event and event.dagster_event.event_type == DagsterEventType.LOGS_CAPTURED
    ]
    log = location.instance.compute_log_manager.get_log_data(
        [run_id, "compute_logs", captured.logs_captured_data.file_key]
    )
    assert log.stdout is not None
    assert log.stderr is not None
    assert log.stdout.decode().splitlines() == ["said by the run", "said by its child"]
    assert "complained by the run" in log.stderr.decode()


def test_runs_of_unchanged_code_are_forks_of_one_process_that_share_nothing_else(make_location: MakeLocation) -> None:
    location = make_location(HELLO)
    first, second = (location.trace(location.succeed()) for _ in range(2))
    (forkserver,) = forkservers_of(os.getpid())
    assert first["parent"] == second["parent"] == forkserver.pid
    assert first["pid"] != second["pid"]
    assert first["session"] == first["pid"]
    assert first["signals"] == [signal.SIG_DFL, signal.SIG_IGN], "as Python starts with"
    assert not set(first["randoms"]) & set(second["randoms"])
    theirs = {str(descriptor.readlink()) for descriptor in Path(f"/proc/{forkserver.pid}/fd").iterdir()}
    assert len({name for name in theirs if name.startswith("socket:")}) == 3, "its control socket and its alarm"
    assert not {name for name in theirs & set(first["descriptors"]) if name.startswith("socket:")}


def test_code_edited_between_two_runs_is_seen_even_within_a_second_and_at_the_same_length(
    make_location: MakeLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    location = make_location(VERSIONED.format(version="1"))
    second = location.file.stat().st_mtime_ns // 10**9 * 10**9
    os.utime(location.file, ns=(second, second))
    assert location.trace(location.succeed()) == "1"
    location.edit(VERSIONED.format(version="2"))
    os.utime(location.file, ns=(second + 1, second + 1))
    assert location.trace(location.succeed()) == "2"
    until(lambda: len(forkservers_of(os.getpid())) == 1, "the forkserver with the old code has ended")


def test_a_location_that_does_not_load_fails_the_run_with_the_reason_and_works_again_once_mended(
    make_location: MakeLocation,
) -> None:
    location = make_location(VERSIONED.format(version="1"))
    sound = location.file.read_text()
    location.file.write_text("import there_is_no_such_module\n")
    run = location.create()
    with pytest.raises(LaunchRefused, match="No module named 'there_is_no_such_module'"):
        location.instance.launch_run(run.run_id, location.workspace)
    assert location.finish(run.run_id).status == DagsterRunStatus.FAILURE
    assert f"code location '{location.name}' cannot be loaded" in location.messages(run.run_id)
    location.file.write_text(sound)
    assert location.trace(location.succeed()) == "1"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "import threading; threading.Thread(target=time.sleep, args=[60], name='early', daemon=True).start()",
            "early",
        ),
        ("import socket; early = socket.create_server(('127.0.0.1', 0))", "opens connections"),
        ("os._exit(7)", "ended with code 7"),
    ],
)
def test_a_location_that_cannot_be_forked_is_refused(make_location: MakeLocation, statement: str, reason: str) -> None:
    # Not in the test's own process, which loads the location as the code server does.
    location = make_location(
        f"if 'dagster_warm_launcher.serving' in sys.modules:\n    {statement}\n" + textwrap.dedent(VERSIONED)
    )
    with pytest.raises(LaunchRefused, match=reason):
        location.launch()


AHEAD = """
    import json
    from dagster_warm_launcher.before_fork import before_fork
    from dagster_warm_launcher.made_storage import is_storage_made

    loaded_in = []
    before_fork("test", lambda: loaded_in.append(-1))
    before_fork("test", lambda: loaded_in.append(os.getpid()))
    (OUT / f"evaluated by {os.getpid()}").write_text(json.dumps([loaded_in, is_storage_made()]))

    @dg.asset
    def ahead(context):
        (OUT / context.run_id).write_text(json.dumps([loaded_in, is_storage_made()]))

    defs = dg.Definitions([ahead], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""


def test_what_a_location_has_loaded_before_the_fork_is_loaded_once_and_only_where_runs_are_forked(
    make_location: MakeLocation,
) -> None:
    location = make_location(AHEAD)
    runs = [location.succeed() for _ in range(2)]
    (forkserver,) = forkservers_of(os.getpid())
    assert location.trace(f"evaluated by {os.getpid()}")[0] == [], "the code server forks nothing"
    # A run evaluates the definitions again, and the module is that of the forkserver.
    assert [location.trace(run_id)[0] for run_id in runs] == [[forkserver.pid]] * 2


def test_a_run_knows_that_its_storage_is_made_and_no_other_process_does(make_location: MakeLocation) -> None:
    location = make_location(AHEAD)
    assert location.trace(location.succeed())[1] is True
    (forkserver,) = forkservers_of(os.getpid())
    for pid in (os.getpid(), forkserver.pid):
        assert location.trace(f"evaluated by {pid}")[1] is False


FAILING_AHEAD = """
    from dagster_warm_launcher.before_fork import before_fork

    def fail():
        raise OSError("the model's files are gone")

    before_fork("test", fail)

    @dg.asset
    def never(context):
        pass

    defs = dg.Definitions([never], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""


def test_a_location_whose_loading_ahead_fails_fails_the_run_with_the_reason(make_location: MakeLocation) -> None:
    location = make_location(FAILING_AHEAD)
    with pytest.raises(LaunchRefused, match="the model's files are gone"):
        location.launch()


def test_a_reloaded_code_server_gets_a_new_forkserver(instance: DagsterInstance, make_location: MakeLocation) -> None:
    location = make_location(HELLO)
    target = ModuleTarget(location.name, None, str(location.file.parent), "served")
    location.name = "served"
    with WorkspaceProcessContext(instance, target) as process:
        parents = []
        for reload in (False, False, True):
            if reload:
                process.reload_code_location("served")
            location.workspace = process.create_request_context()
            parents.append(location.trace(location.succeed())["parent"])
    assert parents[0] == parents[1] != parents[2]


def test_launches_from_many_threads_share_one_forkserver_and_leave_nothing_behind(make_location: MakeLocation) -> None:
    location = make_location(
        """
        import json

        @dg.op
        def nothing(context):
            (OUT / context.run_id).write_text(json.dumps(os.getppid()))

        @dg.job(executor_def=dg.in_process_executor)
        def job():
            nothing()

        defs = dg.Definitions(jobs=[job])
        """
    )
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: location.launch(), range(4)))
        for run_id in runs:
            assert location.finish(run_id).status == DagsterRunStatus.SUCCESS, location.messages(run_id)
        (forkserver,) = forkservers_of(os.getpid())
        until(lambda: not forkserver.children(), "the runs' processes are reaped")
        before = (forkserver.num_fds(), psutil.Process().num_fds(), psutil.Process().num_threads())
        more = list(threads.map(lambda _: location.launch(), range(26)))
        for run_id in more:
            assert location.finish(run_id).status == DagsterRunStatus.SUCCESS, location.messages(run_id)
    until(lambda: not forkserver.children(), "the runs' processes are reaped")
    assert {location.trace(run_id) for run_id in runs + more} == {forkserver.pid}
    assert forkserver.num_threads() == 1
    after = (forkserver.num_fds(), psutil.Process().num_fds(), psutil.Process().num_threads() + 4)
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


def test_a_location_is_loaded_with_the_variables_of_its_env_file(
    make_location: MakeLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = make_location(
        """
        import json
        AT_IMPORT = os.environ.get("WARM_TEST", "nothing")

        @dg.asset
        def variable(context):
            (OUT / context.run_id).write_text(json.dumps(AT_IMPORT))

        defs = dg.Definitions([variable], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
        """
    )
    (tmp_path / ".env").write_text("WARM_TEST=from the file\n")
    monkeypatch.setenv("DAGSTER_PROJECT_ENV_FILE_PATHS", json.dumps({location.name: str(tmp_path)}))
    assert location.trace(location.succeed()) == "from the file"


def test_what_a_run_started_and_left_behind_ends_with_it(make_location: MakeLocation) -> None:
    location = make_location(
        """
        import subprocess

        @dg.asset
        def careless(context):
            left_behind = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            (OUT / context.run_id).write_text(str(left_behind.pid))

        defs = dg.Definitions([careless], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
        """
    )
    left = location.trace(location.succeed())
    until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE, "it ended")
