"""The pace of the sweep: it costs at most 1 % of a core, and small tables are not kept waiting by large ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import SLOTS
from mcp_assets.sync.index.sweep import SHARE_OF_A_CORE, PassCounts, pause_s, width_of_slice

ROWS = 1_000_000
COSTS = st.floats(0.0, 100.0)


@given(st.dictionaries(st.sampled_from(["task", "page", "memory"]), COSTS, min_size=1))
def test_all_types_together_cost_at_most_one_hundredth_of_a_core(costs: dict[str, float]) -> None:
    of_a_core = sum(cost / pause_s(cost, costs, name, least_s=2.0) for name, cost in costs.items())
    assert of_a_core <= SHARE_OF_A_CORE * (1 + 1e-9)


def test_a_type_alone_rests_a_hundred_times_what_its_slice_took() -> None:
    assert pause_s(0.04, {"task": 0.04}, "task", least_s=2.0) == pytest.approx(4.0)


def test_beside_a_large_table_a_small_one_is_still_compared_each_minute() -> None:
    costs = {"small": 0.04, "large": 5.0}
    assert pause_s(0.04, costs, "small", least_s=2.0) < 60.0
    assert pause_s(5.0, costs, "large", least_s=2.0) < 600.0


def test_a_small_table_is_one_slice_and_a_large_one_is_cut_by_its_rows() -> None:
    assert width_of_slice(0, PassCounts(), PassCounts(rows=10_000), rows_a_slice=ROWS) == SLOTS
    assert width_of_slice(0, PassCounts(), PassCounts(rows=4 * ROWS), rows_a_slice=ROWS) == SLOTS // 4


def test_of_a_table_of_unknown_size_the_first_slice_is_narrow_and_reports_how_wide_the_others_may_be() -> None:
    first = width_of_slice(0, PassCounts(), None, rows_a_slice=ROWS)
    assert first <= SLOTS // 16
    assert first + width_of_slice(first, PassCounts(rows=100), None, rows_a_slice=ROWS) >= SLOTS
    assert width_of_slice(first, PassCounts(rows=ROWS), None, rows_a_slice=ROWS) == first
