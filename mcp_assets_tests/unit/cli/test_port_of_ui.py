"""The port of the Dagster UI: a taken one is said at once, with the option that changes it."""

import socket
from collections.abc import Iterator

import pytest

from mcp_assets.cli import dagster_dev
from mcp_assets.cli.dagster_dev import DagsterEnded, port_of_ui

HOST = "127.0.0.1"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port at which another program listens; it stands for the usual one."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(dagster_dev, "USUAL_PORT", port)
        yield port


def test_a_port_that_was_asked_for_and_is_taken_is_refused(taken: int) -> None:
    with pytest.raises(DagsterEnded, match=rf"port {taken} cannot be used .*address already in use.*--port"):
        port_of_ui(taken, HOST)


def test_without_a_wish_the_next_free_port_is_taken_and_said(taken: int) -> None:
    port, notice = port_of_ui(None, HOST)
    assert port > taken
    assert notice == f"port {taken} is taken: the Dagster UI has {port}; --port chooses one"


def test_a_free_port_needs_no_words(taken: int) -> None:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = probe.getsockname()[1]
    assert port_of_ui(free, HOST) == (free, None)


def test_a_host_that_is_not_of_this_machine_is_named_as_the_reason() -> None:
    with pytest.raises(DagsterEnded, match="cannot be used"):
        port_of_ui(3999, "192.0.2.1")
