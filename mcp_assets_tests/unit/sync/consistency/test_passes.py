"""Passes: which partitions one pass covers, which census a slot belongs to, and which slots are sampled."""

import pytest

from mcp_assets.entities.refs import SLOTS, shard_of
from mcp_assets.sync.consistency.progress import Partitions, split_into_passes
from mcp_assets.sync.consistency.stored_censuses import CensusPass
from mcp_assets.sync.consistency.vector_census import SLOTS_A_SAMPLE


@pytest.mark.parametrize(
    ("sizes", "passes"),
    [
        ({}, []),
        ({("task", 0): 3, ("task", 1): 3, ("task", 2): 4}, [("task", range(3))]),
        ({("task", 0): 6, ("task", 1): 4, ("task", 2): 1}, [("task", range(2)), ("task", range(2, 3))]),
        ({("task", 0): 60, ("task", 1): 60}, [("task", range(1)), ("task", range(1, 2))]),
        ({("task", 0): 1, ("page", 0): 1, ("page", 1): 1}, [("task", range(1)), ("page", range(2))]),
        ({("task", 0): 1, ("task", 2): 1, ("task", 3): 1}, [("task", range(1)), ("task", range(2, 4))]),
        ({("task", 1): 1, ("task", 0): 1}, [("task", range(1, 2)), ("task", range(1))]),
        ({("task", 0): 0, ("task", 1): 0}, [("task", range(2))]),
    ],
)
def test_a_pass_covers_neighbours_of_one_type_up_to_so_many_entities(
    sizes: dict[tuple[str, int], int], passes: list[tuple[str, range]]
) -> None:
    assert list(split_into_passes(sizes, 10)) == [Partitions(*one) for one in passes]


@pytest.mark.parametrize("shards", [1, 3, 4, 7])
def test_each_slot_belongs_to_the_census_of_its_partition(shards: int) -> None:
    taken = CensusPass("task", range(shards), "held", of=shards, deep=False)
    assert taken.slots == (0, SLOTS)
    for slot in (0, 1, SLOTS // 3, SLOTS // 2 - 1, SLOTS // 2, SLOTS - 1):
        assert taken.of_slot(slot).shard == shard_of(slot, shards)


def test_a_slot_outside_the_pass_belongs_to_the_nearest_partition() -> None:
    taken = CensusPass("task", range(1, 3), "held", of=4, deep=False)
    assert [taken.of_slot(slot).shard for slot in (0, SLOTS // 4, SLOTS // 2, SLOTS - 1)] == [1, 1, 2, 2]


@pytest.mark.parametrize("step", [1, 4, 12, 20])
def test_hourly_passes_sample_all_slots_within_a_week_whatever_the_step_of_their_ids(step: int) -> None:
    taken = CensusPass("task", range(4), "held", of=4, deep=False)
    sampled = set()
    for hour in range(7 * 24):
        taken.censuses[0].id = 1 + step * hour
        sampled.add(taken.seed % SLOTS_A_SAMPLE)
    assert sampled == set(range(SLOTS_A_SAMPLE))
