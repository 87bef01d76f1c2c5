"""Several processes that do the same work at once, also with another number of shards, come to one outcome (I11)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import Validation, validate
from mcp_assets_tests.faults import BROKEN, FAULTS
from mcp_assets_tests.hashing import HashEmbedder, censuses, fill, found, sync
from mcp_assets_tests.observing import rows

TASKS = 200

MENDED = [fault for fault in FAULTS if not fault.left]
"""Faults that a repair mends without being told more."""

Make = Callable[..., Platform]


@pytest.fixture
def broken(make_platform: Make) -> Platform:
    """A workspace of tasks with each fault in it."""
    platform = make_platform(embedder=HashEmbedder(), shards=4)
    fill(platform, TASKS)
    for place, fault in enumerate(MENDED):
        first = place * (TASKS // len(MENDED)) // 2 * 2 + 3
        fault.make(platform, range(first, first + BROKEN))
    return platform


@pytest.mark.parametrize("shards", [4, 8])
def test_two_repairs_at_once_leave_nothing_that_one_would_have_mended(
    broken: Platform, make_platform: Make, shards: int
) -> None:
    other = make_platform(embedder=HashEmbedder(), shards=shards)

    def repair(platform: Platform) -> Validation:
        return validate(platform, entity_types=["task"], repair=True, deep=True)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(repair, (broken, other)))
    assert all(report.found for report in reports)
    assert found(censuses(broken, deep=True)) == {}


def test_censuses_of_the_same_partitions_at_once_count_what_they_find_once(
    broken: Platform, make_platform: Make
) -> None:
    other = make_platform(embedder=HashEmbedder(), shards=4)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda platform: found(censuses(platform, deep=True)), (broken, other))
    assert one == two
    kept = rows(broken, "SELECT kind, count(*) FROM {schema}.drift GROUP BY kind")
    assert dict(kept) == one
    assert rows(broken, "SELECT count(*) FROM {schema}.censuses") == [(4,)]


def test_full_syncs_by_two_numbers_of_shards_at_once_end_in_the_same_points_and_edges(
    broken: Platform, make_platform: Make
) -> None:
    validate(broken, entity_types=["task"], repair=True, deep=True)
    rows(broken, "UPDATE tasks SET title = title || ' again' WHERE id LIKE %s RETURNING 1", "t1%")
    other = make_platform(embedder=HashEmbedder(), shards=8)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sync, (broken, other)))
    assert found(censuses(broken, deep=True)) == {}
    assert found(censuses(other, deep=True)) == {}
