"""What a look at the collections in service is remembered for, and when it is not."""

import time
from typing import Any

import pytest

from mcp_assets.sync.collections import lookup as lookup_module
from mcp_assets.sync.collections.journal import Change, Journal
from mcp_assets.sync.collections.lookup import Lookup

QUIET: Journal = ()
BUILDING: Journal = (Change("tasks", "tasks__old", "tasks__new", "model", 3, "building", None),)
MOVED: Journal = (Change("tasks", "tasks__old", "tasks__new", "model", 3, "moved", False),)


@pytest.fixture
def lookup() -> Lookup[str]:
    platform: Any = None
    return Lookup(platform)


def test_outside_of_a_block_nothing_is_remembered(lookup: Lookup[str]) -> None:
    lookup.keep(QUIET, "found", read_at=time.monotonic())
    assert lookup.recall(QUIET) is None


def test_a_look_is_remembered_until_the_last_block_ends(lookup: Lookup[str]) -> None:
    lookup.enter()
    lookup.enter()
    lookup.keep(QUIET, "found", read_at=time.monotonic())
    lookup.leave()
    assert lookup.recall(QUIET) == "found"
    lookup.leave()
    lookup.enter()
    assert lookup.recall(QUIET) is None


@pytest.mark.parametrize(("before", "after"), [(QUIET, BUILDING), (BUILDING, MOVED), (MOVED, QUIET)])
def test_a_change_of_the_journal_makes_qdrant_be_asked_again(
    lookup: Lookup[str], before: Journal, after: Journal
) -> None:
    lookup.enter()
    lookup.keep(before, "found", read_at=time.monotonic())
    assert lookup.recall(before) == "found"
    assert lookup.recall(after) is None


def test_after_some_seconds_qdrant_is_asked_again(lookup: Lookup[str]) -> None:
    lookup.enter()
    lookup.keep(QUIET, "found", read_at=time.monotonic() - lookup_module._REMEMBERED_S - 1)
    assert lookup.recall(QUIET) is None
