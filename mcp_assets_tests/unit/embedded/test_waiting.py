"""How long a part of the embedded stack is waited for, and what is said meanwhile."""

from pathlib import Path

import pytest

from mcp_assets.embedded import stack
from mcp_assets.embedded.stack import FAILED_STARTS, SILENCE_S, StackError, _Waiting
from mcp_assets.embedded.state import PREPARING, Part, PartState, PartStatus

STARTING = PartStatus(state=PartState.STARTING)


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stack, "time", made)
    return made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "nats.log"


def look(waiting: _Waiting, known: PartStatus) -> None:
    waiting.look(known)
    waiting.raise_if_hopeless(known, SILENCE_S)


def test_a_part_that_makes_its_files_is_waited_for_however_long_that_takes(clock: Clock, log: Path) -> None:
    said: list[str] = []
    waiting = _Waiting(Part.POSTGRES, log, said.append)
    while clock.now < 20 * SILENCE_S:
        look(waiting, PartStatus(state=PartState.STARTING, detail=PREPARING))
        clock.now += 1
    assert said[:3] == [
        f"postgres: starting ({PREPARING})",
        f"postgres: starting ({PREPARING}), 5 s so far",
        f"postgres: starting ({PREPARING}), 10 s so far",
    ]


def test_a_part_that_writes_to_its_log_is_waited_for_and_one_that_is_silent_is_given_up(
    clock: Clock, log: Path
) -> None:
    waiting = _Waiting(Part.NATS, log, lambda _: None)
    for line in range(10):
        with log.open("a") as file:
            file.write(f"restored {line} streams\n")
        look(waiting, STARTING)
        clock.now += SILENCE_S - 1
        look(waiting, STARTING)
    clock.now += 2
    with pytest.raises(StackError, match="embedded nats did not start: it does not answer, and has said nothing"):
        look(waiting, STARTING)


def test_a_part_that_keeps_failing_is_given_up_at_once_with_its_last_words(clock: Clock, log: Path) -> None:
    waiting = _Waiting(Part.NATS, log, lambda _: None)
    last = PartStatus(state=PartState.RESTARTING, detail="ended with code 1: no space", restarts=FAILED_STARTS)
    with pytest.raises(StackError, match="no space"):
        look(waiting, last)
    assert clock.now == 0
