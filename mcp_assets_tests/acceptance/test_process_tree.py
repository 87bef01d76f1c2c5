"""`mcp-assets dev` and its processes: what is killed comes back, and what dev leaves behind when it dies is nothing."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from mcp_assets.embedded import stack
from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import SCRIPTS, Live
from mcp_assets_tests.waiting import until

DEFINITIONS = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"

PATIENCE_S = 180.0
"""A restart imports Dagster; on a busy machine that takes its time."""

Role = Callable[[list[str]], bool]


def has(*words: str) -> Role:
    """The words stand in the command line, one behind the other."""
    return lambda line: any(tuple(line[at : at + len(words)]) == words for at in range(len(line)))


ROLES: dict[str, Role] = {
    "webserver": has("-m", "mcp_assets.webserver"),
    "daemon": has("-m", "dagster._daemon"),
    "code server": has("code-server", "start"),
    "process with the definitions": has("api", "grpc"),
    "forkserver and its runs": has("-m", "dagster_warm_launcher"),
    "keeper": has("-m", "mcp_assets.processes.dagster_services"),
}


@dataclass
class Dev:
    """A running `mcp-assets dev`."""

    live: Live
    process: subprocess.Popen[bytes]
    port: int

    def pids(self, role: Role) -> set[int]:
        """Living processes of that role below dev."""
        found = set()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and role(process.cmdline()):
                    found.add(process.pid)
        return found

    def is_up(self) -> bool:
        """The UI answers and has loaded the definitions."""
        assert self.process.poll() is None, f"dev ended with code {self.process.returncode}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=json.dumps({"query": DEFINITIONS}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                entries = json.load(response)["data"]["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]

    def is_whole(self) -> bool:
        """Each kind of process is there once, but for runs, which have the forkserver's command line."""
        return all(len(self.pids(role)) == 1 for name, role in ROLES.items() if name != "forkserver and its runs")

    def index(self, ref: EntityRef) -> None:
        """Write an entity, publish its event, and wait for its point."""
        self.live.write(ref, f"Note {ref.id}", f"What {ref.id} says")
        self.live.publish([(f"mcp.{ref.type}.created", {"entity_id": ref.id})])
        until(lambda: self.live.audit() == [], f"the points are right with {ref}", within_s=PATIENCE_S)


def start(live: Live) -> Dev:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (live.folder / "dev.log").open("ab") as log:
        process = subprocess.Popen(
            [SCRIPTS / "mcp-assets", "dev", "--port", str(port)],
            cwd=live.folder,
            env={name: value for name, value in live.environment.items() if name != "DAGSTER_HOME"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    dev = Dev(live, process, port)
    until(dev.is_up, "the definitions are loaded", within_s=PATIENCE_S)
    return dev


def left_of(live: Live) -> list[str]:
    """Command lines of the living processes that dev has started."""
    return [
        " ".join(process.cmdline())
        for process in live.processes()
        if process.environ().get("MCP_ASSETS_DEV") == str(live.state_dir.resolve())
    ]


def nothing_left(live: Live) -> bool:
    try:
        return left_of(live) == []
    except psutil.Error:  # one of them was just ending
        return False


@pytest.fixture(scope="module")
def dev(live: Live) -> Iterator[Dev]:
    started = start(live)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
        started.process.wait(60)


@pytest.mark.parametrize("name", ROLES)
def test_whatever_is_killed_below_dev_is_started_again_and_events_are_indexed_as_before(dev: Dev, name: str) -> None:
    role = ROLES[name]
    dev.index(EntityRef("task", f"before-{name.replace(' ', '-')}"))
    before = until(lambda: dev.pids(role), f"there is a {name}", within_s=PATIENCE_S)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    if name != "forkserver and its runs":  # which is started with the next run
        until(lambda: dev.pids(role) - before, f"there is another {name}", within_s=PATIENCE_S)
    until(dev.is_up, f"the definitions are loaded without the {name}", within_s=PATIENCE_S)
    dev.index(EntityRef("task", f"after-{name.replace(' ', '-')}"))
    until(dev.is_whole, f"there is one process of each kind without the {name}", within_s=PATIENCE_S)


def test_definitions_are_loaded_again_when_the_process_is_killed_as_it_starts_to_load_them(dev: Dev) -> None:
    (code_server,) = until(lambda: dev.pids(ROLES["code server"]), "there is a code server", within_s=PATIENCE_S)
    loading = ROLES["process with the definitions"]
    before = dev.pids(loading)
    os.kill(code_server, signal.SIGKILL)
    # Killed as it appears, before the keeper's next look: without a pause between two looks.
    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE_S
    while not killed and time.monotonic() < deadline:
        killed = dev.pids(loading) - before
    assert killed, f"no process loads the definitions within {PATIENCE_S:g} s"
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: dev.pids(loading) - before - killed,
        "there is another process with the definitions",
        within_s=PATIENCE_S,
    )
    until(dev.is_up, "the definitions are loaded", within_s=PATIENCE_S)
    dev.index(EntityRef("task", "after-a-kill-while-loading"))


def test_definitions_that_could_not_be_loaded_while_the_stores_were_away_are_loaded_later(
    dev: Dev,
) -> None:
    code_server = ROLES["code server"]
    stack.stop(dev.live.state_dir)
    before = until(lambda: dev.pids(code_server), "there is a code server", within_s=PATIENCE_S)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: dev.pids(code_server) - before, "there is another code server", within_s=PATIENCE_S)
    log = dev.live.folder / "dev.log"
    until(
        lambda: "could not load the definitions" in log.read_text(errors="replace"),
        "the error is in the log",
        within_s=PATIENCE_S,
    )
    stack.start(dev.live.state_dir, list(stack.Part))
    until(dev.is_up, "the definitions are loaded", within_s=PATIENCE_S)


def test_a_second_dev_of_the_same_stack_is_refused_with_the_process_that_runs_it(dev: Dev) -> None:
    done = dev.live.command("dev")
    assert done.returncode == 1
    assert f"below process {dev.process.pid}" in done.stderr


def test_a_killed_dev_leaves_no_process_and_the_next_one_goes_on_with_the_run_that_was_under_way(dev: Dev) -> None:
    live = dev.live
    live.slow_embedder(8.0)
    ref = EntityRef("page", "under-way")
    live.write(ref, "A note", "that takes its time to be embedded")
    live.publish([("mcp.page.created", {"entity_id": ref.id})])
    requests = live.embedded()["requests"]
    until(lambda: live.embedded()["requests"] > requests, "a run embeds it", within_s=PATIENCE_S)
    dev.process.kill()
    dev.process.wait()
    until(lambda: nothing_left(live), "all processes of dev have ended", within_s=60)
    assert stack.status(live.state_dir).supervisor_pid is not None
    live.quick_embedder()
    again = start(live)
    until(lambda: live.audit() == [], "the entity is indexed", within_s=PATIENCE_S)

    again.process.send_signal(signal.SIGHUP)
    assert again.process.wait(60) == 0
    assert left_of(live) == []
