"""I4: whatever is created, updated, deleted, repeated and re-ordered, the edges at rest are those of a rebuild.

`make machine` runs 10,000 examples with a seed of its own. What fails is kept in EXAMPLES_VARIABLE's folder and tried
first by the next run; what is mended stays in `machine_steps`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import run_state_machine_as_test

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.tuning import IndexTuning, LinkTuning, Tuning
from mcp_assets_tests.linking import TYPES, AngleEmbedder, shorten_lists
from mcp_assets_tests.machine import LIMIT, Workspace
from mcp_assets_tests.machine_steps import STEPS, Steps

COUNT_VARIABLE = "MCP_ASSETS_TESTS_MACHINE_EXAMPLES"
EXAMPLES_VARIABLE = "MCP_ASSETS_TESTS_MACHINE_FOLDER"

COUNT = int(os.environ.get(COUNT_VARIABLE, "75"))
"""Examples in all: about two minutes on two cores."""

FOLDER = Path(os.environ.get(EXAMPLES_VARIABLE, ".hypothesis/machine"))


class Way(NamedTuple):
    """A way of linking."""

    name: str
    rebuild_from: int
    """From so many changes on, all lists are rebuilt."""
    reserves: int
    in_blocks: bool = False
    """Lists that are rebuilt are found in blocks, and not asked of Qdrant."""


WAYS = (
    Way("all lists are rebuilt", 3, 2),
    Way("all lists are rebuilt in blocks", 3, 2, in_blocks=True),
    Way("lists are updated", 1_000, 2),
    Way("lists are updated without reserves", 1_000, 0),
)


@pytest.fixture(params=WAYS, ids=[way.name for way in WAYS])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def machine(
    way: Way, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Workspace]:
    """Makes the state machine on a platform that links in that way, with every bound so small that it is met."""
    tuning = LinkTuning(
        rebuild_from=way.rebuild_from,
        changes_at_once=5,
        changes_in_rebuild_at_once=5,
        batches_between_changes=2,
        lists_at_once=2,
        referring_at_once=4,
        reach_hits=2,
        list_hits=2,
        ask_query_s=1e9 if way.in_blocks else 0.0,
    )
    shorten_lists(monkeypatch, LIMIT, LIMIT + way.reserves)
    platform = make_platform(
        embedder=AngleEmbedder(threshold=0.8),
        tuning=Tuning(link=tuning, index=IndexTuning(words_cut_at_once=200)),
        types=TYPES,
        tag_candidates=4,
        chunk_size=8_000,
    )
    create_source_tables(platform)

    class OnThisPlatform(Workspace):
        pass

    OnThisPlatform.platform = platform
    return OnThisPlatform


# 10,000 examples take hours.
@pytest.mark.timeout(0 if COUNT_VARIABLE in os.environ else 600)
def test_the_edges_at_rest_are_those_of_a_rebuild(way: Way, machine: type[Workspace]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, COUNT // len(WAYS)),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # One folder a way: an example that passes is taken out of its folder, and may fail in another way.
            database=DirectoryBasedExampleDatabase(FOLDER / way.name),
            print_blob=True,
        ),
    )


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: steps.__name__)
def test_steps_that_failed_once_or_are_seldom_taken_end_with_the_edges_of_a_rebuild(
    machine: Callable[[], Workspace], steps: Steps
) -> None:
    steps(machine())
