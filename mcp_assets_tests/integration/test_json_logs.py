"""Logs of JSON in real work: a line a batch, which names partitions; failed entities are one line; supervisors, too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_assets.embedded import stack
from mcp_assets.logs import VARIABLE, describe_process, write_logs
from mcp_assets.platform import Platform
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import drain_all, put_tasks, send_looks, sync_all
from mcp_assets_tests.openai_stub import REFUSE_MARKER


@pytest.fixture
def _json() -> Iterator[None]:
    write_logs("json")
    describe_process(run="the-run", job="index")
    yield
    write_logs("text")
    describe_process()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_batch_is_one_line_that_names_run_and_partitions(
    _json: None, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    put_tasks(platform, {f"t{n}": f"text {n}" for n in range(120)})
    send_looks(platform, *(f"t{n}" for n in range(60)))
    drain_all(platform)
    sync_all(platform)
    relink(platform)
    found = lines(capsys)
    assert all(line["run"] == "the-run" and line["job"] == "index" for line in found)
    taken = [line for line in found if line["message"].startswith("messages are taken in")]
    applied = [line for line in found if line["message"] == "messages are applied"]
    synced = [line for line in found if line["message"] == "differing entities are indexed"]
    linked = [line for line in found if line["message"] == "entities are linked"]
    assert sum(line["counts"]["accepted"] for line in taken) == 60
    assert sum(line["counts"]["embedded"] for line in applied) == 60
    assert sum(line["counts"]["embedded"] for line in synced) == 60
    assert sum(line["counts"]["relinked"] for line in linked) >= 120
    assert len(applied) == 2
    assert {partition for line in applied + synced + linked for partition in line["partitions"]} == {
        f"task-{shard:02d}" for shard in range(4)
    }


def test_entities_that_fail_together_are_one_line(
    _json: None, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    put_tasks(platform, {name: f"{REFUSE_MARKER} {name}" for name in "abc"} | {"d": "sound"})
    send_looks(platform, "a", "b", "c", "d")
    drain_all(platform)
    (line,) = (line for line in lines(capsys) if line["level"] == "warning")
    assert sorted(line["entities"]) == ["task:a", "task:b", "task:c"]
    assert (line["entity_type"], line["stage"]) == ("task", "embed")
    assert "and 2 more are dead-lettered: " in line["message"]


def test_the_embedded_stack_writes_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "json")
    with stack.running([stack.Part.NATS], tmp_path):
        pass
    log = next(tmp_path.rglob("supervisor.log")).read_text()
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert any(message.startswith("supervisor ") and message.endswith(" starts") for message in messages)
