"""Ranges of slots: which censuses leave some slots out, and which partitions one full sync covers."""

from datetime import UTC, datetime

import pytest

from mcp_assets.sync.consistency.repair import _ranges
from mcp_assets.sync.consistency.stored_censuses import LastCensus
from mcp_assets.sync.consistency.validation import _covers


@pytest.mark.parametrize(
    ("ranges", "covered"),
    [
        ([(0, 16)], True),
        ([(0, 8), (8, 16)], True),
        ([(8, 16), (0, 8)], True),
        ([(0, 100)], True),
        ([(0, 9), (8, 16)], True),
        ([], False),
        ([(8, 16)], False),
        ([(0, 8)], False),
        ([(0, 7), (8, 16)], False),
        ([(16, 32)], False),
    ],
)
def test_slots_without_a_census_are_found(ranges: list[tuple[int, int]], covered: bool) -> None:
    assert _covers(ranges, (0, 16)) is covered


def test_partitions_that_stand_together_are_one_range_and_a_gap_parts_them() -> None:
    censuses = [_census("task", 8, 16), _census("task", 0, 8), _census("task", 24, 32), _census("page", 0, 32)]
    assert list(_ranges(censuses)) == [("page", (0, 32)), ("task", (0, 16)), ("task", (24, 32))]


def test_no_census_makes_no_range() -> None:
    assert list(_ranges([])) == []


def _census(entity_type: str, low: int, high: int) -> LastCensus:
    return LastCensus(1, entity_type, "held", low, high, False, 0, 0, 0, datetime.now(UTC), None, None, None, 0.0)
