"""Provider outage: how many runs are asked for while the provider refuses everything."""

from datetime import UTC, datetime

import pytest

from mcp_assets.sync.index.provider_outage import LONGEST_WAIT_S, ProviderOutage, to_ask_for, wait_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def outage(next_try_in_s: float, model: str = "m/8") -> ProviderOutage:
    return ProviderOutage(model, "no quota", NOW, 1, NOW, next_try_in_s)


def test_the_wait_doubles_with_each_try_up_to_a_bound() -> None:
    assert [wait_s(tries, 60.0) / 60 for tries in range(1, 8)] == [1, 2, 4, 8, 16, 16, 16]
    assert wait_s(10_000, 60.0) == LONGEST_WAIT_S
    assert wait_s(5, 7_200.0) == 7_200.0


@pytest.mark.parametrize(
    ("outages", "asked"),
    [
        pytest.param([], ["task", "page"], id="no outage"),
        pytest.param([outage(10)], [], id="the next try is not due"),
        pytest.param([outage(0)], ["task"], id="it is: one type tries for all"),
        pytest.param([outage(0), outage(5, "old/8")], [], id="both models are needed, and one is not to be tried yet"),
    ],
)
def test_runs_are_asked_for_by_what_is_known_of_the_provider(outages: list[ProviderOutage], asked: list[str]) -> None:
    assert to_ask_for(["task", "page"], outages) == asked
    assert to_ask_for([], outages) == []
