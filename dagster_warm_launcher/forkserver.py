"""The launcher's end of a forkserver: starts it, asks it for runs, lets it go."""

import socket
import subprocess
import threading

import psutil

from dagster_warm_launcher.frames import FrameError, receive_frame, send_frame
from dagster_warm_launcher.loaded_files import edited
from dagster_warm_launcher.preload import Preload

_ANSWER_TIMEOUT_S = 60.0
"""How long a forked process may take to reach Dagster's storage."""

_DEATH_NOTICE_S = 1.0
"""How long after its sockets have closed a dying process may still seem to live."""


class ForkServerGone(Exception):
    """The forkserver died before it forked the run: nothing was started."""


class LaunchRefused(Exception):
    """The forkserver could not be made ready, or the run's process could not begin. The message says why."""


class ForkServer:
    """A running forkserver that has `preload` loaded. Safe to use from several threads.

    The socket to it is the only one there is, without a name in any file system. It ends with this process.
    """

    def __init__(self, executable: str, preload: Preload, edited_files: list[str], timeout_s: float) -> None:
        """Start it, and wait until everything is loaded.

        Args:
            executable: the Python of the code location.
            edited_files: files known to have changed since another forkserver loaded them.
            timeout_s: seconds that loading may take.

        Raises:
            LaunchRefused: the code location could not be loaded.
        """
        self.preload = preload
        self._control, theirs = socket.socketpair()
        self._sending = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [executable, "-m", "dagster_warm_launcher", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A Ctrl-C in the daemon's terminal is not for the runs.
                start_new_session=True,
            )
        # Reaps it whenever it ends, which is after its last run.
        threading.Thread(target=self._process.wait, name=f"forkserver-{self.pid}", daemon=True).start()
        try:
            self._files = self._load(edited_files, timeout_s)
        except BaseException:
            self.close()
            raise

    def _load(self, edited_files: list[str], timeout_s: float) -> dict[str, tuple[int, int]]:
        where = f"code location {self.preload.location_name!r}"
        self._control.settimeout(timeout_s)
        try:
            send_frame(self._control, {**self.preload.as_message(), "edited": edited_files})
            answer = receive_frame(self._control)
        except TimeoutError as error:
            self._process.kill()
            raise LaunchRefused(
                f"{where} was not loaded within {timeout_s:.0f} s, so no run of it can start"
            ) from error
        except (FrameError, ConnectionError):
            answer = None
        if answer is None:
            raise LaunchRefused(
                f"the process that loads {where} for runs ended with code {self._process.wait()} before it was ready;"
                " its error output is with that of the process that launches runs"
            )
        if "error" in answer:
            raise LaunchRefused(f"{where} cannot be loaded for runs:\n{answer['error']}")
        self._control.settimeout(None)
        return {name: (mtime_ns, size) for name, (mtime_ns, size) in answer["files"].items()}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def edited_files(self) -> list[str]:
        """The location's files that are not as they were loaded."""
        return edited(self._files)

    def launch(self, run_id: str) -> int:
        """Fork a process for the run, and return its id once it has begun.

        Raises:
            ForkServerGone: nothing was started; a new forkserver may be asked.
            LaunchRefused: the run's process could not begin.
        """
        answer, theirs = socket.socketpair()
        with answer:
            with theirs:
                try:
                    with self._sending:
                        send_frame(self._control, {"run_id": run_id}, theirs)
                except OSError as error:
                    raise ForkServerGone from error
            answer.settimeout(_ANSWER_TIMEOUT_S)
            try:
                message = receive_frame(answer)
            except TimeoutError as error:
                raise LaunchRefused(f"the run's process did not begin within {_ANSWER_TIMEOUT_S:.0f} s") from error
            except (FrameError, ConnectionError):
                message = None
        if message is None:
            # No process holds the other end any more: the one that was to execute the run is dead.
            raise self._reason_for_silence()
        if "error" in message:
            raise LaunchRefused(f"the run's process could not begin:\n{message['error']}")
        return int(message["pid"])

    def _reason_for_silence(self) -> ForkServerGone | LaunchRefused:
        try:
            self._process.wait(_DEATH_NOTICE_S)
        except subprocess.TimeoutExpired:
            return LaunchRefused("the run's process died before it began; its error output is with the daemon's")
        return ForkServerGone()

    def has_runs(self) -> bool:
        """Whether processes that it forked are still there."""
        try:
            return bool(psutil.Process(self.pid).children())
        except psutil.NoSuchProcess:
            return False

    def close(self) -> None:
        """Let it go: it ends when its last run has."""
        with self._sending:
            self._control.close()
