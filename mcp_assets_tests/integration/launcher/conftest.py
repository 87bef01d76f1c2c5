"""A Dagster instance with the warm launcher, and code locations that tests write into folders of their own."""

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

from dagster_warm_launcher import WarmRunLauncher
from mcp_assets_tests.waiting import until


def out_of(file: Path) -> Path:
    return file.with_suffix(".out")


def write_module(file: Path, body: str) -> None:
    head = f"import os, sys, time\nfrom pathlib import Path\nimport dagster as dg\nOUT = Path({str(out_of(file))!r})\n"
    file.write_text(head + textwrap.dedent(body))


class Location:
    """A code location in a module of its own, and the runs of its jobs.

    The assets that tests write find a folder `OUT` for their traces.
    """

    def __init__(self, instance: DagsterInstance, file: Path) -> None:
        self.instance = instance
        self.file = file
        self.name = file.stem
        self.out = out_of(file)
        target = LoadableTargetOrigin(
            executable_path=sys.executable, module_name=self.name, working_directory=str(file.parent)
        )
        self._stack = ExitStack()
        context = self._stack.enter_context(
            WorkspaceProcessContext(
                instance,
                InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(target, location_name=self.name)),
            )
        )
        self.workspace: WorkspaceRequestContext = context.create_request_context()

    def edit(self, body: str) -> None:
        write_module(self.file, body)

    def create(self, job: str = "job", **settings: Any) -> DagsterRun:
        location = self.workspace.get_code_location(self.name)
        (repository,) = location.get_repositories().values()
        remote = repository.get_full_job(job)
        run: DagsterRun = create_run_for_test(
            self.instance,
            job_name=job,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
            **settings,
        )
        return run

    def launch(self, job: str = "job", **settings: Any) -> str:
        run_id = self.create(job, **settings).run_id
        self.instance.launch_run(run_id, self.workspace)
        return run_id

    def finish(self, run_id: str) -> DagsterRun:
        def finished() -> DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run is not None and run.is_finished else None

        run = until(finished, f"run {run_id} is finished")
        assert isinstance(run, DagsterRun)
        return run

    def succeed(self, job: str = "job", **settings: Any) -> str:
        run_id = self.launch(job, **settings)
        assert self.finish(run_id).status == DagsterRunStatus.SUCCESS, self.messages(run_id)
        return run_id

    def messages(self, run_id: str) -> str:
        """What the run's event log says, errors included."""
        events = self.instance.all_logs(run_id)
        errors = [
            event.dagster_event.event_specific_data
            for event in events
            if event.dagster_event is not None and event.dagster_event.event_specific_data is not None
        ]
        return "\n".join([*(event.message or event.user_message for event in events), *map(str, errors)])

    def trace(self, name: str) -> Any:
        """What an asset wrote as JSON into `out`, once it has."""
        path = self.out / name
        return until(lambda: path.exists() and path.read_text() and json.loads(path.read_text()), f"{name} exists")

    def close(self) -> None:
        # Lets go of whatever run of the test still waits.
        (self.out / "enough").touch()
        self._stack.close()
        sys.modules.pop(self.name, None)


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME on SQLite with the warm launcher."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "dagster.yaml").write_text(
        json.dumps(
            {
                "telemetry": {"enabled": False},
                "run_launcher": {"module": "dagster_warm_launcher", "class": "WarmRunLauncher"},
            }
        )
    )
    return folder


@pytest.fixture(scope="package")
def instance(home: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(home)) as opened:
        assert isinstance(opened.run_launcher, WarmRunLauncher)
        yield opened
    until(lambda: not forkservers_of(os.getpid()), "the forkservers of a disposed instance have ended")


@pytest.fixture
def make_location(instance: DagsterInstance, tmp_path: Path) -> Iterator[Callable[[str], Location]]:
    """Makes locations of a test's own on the shared instance."""
    with ExitStack() as stack:

        def make(body: str) -> Location:
            file = tmp_path / f"location_{uuid4().hex}.py"
            out_of(file).mkdir()
            write_module(file, body)
            location = Location(instance, file)
            stack.callback(location.close)
            return location

        yield make
    instance.run_launcher.join()
    instance.run_launcher.dispose()


def forkservers_of(pid: int) -> list[psutil.Process]:
    """The forkservers that process `pid` has started, those that it has not reaped among them."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            # A zombie has lost its arguments. Dagster's code servers may be zombies too, but lead no session.
            if "dagster_warm_launcher" in child.cmdline() or (_is_zombie(child) and os.getsid(child.pid) == child.pid):
                found.append(child)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def _is_zombie(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE
