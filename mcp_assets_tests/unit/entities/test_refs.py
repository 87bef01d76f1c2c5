"""EntityRef: names, slots and shards."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import SLOTS, EntityRef, shard_of, slot_of, slot_range

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
SHARDS = st.integers(1, 1024)


def test_a_ref_is_written_as_type_and_id() -> None:
    assert str(EntityRef("task", "7")) == "task:7"
    assert str(EntityRef("page", "a:b")) == "page:a:b"


@given(IDS)
def test_the_slot_is_the_first_sixteen_bits_of_the_md5_of_the_id(entity_id: str) -> None:
    assert slot_of(entity_id) == int.from_bytes(hashlib.md5(entity_id.encode()).digest()[:2])
    assert EntityRef("task", entity_id).slot == EntityRef("page", entity_id).slot == slot_of(entity_id)


@given(SHARDS)
def test_the_slot_ranges_of_all_shards_follow_each_other_and_cover_every_slot(shards: int) -> None:
    ranges = [slot_range(shard, shards) for shard in range(shards)]

    assert ranges[0][0] == 0
    assert ranges[-1][1] == SLOTS
    assert all(high == low for (_, high), (low, _) in pairwise(ranges))


@given(st.integers(0, SLOTS - 1), SHARDS)
def test_a_slot_lies_in_the_range_of_its_shard_and_of_no_other(slot: int, shards: int) -> None:
    shard = shard_of(slot, shards)
    low, high = slot_range(shard, shards)

    assert 0 <= shard < shards
    assert low <= slot < high


@pytest.mark.parametrize("shards", [1, 3, 4, 1024])
def test_shards_are_of_nearly_the_same_size(shards: int) -> None:
    sizes = [high - low for low, high in (slot_range(shard, shards) for shard in range(shards))]

    assert max(sizes) - min(sizes) <= 1
