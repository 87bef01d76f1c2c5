"""Demand: a type is asked for again exactly if no living drain works on it and none is about to."""

import pytest

from mcp_assets.sync.inbox.drain_lock import STALE_HEARTBEAT_S, Heartbeat
from mcp_assets.sync.inbox.drain_requests import (
    DrainRun,
    EndedRun,
    drain_due,
    full_sync_due,
    overdue,
    undrained,
)
from mcp_assets.tuning import InboxTuning

TUNING = InboxTuning()
WORKING = Heartbeat("task", "r", 1.0, locked=True)


def run(*, run_id: str = "r", entity_type: str = "task", queued: bool = False, ago: float = 1.0) -> DrainRun:
    return DrainRun(entity_type, run_id, queued, ago)


def test_pending_work_without_any_run_or_beat_is_undrained_in_the_order_given() -> None:
    assert undrained(["task", "page"], [], {}, TUNING) == ["task", "page"]
    assert undrained([], [run()], {"task": [WORKING]}, TUNING) == []


@pytest.mark.parametrize(
    ("runs", "beats"),
    [
        pytest.param([], [WORKING], id="a drain holds the lock and beats"),
        pytest.param([run()], [WORKING], id="and its run is known"),
        pytest.param([], [Heartbeat("task", "dead", 9e9, locked=True), WORKING], id="beside the beat of a dead one"),
        pytest.param([run(queued=True, ago=9e9)], [], id="a run waits in the queue, however long"),
        pytest.param([run(ago=TUNING.starting_s - 1)], [], id="a run was launched a short while ago"),
        pytest.param([run(run_id="new", ago=1)], [Heartbeat("task", "old", 9e9, locked=False)], id="beside a dead one"),
    ],
)
def test_a_type_that_is_drained_or_about_to_be_is_not_asked_for(runs: list[DrainRun], beats: list[Heartbeat]) -> None:
    assert undrained(["task"], runs, {"task": beats}, TUNING) == []


@pytest.mark.parametrize(
    ("runs", "beats"),
    [
        pytest.param([run(ago=TUNING.starting_s + 1)], [], id="a run was launched long ago and never beat"),
        pytest.param([run(ago=2)], [Heartbeat("task", "r", 1.0, locked=False)], id="a run beat and let its lock go"),
        pytest.param(
            [run(ago=2)], [Heartbeat("task", "r", STALE_HEARTBEAT_S + 1, locked=True)], id="a drain hangs with its lock"
        ),
        pytest.param([], [Heartbeat("task", "r", 1.0, locked=False)], id="a killed drain's beat is still young"),
        pytest.param([run(entity_type="page", queued=True)], [], id="a run of another type waits"),
    ],
)
def test_a_type_whose_drain_died_hangs_or_is_done_is_asked_for_again(
    runs: list[DrainRun], beats: list[Heartbeat]
) -> None:
    assert undrained(["task"], runs, {"task": beats}, TUNING) == ["task"]


def test_a_drain_of_one_type_says_nothing_of_another() -> None:
    assert undrained(["task", "page"], [run()], {"page": [Heartbeat("page", "p", 1.0, locked=True)]}, TUNING) == []
    assert undrained(["task", "memory"], [], {"page": [WORKING], "memory": [WORKING]}, TUNING) == ["task"]


@pytest.mark.parametrize(
    ("beats", "waited_s", "asked"),
    [
        pytest.param({}, 0.1, ["task"], id="nobody drains"),
        pytest.param({"page": [WORKING]}, 0.1, [], id="a drain of another type lives, which takes over"),
        pytest.param({"page": [WORKING]}, TUNING.left_to_drains_s, ["task"], id="and has had the time, but has not"),
        pytest.param(
            {"page": [Heartbeat("page", "r", 1.0, locked=False)]},
            0.1,
            ["task"],
            id="a killed drain's beat is still young",
        ),
        pytest.param(
            {"page": [Heartbeat("page", "r", STALE_HEARTBEAT_S + 1, locked=True)]}, 0.1, ["task"], id="a drain hangs"
        ),
        pytest.param({"(sync)": [WORKING]}, 0.1, ["task"], id="requests are answered, which takes over nothing"),
    ],
)
def test_fresh_work_is_left_to_a_living_drain_of_another_type(
    beats: dict[str, list[Heartbeat]], waited_s: float, asked: list[str]
) -> None:
    assert overdue({"task": waited_s}, beats, ["task", "page"], TUNING) == asked


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(1, 60), (2, 120), (3, 240), (7, 3600), (10, 3600)], ids=lambda value: str(value)
)
def test_a_full_sync_that_failed_is_asked_for_twice_as_late_after_each_failure(failures: int, wait_s: float) -> None:
    earlier = [EndedRun(failed=True, ended_s_ago=9e9)] * (failures - 1)
    assert not full_sync_due([EndedRun(failed=True, ended_s_ago=wait_s - 1), *earlier], TUNING)
    assert full_sync_due([EndedRun(failed=True, ended_s_ago=wait_s), *earlier], TUNING)


def test_a_full_sync_is_due_at_once_if_there_was_none_or_the_last_one_succeeded() -> None:
    assert full_sync_due([], TUNING)
    assert full_sync_due([EndedRun(failed=False, ended_s_ago=0), EndedRun(failed=True, ended_s_ago=0)], TUNING)


@pytest.mark.parametrize(("failures", "wait_s"), [(0, 0), (1, 0), (2, 15), (3, 30), (4, 60), (9, 60)])
def test_a_drain_that_fails_again_and_again_is_asked_for_more_and_more_seldom(failures: int, wait_s: float) -> None:
    def ended(s_ago: float) -> list[EndedRun]:
        return [EndedRun(failed=True, ended_s_ago=s_ago)] * failures + [EndedRun(failed=False, ended_s_ago=9e9)]

    assert drain_due(ended(wait_s), TUNING)
    assert not wait_s or not drain_due(ended(wait_s - 1), TUNING)
