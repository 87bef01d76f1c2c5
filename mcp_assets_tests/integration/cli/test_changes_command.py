"""`mcp-assets changes`, as a person and a program call it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.command import COMMAND, Place, bare_environment
from mcp_assets_tests.observing import put_tasks, sync_all


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    """A folder whose settings lead to the test's stores."""
    given = {name: getattr(settings, name) for name in Settings.model_fields if name != "state_dir"}
    changed = {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name, value in given.items()
        if value != Settings.model_fields[name].get_default()
    }
    return Place(tmp_path, bare_environment() | changed)


def test_changes_are_shown_and_followed_from_position_to_position(platform: Platform, place: Place) -> None:
    put_tasks(platform, {"a": "gate", "b": "gate"})
    sync_all(platform)
    for _ in link_until_done(platform):
        pass

    newest = place.run("changes", "--limit", "3")
    assert newest.code == 0, newest.stderr
    lines = [line.split("\t") for line in newest.stdout.splitlines()]
    assert sorted(line[1:3] + line[4:5] for line in lines[-2:]) == [
        ["edge_added", "task:a", "task:b"],
        ["edge_added", "task:b", "task:a"],
    ]
    position = newest.stderr.strip().removeprefix("go on with --since ")
    everything = json.loads(place.run("changes", "--since", "1h", "--type", "tasks", "--json").stdout)
    assert [one["kind"] for one in everything["changes"]] == [
        "restarted", "indexed", "indexed", "edge_added", "edge_added",
    ]  # fmt: skip
    first = json.loads(place.run("changes", "--since", "1h", "--limit", "1", "--json").stdout)
    assert (first["more"], len(first["changes"])) == (True, 1)

    following = subprocess.Popen(
        [COMMAND, "changes", "--since", position, "--follow", "--json"],
        cwd=place.folder, env=place.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        put_tasks(platform, {"b": "quite another"})
        sync_all(platform)
        assert following.stdout is not None
        change = json.loads(following.stdout.readline())
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=60)
    assert (change["kind"], change["entity"], change["reason"]) == ("indexed", "task:b", "text")
    assert following.returncode == 130


def test_what_is_no_position_and_a_position_that_is_lost_are_sentences(platform: Platform, place: Place) -> None:
    put_tasks(platform, {"a": "gate"})
    sync_all(platform)
    wrong = place.run("changes", "--since", "tomorrow")
    assert wrong.code == 2
    assert "neither a position" in wrong.stderr
    lost = place.run("changes", "--since", "00000000-1-1")
    assert lost.code == 1
    assert "of another edition" in lost.stderr
    assert "Traceback" not in lost.stderr
