"""The demo in a folder of its own, with something to look at: a census, a backfill, a dead letter, a failed run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcp_assets.settings import Settings, variable_of

_CHECKOUT = Path(__file__).parents[2]
_UP_WITHIN_S = 1_800.0
"""On a busy machine with two cores the demo takes minutes; the demo itself gives up sooner."""

_ENDS_WITHIN_S = 60.0

_STAYS = "Ctrl-C ends it"
"""How the line begins that the demo prints when everything is up."""

_LAUNCH = """mutation($given: ExecutionParams!) { launchRun(executionParams: $given) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_OBSERVED = """{ assetNodes { assetKey { path } isObservable assetObservations(limit: 1) { timestamp } } }"""


class DemoFailed(Exception):
    """The demo does not come up, or does not do what it is asked for."""


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """The address of the UI of a demo whose state is in `folder`. It ends with the block, with all its processes."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(_CHECKOUT / name, folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # A shell that starts this in the background has it ignored, and what is started would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [_mcp_assets(), "demo", "--port", str(port)],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_until_up(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            # Its keeper and servers end themselves when it is gone.
            process.kill()
            process.wait()


def _wait_until_up(process: "subprocess.Popen[str]") -> None:
    """Wait until the demo says that it stays until it is ended. What it prints goes on to our own output."""
    ready, ended = threading.Event(), threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(_STAYS):
                ready.set()
        ended.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(_UP_WITHIN_S) or ended.is_set():
        raise DemoFailed(f"the demo did not come up (exit status {process.poll()})")


def make_worth_looking(url: str, folder: Path) -> str:
    """Do what gives each page something to show. Returns the id of the run that fails."""
    # A malformed message becomes a dead letter, and the check of these a warning.
    _command(folder, "publish", "mcp.task.created", "not json")
    _command(folder, "sync", "--full")
    launched(url, "census")
    wait_for_observations(url)
    return launched(url, "index", succeeds=False)


def wait_for_observations(url: str) -> None:
    """Wait until the sensor has observed all sources."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        nodes = ask(url, _OBSERVED)["assetNodes"]
        if all(node["assetObservations"] for node in nodes if node["isObservable"]):
            return
        time.sleep(1)
    raise DemoFailed("the sources are not observed")


def launched(url: str, job: str, *, succeeds: bool = True) -> str:
    """The id of a run of the job, which has ended."""
    selector = {"repositoryLocationName": "mcp_assets", "repositoryName": "__repository__", "jobName": job}
    answer = ask(url, _LAUNCH, given={"selector": selector, "runConfigData": {}})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise DemoFailed(f"{job}: {json.dumps(answer)}")
    run_id: str = answer["run"]["runId"]
    while (status := ask(url, _STATUS, id=run_id)["runOrError"]["status"]) not in ("SUCCESS", "FAILURE", "CANCELED"):
        time.sleep(0.5)
    if (status == "SUCCESS") != succeeds:
        raise DemoFailed(f"the run {run_id} of {job} ended as {status}")
    return run_id


def ask(url: str, query: str, **variables: Any) -> dict[str, Any]:
    """The answer of Dagster's GraphQL."""
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # The UI is on this machine, which no proxy reaches.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    if answer.get("errors"):
        raise DemoFailed(json.dumps(answer["errors"]))
    data: dict[str, Any] = answer["data"]
    return data


def _command(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [_mcp_assets(), *words], cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise DemoFailed(f"mcp-assets {' '.join(words)} ended with {done.returncode}")


def _mcp_assets() -> str:
    return str(Path(sys.executable).parent / "mcp-assets")


def _environment(folder: Path) -> dict[str, str]:
    """Without the settings of a developer, and without the home of a Dagster of his."""
    own = {variable_of(field) for field in Settings.model_fields} | {"DAGSTER_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "MCP_ASSETS_STATE_DIR": str(folder / ".mcp"), "MCP_ASSETS_OBSERVE_EVERY_S": "10"}
