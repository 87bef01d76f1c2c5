"""Spares move up when a list loses a member, nobody being asked; one that moved, or is gone, never does."""

from collections.abc import Callable, Collection

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.link import linker
from mcp_assets.sync.link.prefetch import Ahead
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    delete_source,
    graph,
    index,
    rebuild,
    relink,
    shorten_lists,
    write_source,
)
from mcp_assets_tests.observing import rows

A, B, C, D, E = (EntityRef("task", letter) for letter in "abcde")


@pytest.fixture
def world(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Lists of one place, with one spare: a lists b, c is its spare, and d is left out."""
    shorten_lists(monkeypatch, 1, 2)
    platform = make_platform(types=TYPES)
    platform._embedder = AngleEmbedder(threshold=0.8)
    create_source_tables(platform)
    for ref, angle in ((A, 0), (B, 10), (C, 20), (D, 30)):
        put(platform, ref, angle)
    with monkeypatch.context() as first:
        # As on a new site, everybody is asked, and no change was ever worked in.
        first.setattr(linker, "SWEEP_FROM", 1)
        relink(platform)
    assert listed(platform, A) == [B]
    return platform


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EntityRef]:
    """Who had to be asked for again, from here on."""
    refs: list[EntityRef] = []
    ask_for = Ahead.ask_for

    def recorded(self: Ahead, lost: Collection[EntityRef]) -> None:
        refs.extend(sorted(lost))
        ask_for(self, lost)

    monkeypatch.setattr(Ahead, "ask_for", recorded)
    return refs


def put(platform: Platform, ref: EntityRef, angle: int) -> None:
    write_source(platform, ref, f"@{angle}", "")
    index(platform, ref)


def listed(platform: Platform, source: EntityRef) -> list[EntityRef]:
    edges: Collection[EdgeKey] = graph(platform)
    return sorted(edge.target for edge in edges if edge.source == source and edge.type is EdgeType.SEMANTIC_SIMILARITY)


def spares(platform: Platform, ref: EntityRef) -> list[EntityRef]:
    ((neighbours,),) = rows(
        platform, "SELECT neighbours FROM {schema}.spares WHERE (entity_type, entity_id) = (%s, %s)", *ref
    )
    return [EntityRef(*name) for name, _ in neighbours]


def test_a_spare_moves_up_for_a_member_that_is_lost_and_nobody_is_asked(
    world: Platform, asked: list[EntityRef]
) -> None:
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert listed(world, A) == [C]
    assert A not in asked
    assert graph(world) == rebuild(world)


def test_a_spare_that_moved_away_does_not_move_up(world: Platform, asked: list[EntityRef]) -> None:
    put(world, C, 80)
    relink(world)
    assert spares(world, A) == [C], "it is not told of who moved away"
    put(world, B, 85)
    relink(world)
    assert listed(world, A) == [D]
    assert A in asked
    assert graph(world) == rebuild(world)


def test_a_spare_that_is_gone_does_not_move_up_not_even_when_it_is_there_again(world: Platform) -> None:
    delete_source(world, C)
    index(world, C)
    relink(world)
    put(world, C, 80)
    relink(world)
    put(world, B, 85)
    relink(world)
    assert listed(world, A) == [D]
    assert graph(world) == rebuild(world)


def test_a_spare_that_moved_and_is_as_near_as_before_is_a_spare_still(
    world: Platform, asked: list[EntityRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_lists(monkeypatch, 1, 3)
    rebuild(world)
    assert spares(world, A) == [C, D]
    put(world, C, 80)
    put(world, C, 20)
    relink(world)
    asked.clear()
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert listed(world, A) == [C]
    assert A not in asked
    assert graph(world) == rebuild(world)


def test_a_newcomer_pushes_the_last_of_the_list_among_the_spares(world: Platform) -> None:
    put(world, D, 5)
    relink(world)
    assert listed(world, A) == [D]
    assert spares(world, A) == [B]
    assert graph(world) == rebuild(world)


def test_no_spare_takes_the_place_of_an_edge_that_somebody_took_away(
    world: Platform, asked: list[EntityRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_lists(monkeypatch, 2, 4)
    put(world, E, 35)
    rebuild(world)
    assert (listed(world, A), spares(world, A)) == ([B, C], [D, E])
    rows(world, "DELETE FROM relationships WHERE source_id = 'a' AND target_id = 'b' RETURNING id")
    put(world, C, 80)
    relink(world)
    assert A in asked
    assert listed(world, A) == [B, D]
    assert graph(world) == rebuild(world)


def test_who_is_gone_has_no_spares(world: Platform) -> None:
    delete_source(world, A)
    index(world, A)
    relink(world)
    assert not rows(world, "SELECT FROM {schema}.spares WHERE entity_id = 'a'")
