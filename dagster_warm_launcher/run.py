"""What a forked process does for its run: opens Dagster's instance, tags the run with its process, and executes it."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack

from dagster import DagsterInstance, DagsterRunStatus

from dagster_warm_launcher.dagster_internals import (
    EngineEventData,
    InstanceRef,
    capture_interrupts,
    deserialize_value,
    execute_run_command_body,
    get_run_crash_explanation,
    serializable_error_info_from_exc_info,
)
from dagster_warm_launcher.frames import send_frame
from dagster_warm_launcher.made_storage import storage_is_made
from dagster_warm_launcher.run_process import RunProcess

TERMINATION_GRACE_S = 10.0
"""How long a terminated run may take to end by itself: its threads may hang in requests with time-outs of minutes."""


def execute(instance_ref: str, run_id: str, answer: socket.socket) -> int:
    """Execute `run_id` in this process, after it has sent to `answer` that it begins, or why it does not.

    Returns:
        The process's exit code; 0 also for a run that failed, as long as the run says so itself.
    """
    storage_is_made()
    with capture_interrupts(), ExitStack() as stack:
        terminated = end_when_terminated()
        with answer:
            try:
                instance = stack.enter_context(DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)))
                instance.add_run_tags(run_id, RunProcess.this(run_id).as_tags())
            except Exception:  # noqa: BLE001  (the launcher raises it where Dagster fails the run)
                send_frame(answer, {"error": traceback.format_exc()})
                return 0
            _tell(answer, {"pid": os.getpid()})
        # From here on a termination finds this process; one that came before has left its mark in the status.
        carry_out(instance, run_id)
    if terminated.is_set():
        # Python would first wait for the run's threads, which go on although Dagster has recorded the run's end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def carry_out(instance: DagsterInstance, run_id: str) -> None:
    """Execute the run in this process, which notices terminations; a run that is to be canceled ends as canceled."""
    if _cancel_if_asked(instance, run_id):
        return
    try:
        execute_run_command_body(run_id, instance, lambda _event: None, set_exit_code_on_failure=False)
    except Exception:
        _report_failure(instance, run_id)
        raise
    _cancel_if_asked(instance, run_id)


def end_when_terminated() -> threading.Event:
    """Kill this process TERMINATION_GRACE_S after a SIGTERM, should it live on; the forkserver reports the death.

    Python's own handlers run in the main thread, which may wait for other threads for long.

    Returns:
        What is set once a SIGTERM has come.
    """
    terminated = threading.Event()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        # Both ends stay open as long as this thread lives.
        with receiver, sender:
            while signal.SIGTERM not in receiver.recv(64):
                pass
            terminated.set()
            time.sleep(TERMINATION_GRACE_S)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="termination", daemon=True).start()
    return terminated


def report_death(instance_ref: str, run_id: str, exit_code: int) -> int:
    """Mark a run as failed, or canceled if that was wanted, whose process ended without a word.

    Args:
        exit_code: of the run's process; negative for the signal that killed it.
    """
    with DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return 0
        message = get_run_crash_explanation(f"The process of run {run_id}", exit_code)
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
    return 0


def _tell(answer: socket.socket, message: dict[str, object]) -> None:
    """Send the launcher its answer. If it is dead by now, the run goes on, because no other process will start it."""
    try:
        send_frame(answer, message)
    except (BrokenPipeError, ConnectionResetError):
        return


def _cancel_if_asked(instance: DagsterInstance, run_id: str) -> bool:
    """End the run as canceled if a termination was asked for when nothing was executing that could notice."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise LookupError(f"run {run_id} was deleted while its process worked on it")
    if run.status != DagsterRunStatus.CANCELING:
        return False
    instance.report_run_canceled(run)
    return True


def _report_failure(instance: DagsterInstance, run_id: str) -> None:
    """Say why a run ended before Dagster's execution could: the process's own output is read by few."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    error = serializable_error_info_from_exc_info(sys.exc_info())
    instance.report_engine_event("The run could not be executed.", run, EngineEventData.engine_error(error))
    instance.report_run_failed(run)
