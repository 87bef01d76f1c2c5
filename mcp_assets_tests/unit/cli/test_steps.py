"""What is shown of each part that starts."""

import io

import pytest
from rich.console import Console

from mcp_assets.cli import console, steps
from mcp_assets.cli.steps import Steps


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to standard error."""
    output = io.StringIO()
    made = Console(file=output, width=100)
    monkeypatch.setattr(console, "err", made)
    monkeypatch.setattr(steps, "err", made)
    return output


def test_lines_say_each_change_and_repeat_what_is_waited_for_with_the_seconds(clock: Clock, shown: io.StringIO) -> None:
    with Steps(clock=clock) as told:
        while clock.now < 25:
            told.look("nats", "starting", False)
            clock.now += 1
        told.look("nats", "running (nats://127.0.0.1:4222)", True)
        told.look("nats", "running (nats://127.0.0.1:4222)", True)
    assert shown.getvalue().splitlines() == [
        "nats: starting",
        "nats: starting, 10 s so far",
        "nats: starting, 20 s so far",
        "nats: running (nats://127.0.0.1:4222), after 25 s",
    ]


def test_a_part_that_goes_down_again_is_counted_anew(clock: Clock, shown: io.StringIO) -> None:
    with Steps(clock=clock) as told:
        told.look("nats", "running", True)
        clock.now = 100
        told.look("nats", "restarting", False)
        clock.now = 103
        told.look("nats", "running", True)
    assert shown.getvalue().splitlines()[-1] == "nats: running, after 3 s"


def test_a_table_has_a_row_for_each_part_with_its_seconds(clock: Clock, shown: io.StringIO) -> None:
    with Steps(clock=clock, table=True) as told:
        told.look("nats", "starting", False)
        clock.now = 7
        told.look("nats", "running", True)
        told.look("qdrant", "starting [x]", False)
        clock.now = 9
    above, below = (" ".join(line.split()) for line in shown.getvalue().splitlines()[-2:])
    assert above == "✓ nats 7 s running"
    assert "qdrant 2 s starting [x]" in below


def test_nothing_is_said_where_it_would_be_in_the_way_of_json(clock: Clock, shown: io.StringIO) -> None:
    with Steps(clock=clock, quiet=True) as told:
        told.look("nats", "starting", False)
    assert shown.getvalue() == ""
