"""`mcp-assets sync` and `mcp-assets dlq`, as a person calls them."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from mcp_assets.cli.app import main
from mcp_assets.cli.console import out
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.full_sync_requests import ProgressWriter
from mcp_assets_tests.observing import assert_points_are, entity_points, put_tasks, send, take_in
from mcp_assets_tests.openai_stub import REFUSE_MARKER, OpenAIStub
from mcp_assets_tests.waiting import until


@dataclass(frozen=True)
class Ended:
    """A command that has come to its end."""

    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Ended]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The test's settings, as the environment variables of a command."""
    given = {name: getattr(settings, name) for name in Settings.model_fields if name != "state_dir"}
    return {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name, value in given.items()
        if value != Settings.model_fields[name].get_default()
    }


@pytest.fixture
def call(
    platform: Platform,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Call]:
    """Runs the command's own entry in this process: a new interpreter would take longer than what it does."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminate = signal.getsignal(signal.SIGTERM)

    def called(*words: str, given: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["mcp-assets", *words])
        monkeypatch.setattr(out, "width", 200)
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        reported = capsys.readouterr()
        return Ended(int(ended.value.code or 0), reported.out, reported.err)

    yield called
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture
def slow(stub: OpenAIStub) -> Iterator[OpenAIStub]:
    stub.add_fault("latency", times=None, latency_s=0.3)
    yield stub
    stub.clear_faults()


def test_named_entities_are_brought_up_to_date_and_an_unknown_one_fails_the_command(
    platform: Platform, call: Call
) -> None:
    put_tasks(platform, {"t1": "one", "t2": "two"})
    done = call("sync", "t1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["embedded"] == 1
    assert entity_points(platform).keys() == {"t1"}
    done = call("sync", "tasks:t2", "nobody")
    assert done.returncode == 1
    assert "nobody is unknown" in done.stderr
    assert entity_points(platform).keys() == {"t1", "t2"}


def test_a_full_sync_without_a_daemon_is_done_at_once_with_a_bar_for_each_partition(
    platform: Platform, call: Call, stub: OpenAIStub
) -> None:
    put_tasks(platform, {f"t{number}": f"text {number}" for number in range(30)})
    done = call("sync", "--full", "--watch")
    assert done.returncode == 0, done.stderr
    assert "30 embedded" in done.stdout
    assert "no Dagster daemon runs" in done.stderr
    assert "task-03" in done.stderr
    assert "memory-00" in done.stderr
    assert "linking lists of neighbours" in done.stderr
    assert_points_are(platform, {f"t{number}": f"text {number}" for number in range(30)})
    assert json.loads(call("sync", "--full", "--json").stdout)["counts"]["embedded"] == 0
    forced = json.loads(call("sync", "--full", "--force", "--yes", "--type", "task", "--json").stdout)
    assert forced["counts"]["embedded"] == 30


def test_a_full_sync_that_was_killed_goes_on_where_it_was(
    platform: Platform, call: Call, environment: dict[str, str], slow: OpenAIStub
) -> None:
    put_tasks(platform, {f"t{number}": f"text {number}" for number in range(200)})
    begun = subprocess.Popen(
        [sys.executable, "-m", "mcp_assets.cli", "sync", "--full", "--json"],
        env={**os.environ, **environment, "EMBEDDING_CONCURRENCY": "1", "MCP_ASSETS_BATCH_SIZE": "20"},
        stdout=subprocess.DEVNULL,
    )
    until(lambda: slow.stats()["texts"] >= 100, "half of the texts are embedded")
    psutil.Process(begun.pid).kill()
    begun.wait()
    slow.clear_faults()

    assert call("sync", "--full").returncode == 0

    assert_points_are(platform, {f"t{number}": f"text {number}" for number in range(200)})
    # Two batches are in flight at a concurrency of one.
    assert slow.stats()["texts"] - slow.stats()["distinct_texts"] <= 2 * 20


@pytest.mark.parametrize("error", [None, "runs of the backfill failed"])
def test_with_a_daemon_a_full_sync_is_its_backfill_and_is_watched_to_its_end(
    platform: Platform, environment: dict[str, str], error: str | None
) -> None:
    full_sync_requests.sensor_lives(platform)
    watching = subprocess.Popen(
        [sys.executable, "-m", "mcp_assets.cli", "sync", "--full", "--force", "--yes", "--watch"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    (sync,) = until(lambda: full_sync_requests.unfinished(platform), "the full sync is asked for")
    assert (sync.requested_by, sync.force) == ("mcp-assets sync", True)

    # What a run of its backfill writes.
    writer = ProgressWriter(platform, sync.id)
    writer.worked("task", 0, Counts(scanned=5, embedded=5), differing=5)
    writer.indexed("task", 0, Counts(scanned=9, embedded=5))
    writer.linked("task", 0)
    full_sync_requests.finish(platform, sync, error)

    out, err = watching.communicate(timeout=60)
    assert watching.returncode == (0 if error is None else 1), err
    assert ("9 scanned, 5 embedded" in out) == (error is None)
    assert (error is None) == ("runs of the backfill failed" not in err)
    assert "5/5 complete" in err


def test_with_a_daemon_a_full_sync_without_watch_is_only_asked_for(platform: Platform, call: Call) -> None:
    full_sync_requests.sensor_lives(platform)
    asked = json.loads(call("sync", "--full", "--json").stdout)
    (sync,) = full_sync_requests.unfinished(platform)
    assert asked == {"backfill_id": sync.id, "finished": False}
    assert json.loads(call("sync", "--full", "--json").stdout) == asked


@pytest.mark.parametrize(
    "words",
    [("sync",), ("sync", "--full", "t1"), ("sync", "t1", "--watch"), ("sync", "--full", "--type", "widget")],
)
def test_a_call_of_sync_that_says_no_clear_thing_does_nothing(call: Call, words: tuple[str, ...]) -> None:
    assert call(*words).returncode == 2


def test_warnings_are_listed_with_how_many_messages_they_are_about(platform: Platform, call: Call) -> None:
    send(platform, *(("mcp.task.updated", {"taskId": "t1", "tags": "[a"}),) * 2)
    take_in(platform)
    (warning,) = json.loads(call("dlq", "list", "--warnings", "--json").stdout)
    assert (warning["messages"], warning["entity"], warning["seq"]) == (2, "task:t1", 2)
    assert (warning["error_kind"], warning["place"]) == ("wrong_type", "$.tags")
    assert "mcp.task.updated" in call("dlq", "list", "--warnings").stdout
    assert json.loads(call("dlq", "list", "--warnings", "--type", "page", "--json").stdout) == []
    assert call("dlq", "list", "--warnings", "--stage", "intake").returncode == 2


def test_dead_letters_are_listed_shown_replayed_and_purged(platform: Platform, call: Call) -> None:
    put_tasks(platform, {"t1": REFUSE_MARKER})
    assert call("sync", "t1").returncode == 1
    send(platform, ("mcp.task.created", b"not [json]"))
    take_in(platform)

    listed = json.loads(call("dlq", "list", "--json").stdout)
    assert [letter["error_kind"] for letter in listed] == ["input_refused", "bad_json"]
    shown = call("dlq", "list").stdout
    assert "task:t1" in shown
    assert "mcp.task.created #1" in shown
    assert [one["entity"] for one in json.loads(call("dlq", "list", "--type", "tasks", "--json").stdout)] == ["task:t1"]
    assert "not [json]" in call("dlq", "show", str(listed[1]["id"])).stdout
    assert call("dlq", "show", "999").returncode == 1

    assert call("dlq", "replay").returncode == 2
    assert call("dlq", "replay", "--all").returncode == 1
    put_tasks(platform, {"t1": "mended"})
    replayed = call("dlq", "replay", "--stage", "embed", "--json")
    assert json.loads(replayed.stdout) == {"accepted": 0, "done": 1, "failed": 0}
    assert_points_are(platform, {"t1": "mended"})

    unasked = call("dlq", "purge", "--all", given="n\n")
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    assert json.loads(call("dlq", "list", "--json").stdout)[0]["attempts"] == 2
    assert json.loads(call("dlq", "purge", "--kind", "bad_json", "--yes", "--json").stdout) == {"purged": 1}
    assert call("dlq", "list").stdout.strip() == "no dead letters"
