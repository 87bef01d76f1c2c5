"""An entity that very many name, a title or a tag that many share: what a change links again, and what it leaves."""

from collections.abc import Callable

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.linking import TYPES, AngleEmbedder, graph, index, rebuild, relink, sync_all, write_source

REFERRING, SHARING = 60, 12
HUB = EntityRef("page", "hub")

# Far fewer references are resolved at once than there are, and so few changes would begin a rebuild.
TUNING = Tuning(
    link=LinkTuning(referring_at_once=10, changes_at_once=10, changes_in_rebuild_at_once=10, rebuild_from=15)
)


def notes(number: int) -> EntityRef:
    return EntityRef("page", f"p{number:02}")


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    """A page that all tasks name, and pages that share a title, which all tasks name, too. No page is near a task."""
    platform = make_platform(embedder=AngleEmbedder(), tuning=TUNING, types=TYPES)
    create_source_tables(platform)
    write_source(platform, HUB, "Hub", "@100")
    for number in range(SHARING):
        write_source(platform, notes(number), "Notes", "@180")
    for number in range(REFERRING):
        write_source(platform, EntityRef("task", f"t{number:02}"), f"Task {number}", f"@{number} [[Hub]] [[Notes]]")
    sync_all(platform)
    relink(platform)
    assert (named(platform, HUB), named(platform, notes(0))) == (REFERRING, REFERRING)
    return platform


def named(platform: Platform, ref: EntityRef) -> int:
    """How many entities refer to `ref`."""
    return sum(key.target == ref for key in graph(platform, [EdgeType.CROSS_REFERENCE]))


def rename(platform: Platform, ref: EntityRef, title: str, content: str) -> LinkCounts:
    write_source(platform, ref, title, content)
    index(platform, ref)
    return relink(platform)


def test_a_rename_of_an_entity_that_many_name_resolves_their_references_and_makes_no_list_again(
    world: Platform,
) -> None:
    for title, there in (("Centre", 0), ("Hub", REFERRING)):
        counts = rename(world, HUB, title, "@100")
        assert counts.relinked >= REFERRING
        assert counts.lists_asked + counts.lists_in_blocks == 0
        assert named(world, HUB) == there
    linked = graph(world)
    assert rebuild(world) == linked


def test_of_entities_that_share_a_title_only_the_first_one_concerns_those_that_name_it(world: Platform) -> None:
    last = rename(world, notes(SHARING - 1), "Other", "@180")
    assert last.relinked < REFERRING
    assert named(world, notes(0)) == REFERRING

    first = rename(world, notes(0), "Other", "@180")
    assert first.relinked >= REFERRING
    assert (named(world, notes(0)), named(world, notes(1))) == (0, REFERRING)

    new = EntityRef("page", "a")
    assert rename(world, new, "Notes", "@180").relinked >= REFERRING
    assert named(world, new) == REFERRING
    linked = graph(world)
    assert rebuild(world) == linked


def test_a_tag_that_comes_to_too_many_holders_makes_no_candidates_from_then_on(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES, tag_candidates=6)
    create_source_tables(platform)
    for number in range(24):
        write_tagged(platform, number, "few" if number < 4 else f"own-{number}")
    sync_all(platform)
    relink(platform)
    # Four hold the new tag, then eight, in transactions of their own.
    for first, edges in ((4, 12 + 12), (8, 12)):
        for number in range(first, first + 4):
            write_tagged(platform, number, "fresh")
        index(platform, *(EntityRef("task", f"t{number:02}") for number in range(first, first + 4)))
        relink(platform)
        assert len(graph(platform, [EdgeType.TOPICAL_RELEVANCE])) == edges
    linked = graph(platform)
    assert rebuild(platform) == linked
    # The nightly count changes its weight, and nothing else.
    assert refresh_tag_weights(platform).tags == 2 + 12
    relink(platform)
    assert graph(platform) == linked


def write_tagged(platform: Platform, number: int, tag: str) -> None:
    metadata: dict[str, object] = {"tags": [tag]}
    write_source(platform, EntityRef("task", f"t{number:02}"), f"Task {number}", f"@{number * 15}", metadata)
