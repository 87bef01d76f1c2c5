"""LoopbackPort: where a server listens when its port is taken."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mcp_assets.embedded import ports
from mcp_assets.embedded.ports import PATIENCE, LoopbackPort, is_free


@contextmanager
def taken(*numbers: int) -> Iterator[None]:
    with ExitStack() as listeners:
        for number in numbers:
            listener = listeners.enter_context(socket.socket())
            listener.bind((ports.LOOPBACK, number))
            listener.listen()
        yield


@pytest.fixture
def free() -> int:
    """The first of three ports in a row that are free."""
    return next(port for port in range(21000, 30000) if all(is_free(port + n) for n in range(3)))


def test_the_usual_port_is_used_while_it_is_free(free: int) -> None:
    port = LoopbackPort(free, None, "NATS_URL")
    port.choose()
    assert port.number == free


def test_the_remembered_port_comes_before_the_usual_one(free: int) -> None:
    port = LoopbackPort(free, free + 2, "NATS_URL")
    port.choose()
    assert port.number == free + 2


def test_the_next_free_port_is_used_when_others_are_taken(free: int) -> None:
    port = LoopbackPort(free, free + 1, "NATS_URL")
    with taken(free, free + 1):
        port.choose()
    assert port.number == free + 2


def test_a_port_that_clients_know_is_waited_for_and_given_up_only_when_it_stays_taken(free: int) -> None:
    port = LoopbackPort(free, None, "NATS_URL")
    port.choose()
    port.announce()
    with taken(free):
        for _ in range(PATIENCE - 1):
            port.choose()
            assert port.number == free
        port.choose()
        assert port.number == free + 1


def test_a_port_that_another_process_took_before_the_server_was_lost_unless_clients_know_it(free: int) -> None:
    port = LoopbackPort(free, None, "NATS_URL")
    port.choose()
    assert not port.was_lost()
    with taken(free):
        assert port.was_lost()
        port.choose()
        assert port.number == free + 1
    port.announce()
    with taken(free + 1):
        assert not port.was_lost()


def test_an_error_names_the_ports_when_none_is_free(free: int) -> None:
    with taken(free, free + 1), pytest.raises(OSError, match=f"{free} to {free + 1}"):
        LoopbackPort(free, None, "NATS_URL", searched=2).choose()
