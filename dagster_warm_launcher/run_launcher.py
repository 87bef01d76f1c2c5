"""The run launcher plugin: dagster.yaml names it, the daemon's threads call it."""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Self

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from dagster_warm_launcher.dagster_internals import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    GrpcServerCodeLocation,
    LaunchRunContext,
    RunLauncher,
    UserConfigSchema,
    WorkerStatus,
    serialize_value,
)
from dagster_warm_launcher.forkserver import ForkServer, ForkServerGone, LaunchRefused
from dagster_warm_launcher.preload import Preload
from dagster_warm_launcher.run_process import ProcessState, RunProcess

_LOADS = 3
"""How often a code location that is edited while it is loaded is loaded again."""

_BEGIN_PATIENCE_S = 3.0
"""How long a termination waits for a run that is about to begin."""

_POLL_S = 0.05

_BEGINNING = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)


class WarmRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Executes each run in a fork of a process that has Dagster and the run's code location loaded.

    There is one forkserver for each code location, started at the first launch and in the process that launches. A new
    one takes its place when the code server was reloaded, when a file of the location has changed, or when it died.
    The code location must be installed on the host that launches: the runs are here, not where its code server is.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._lock = threading.Lock()
        self._location_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._current: dict[str, ForkServer] = {}
        self._replaced: list[ForkServer] = []
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run, and return once its process has begun.

        Raises:
            LaunchRefused: the code location cannot be loaded, or the process cannot begin. Dagster fails the run with
                this message; nothing else is tried, for what would run instead might not be what is in the files.
        """
        run = context.dagster_run
        origin = run.job_code_origin
        if origin is None:
            raise LaunchRefused(f"run {run.run_id} does not say where its code is, so it cannot be launched")
        location_name, server_id = _location_of(context)
        preload = Preload(
            instance_ref=serialize_value(self._instance.get_ref()),
            repository_origin=serialize_value(origin.repository_origin),
            location_name=location_name,
            server_id=server_id,
        )
        try:
            self._forkserver(origin.executable_path, preload).launch(run.run_id)
        except ForkServerGone:
            try:
                self._forkserver(origin.executable_path, preload).launch(run.run_id)
            except ForkServerGone as error:
                raise LaunchRefused(
                    "the process from which runs are forked was killed twice in a row while it was asked for this run"
                ) from error

    def _forkserver(self, executable: str, preload: Preload) -> ForkServer:
        """One that has exactly `preload` and the files as they are now: the current one, or a new one."""
        with self._lock:
            location_lock = self._location_locks[preload.location_name]
        with location_lock:
            current = self._current.get(preload.location_name)
            edited: list[str] = []
            if current is not None:
                edited = current.edited_files()
                if current.alive and current.preload == preload and not edited:
                    return current
                self._let_go(current)
            for _ in range(_LOADS):
                started = ForkServer(executable, preload, edited, self._instance.code_server_process_startup_timeout)
                self._current[preload.location_name] = started
                edited = started.edited_files()
                if not edited:
                    return started
                self._let_go(started)
            raise LaunchRefused(
                f"files of code location {preload.location_name!r} changed each time while they were being loaded:"
                f" {', '.join(edited)}. Launch the run again when they are at rest"
            )

    def _let_go(self, forkserver: ForkServer) -> None:
        with self._lock:
            self._current.pop(forkserver.preload.location_name, None)
            self._replaced = [*(replaced for replaced in self._replaced if replaced.alive), forkserver]
        forkserver.close()

    def terminate(self, run_id: str) -> bool:
        """Cancel the run, from whatever process on the run's host. False if there was no process to end."""
        run = self._begun(run_id)
        if run is None or run.is_finished:
            return False
        beginning = run.status in _BEGINNING
        self._instance.report_run_canceling(run)
        # Read again: a process that begins only now writes its tag first and looks at the status then.
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        process = RunProcess.of(run)
        if process is None:
            self._instance.report_engine_event(
                "The run has no process; one that begins for it sees that it is canceled.", run, cls=type(self)
            )
            return beginning
        match process.state():
            case ProcessState.ELSEWHERE:
                self._instance.report_engine_event(
                    f"The run is {process}, which cannot be ended from here: terminate it from that host.",
                    run,
                    cls=type(self),
                )
                return False
            case ProcessState.GONE:
                self._instance.report_run_canceled(run, f"The run's {process} had ended before it could be terminated.")
                return False
            case ProcessState.ALIVE:
                return self._interrupt(run, process)

    def _begun(self, run_id: str) -> DagsterRun | None:
        """The run, once it is no longer about to begin, or has been for long.

        Dagster takes a run that is canceled at that moment for one that failed: its start overwrites the cancellation.
        """
        deadline = time.monotonic() + _BEGIN_PATIENCE_S
        while True:
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.status not in _BEGINNING or time.monotonic() > deadline:
                return run
            time.sleep(_POLL_S)

    def _interrupt(self, run: DagsterRun, process: RunProcess) -> bool:
        try:
            process.interrupt()
        except ProcessLookupError:
            return False  # it has just ended, and said how
        except PermissionError:
            self._instance.report_engine_event(
                f"The run's {process} belongs to another user: terminate it as that user.", run, cls=type(self)
            )
            return False
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process lives. UNKNOWN from another host, from which nothing can be said."""
        process = RunProcess.of(run)
        if process is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The run's tags name no process.")
        match process.state():
            case ProcessState.ALIVE:
                return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(process.pid))
            case ProcessState.ELSEWHERE:
                return CheckRunHealthResult(
                    WorkerStatus.UNKNOWN, f"The run is {process}, which cannot be seen from here."
                )
            case ProcessState.GONE:
                return CheckRunHealthResult(
                    WorkerStatus.FAILED,
                    f"The run's {process} has ended without saying how.",
                    run_worker_id=str(process.pid),
                )

    @property
    def supports_resume_run(self) -> bool:
        """No: a run is one step in process, so that resuming it is running it again: retries and sensors do that."""
        return False

    def join(self, timeout: float = 30) -> None:
        """Wait until no run that was launched from here is left. Raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while any(forkserver.has_runs() for forkserver in (*self._current.values(), *self._replaced)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"runs were still under way after {timeout} s")
            time.sleep(_POLL_S)

    def dispose(self) -> None:
        """Let the forkservers end; runs that are under way go on."""
        for forkserver in list(self._current.values()):
            self._let_go(forkserver)


def _location_of(context: LaunchRunContext) -> tuple[str, str | None]:
    """The name of the run's code location, and which incarnation of its code server the daemon knows.

    Raises whatever Dagster does about a location that does not load.
    """
    origin = context.dagster_run.remote_job_origin
    if origin is None or context.workspace is None:
        raise LaunchRefused(
            f"run {context.dagster_run.run_id} was not submitted from a workspace, so its code location is unknown"
        )
    location = context.workspace.get_code_location(origin.location_name)
    return location.name, location.server_id if isinstance(location, GrpcServerCodeLocation) else None
