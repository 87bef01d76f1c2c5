"""How long a part of the embedded stack is waited for, and what is said of it meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_assets.embedded import stack
from mcp_assets.embedded.stack import FAILED_STARTS, StackError
from mcp_assets.embedded.state import PREPARING, Part, PartState, PartStatus, StackStatus, StateDir

Look = tuple[str, str, bool]

Wait = Callable[..., tuple[list[Look], stack.StackAddresses | None]]

ADDRESS = "nats://127.0.0.1:4222"


@pytest.fixture
def wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Waits for NATS, of which one status after the other is published; None: the supervisor has died."""

    def waited(*statuses: PartStatus | None) -> tuple[list[Look], stack.StackAddresses | None]:
        left = list(statuses)

        def status(_: Path) -> StackStatus:
            known = left.pop(0)
            return StackStatus() if known is None else StackStatus(supervisor_pid=os.getpid(), parts={Part.NATS: known})

        monkeypatch.setattr(stack, "status", status)
        monkeypatch.setattr(
            stack, "_addresses", lambda _, now: stack.StackAddresses(None, now.parts[Part.NATS].address, None)
        )
        monkeypatch.setattr(stack, "_POLL_S", 0)
        looks: list[Look] = []
        found = stack._wait_until_running(StateDir(tmp_path), frozenset({Part.NATS}), lambda *look: looks.append(look))
        assert left == []
        return looks, found

    return waited


def test_a_part_that_is_only_slow_is_waited_for_and_each_look_says_what_it_does(wait: Wait) -> None:
    making = PartStatus(state=PartState.STARTING, detail=PREPARING)
    looks, found = wait(
        PartStatus(),
        *(making for _ in range(1000)),
        PartStatus(state=PartState.RUNNING, address=ADDRESS, detail="port 4221 is taken"),
    )
    assert looks[:2] == [("nats", "starting", False), ("nats", f"starting ({PREPARING})", False)]
    assert looks[-1] == ("nats", f"running ({ADDRESS}; port 4221 is taken)", True)
    assert found is not None
    assert found.nats_url == ADDRESS


def test_a_part_whose_process_ends_at_each_start_is_given_up_at_once_with_its_last_words(wait: Wait) -> None:
    last = PartStatus(state=PartState.RESTARTING, detail="ended with code 1: no space", restarts=FAILED_STARTS)
    with pytest.raises(StackError, match=r"embedded nats did not start: .*no space.*nats\.log"):
        wait(PartStatus(state=PartState.STARTING), last)


def test_the_wait_ends_when_the_supervisor_dies(wait: Wait) -> None:
    _, found = wait(PartStatus(state=PartState.STARTING), None)
    assert found is None
