"""Logs of JSON in a run of Dagster: each of its lines names the run, its job and its partitions."""

import json
from collections.abc import Callable, Iterator

import pytest

from mcp_assets.logs import describe_process, write_logs
from mcp_assets.platform import Platform
from mcp_assets_tests.integration.defs.conftest import Ran
from mcp_assets_tests.observing import put_tasks, send_looks, take_in


@pytest.fixture(autouse=True)
def _text_afterwards() -> Iterator[None]:
    yield
    write_logs("text")
    describe_process()


def test_each_line_of_a_drain_names_its_run(
    run: Callable[..., Ran], platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    write_logs("json")
    put_tasks(platform, {"a": "one", "b": "two"})
    send_looks(platform, "a", "b")
    take_in(platform)
    capfd.readouterr()
    assert run("task-00", "task-03", drain=True).success
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (applied,) = (line for line in lines if line["message"] == "messages are applied")
    assert applied["counts"]["embedded"] == 2
    (run_id,) = {line["run"] for line in lines}
    assert len(run_id) == 36
    assert {line["job"] for line in lines} == {"index"}
    assert {line["partitions"] for line in lines if line is not applied} <= {"task-00...task-03"}
