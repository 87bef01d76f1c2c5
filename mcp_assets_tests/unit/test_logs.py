"""Logs of JSON: a record is one line that names its run, its fields and its exception; text stays as it was."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_assets.logs import describe_process, write_logs


@pytest.fixture(autouse=True)
def _text_afterwards() -> Iterator[None]:
    yield
    write_logs("text")
    describe_process()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_is_one_line_that_names_its_run_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    write_logs("json")
    write_logs("json")
    describe_process(run="r1", job="index", partitions="task-00...task-03")
    extra = {"entities": ["task:a"], "counts": {"failed": 1}, "secret": "not a field"}
    logging.getLogger("mcp_assets.sync.some").warning("%s is\nödd", "task:a", extra=extra)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "task:a is\nödd",
        "level": "warning",
        "logger": "mcp_assets.sync.some",
        "run": "r1",
        "job": "index",
        "partitions": "task-00...task-03",
        "entities": ["task:a"],
        "counts": {"failed": 1},
    }


def test_an_exception_stays_in_the_line_of_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    write_logs("json")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("mcp_assets.x").exception("it failed")
    (line,) = lines(capsys)
    assert (line["message"], line["level"]) == ("it failed", "error")
    assert "ValueError: invalid literal" in line["exception"]
    assert "Traceback" in line["exception"]


def test_text_logs_no_batches(capsys: pytest.CaptureFixture[str]) -> None:
    write_logs("json")
    write_logs("text")
    logging.getLogger("mcp_assets.x").info("a batch")
    assert capsys.readouterr().err == ""
