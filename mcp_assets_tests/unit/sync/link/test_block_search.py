"""Block search finds the nearest that a comparison with each vector finds, whatever the size of a block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.sync.link import block_search
from mcp_assets.sync.link.block_search import nearest_in_blocks
from mcp_assets.sync.link.blocked_lists import list_costs
from mcp_assets.tuning import LinkTuning


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 40),
    queries=st.integers(1, 6),
    limit=st.integers(1, 5),
    a_block=st.integers(1, 12),
    floor=st.sampled_from([-1.1, 0.0, 0.5]),
)
def test_the_best_hits_are_found_in_blocks_of_any_size(
    seed: int, count: int, queries: int, limit: int, a_block: int, floor: float
) -> None:
    random = np.random.default_rng(seed)
    # Few directions, so that cosines tie.
    vectors = random.integers(-1, 2, (count, 3)).astype(np.float32)
    asking = random.integers(-1, 2, (queries, 3)).astype(np.float32)
    own = np.array([random.integers(-1, count) if count else -1 for _ in range(queries)])
    if count:
        vectors[random.integers(0, count)] = np.nan
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(block_search, "VECTORS_A_BLOCK", a_block)
        found = nearest_in_blocks(asking, own, vectors, limit=limit, floor=floor)
    assert len(found) == queries
    for query, itself, (rows, cosines) in zip(asking, own, found, strict=True):
        every = [float(query @ vector) for row, vector in enumerate(vectors) if row != itself]
        best = sorted((cosine for cosine in every if cosine > floor), reverse=True)[:limit]
        assert cosines.tolist() == best
        assert [float(query @ vectors[row]) for row in rows] == best
        assert len(set(rows)) == len(rows)
        assert itself not in rows


def test_many_lists_are_found_in_blocks_and_few_are_asked_for() -> None:
    assert in_blocks(8_000, 8_000)
    assert in_blocks(100_000, 100_000)
    assert not in_blocks(200, 100_000)
    assert not in_blocks(20, 20)


def test_above_the_bound_of_exact_searches_a_rebuild_stays_exact_as_long_as_that_takes_no_hour() -> None:
    assert in_blocks(300_000, 300_000)
    assert not in_blocks(3_000_000, 3_000_000)


def in_blocks(lists: int, points: int) -> bool:
    tuning = LinkTuning()
    return list_costs(lists, [points], 256, tuning, 100_000).blocks_are_better(tuning.exact_for_s)
