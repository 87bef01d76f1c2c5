"""How long Dagster's services and runs are waited for, and what is said of them meanwhile."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcp_assets.cli import dagster_dev
from mcp_assets.cli.dagster_dev import DagsterDev, DagsterEnded, NotLoaded
from mcp_assets.cli.dagster_ui import DagsterUi, UiRun, UiSilent, UiState
from mcp_assets.processes import dagster_services

Look = tuple[str, str, bool]

LOADED = UiState(loaded=True, error=None, sensors=frozenset({"vector_index_sensor"}), heartbeat=None)


@dataclass
class Told:
    """What a wait has said, and the steps of time that it took."""

    looks: list[Look] = field(default_factory=list)

    def look(self, name: str, does: str, is_up: bool) -> None:
        self.looks.append((name, does, is_up))


class Clock:
    """Time passes only while one sleeps: an hour each time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, _: float) -> None:
        self.now += 3600


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(dagster_dev, "time", made)
    return made


@pytest.fixture
def dagster(tmp_path: Path, clock: Clock) -> DagsterDev:
    """Services without processes, which do what their file says."""
    (tmp_path / dagster_services.BOARD).write_text(
        json.dumps([["code server", "loads the definitions", False], ["webserver", "loads Dagster", False]])
    )
    return DagsterDev("http://127.0.0.1:1", tmp_path / "dagster.log", [], {}, tmp_path)


def answers(monkeypatch: pytest.MonkeyPatch, name: str, given: Sequence[object]) -> None:
    """The UI answers one after the other; an exception is raised."""
    left = list(given)

    def answer(*_: object) -> object:
        one = left.pop(0)
        value = one() if callable(one) else one
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(DagsterUi, name, answer)


def heartbeat(clock: Clock) -> Callable[[], UiState]:
    return lambda: UiState(loaded=True, error=None, sensors=LOADED.sensors, heartbeat=clock.now)


def test_services_that_are_only_slow_are_waited_for_and_each_look_says_what_they_do(
    dagster: DagsterDev, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = UiState(loaded=False, error=None, sensors=frozenset(), heartbeat=None)
    answers(monkeypatch, "state", [*(UiSilent() for _ in range(50)), loading, LOADED, heartbeat(clock)])
    told = Told()
    assert dagster.wait_until_up(told.look).sensors == LOADED.sensors
    assert told.looks[0] == ("Dagster", "has read its configuration", True)
    assert ("code server", "loads the definitions", False) in told.looks
    assert told.looks[-1] == ("webserver", "answers at http://127.0.0.1:1", True)


def test_a_heartbeat_of_an_earlier_daemon_does_not_count(
    dagster: DagsterDev, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = UiState(loaded=True, error=None, sensors=frozenset(), heartbeat=clock.now - 1)
    answers(monkeypatch, "state", [old, old, heartbeat(clock)])
    dagster.wait_until_up()
    assert clock.now == 1_000_000 + 2 * 3600


def test_the_wait_ends_when_the_keeper_has_given_up_and_shows_the_end_of_its_log(
    dagster: DagsterDev, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dagster.log is not None
    dagster.log.write_text("\n".join(f"line {number}" for number in range(100)))
    monkeypatch.setattr(DagsterUi, "state", lambda _: pytest.fail("the keeper is looked at first"))

    class Ended:
        returncode = 1

        def poll(self) -> int:
            return 1

    dagster._process = Ended()  # type: ignore[assignment]  # a process that has ended
    with pytest.raises(DagsterEnded, match="could not be started") as ended:
        dagster.wait_until_up()
    assert str(ended.value).endswith("line 98\nline 99")


def test_definitions_that_cannot_be_loaded_end_the_wait_with_the_reason(
    dagster: DagsterDev, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "state", [UiState(True, "no module named shop\n", frozenset(), None)])
    with pytest.raises(NotLoaded, match=r"could not load the definitions: no module named shop$"):
        dagster.wait_until_up()


def test_runs_are_waited_for_until_none_is_left_however_long_they_take(
    dagster: DagsterDev, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = UiRun("1", "drain of task, run 1", "started"), UiRun("2", "drain of page, run 2", "queued")
    answers(monkeypatch, "unfinished_runs", [*([first] for _ in range(50)), UiSilent(), [second], []])
    told = Told()
    dagster.wait_for_runs(told.look)
    ended = [(name, does) for name, does, is_up in told.looks if is_up]
    assert ended == [("drain of task, run 1", "has ended"), ("drain of page, run 2", "has ended")]


def test_both_sides_name_the_same_file() -> None:
    assert dagster_dev._BOARD == dagster_services.BOARD
