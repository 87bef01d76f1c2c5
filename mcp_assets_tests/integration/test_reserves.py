"""Reserves: one moves up when a list loses a member, without a query; one that moved, or is gone, never does."""

from collections.abc import Callable, Collection

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.tuning import LinkTuning, Tuning
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
from mcp_assets_tests.migrating import downgrade, upgrade
from mcp_assets_tests.observing import rows

A, B, C, D, E = (EntityRef("task", letter) for letter in "abcde")


@pytest.fixture
def world(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Lists of one place, with one reserve: a lists b, c is its reserve, and d is left out."""
    shorten_lists(monkeypatch, 1, 2)
    platform = make_platform(embedder=AngleEmbedder(threshold=0.8), types=TYPES)
    create_source_tables(platform)
    for ref, angle in ((A, 0), (B, 10), (C, 20), (D, 30)):
        put(platform, ref, angle)
    # As on a new site, all lists are rebuilt, and no vector has a move number.
    platform.tuning = Tuning(link=LinkTuning(rebuild_from=1))
    relink(platform)
    platform.tuning = Tuning()
    assert listed(platform, A) == [B]
    return platform


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EntityRef]:
    """The entities whose lists Qdrant is asked for again, from here on."""
    refs: list[EntityRef] = []
    ask_early = Prefetch.ask_early

    def recorded(self: Prefetch, lost: Collection[EntityRef]) -> None:
        refs.extend(sorted(lost))
        ask_early(self, lost)

    monkeypatch.setattr(Prefetch, "ask_early", recorded)
    return refs


def put(platform: Platform, ref: EntityRef, angle: int) -> None:
    write_source(platform, ref, f"@{angle}", "")
    index(platform, ref)


def listed(platform: Platform, source: EntityRef) -> list[EntityRef]:
    edges: Collection[EdgeKey] = graph(platform)
    return sorted(edge.target for edge in edges if edge.source == source and edge.type is EdgeType.SEMANTIC_SIMILARITY)


def reserves(platform: Platform, ref: EntityRef) -> list[EntityRef]:
    ((neighbours,),) = rows(
        platform, "SELECT neighbours FROM {schema}.reserves WHERE (entity_type, entity_id) = (%s, %s)", *ref
    )
    return [EntityRef(*name) for name, _ in neighbours]


def test_a_reserve_moves_up_for_a_member_that_is_lost_without_a_query(world: Platform, asked: list[EntityRef]) -> None:
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert listed(world, A) == [C]
    assert A not in asked
    assert graph(world) == rebuild(world)


def test_a_reserve_that_moved_away_does_not_move_up(world: Platform, asked: list[EntityRef]) -> None:
    put(world, C, 80)
    relink(world)
    assert reserves(world, A) == [C], "no index leads from a reserve to the lists that hold it"
    put(world, B, 85)
    relink(world)
    assert listed(world, A) == [D]
    assert A in asked
    assert graph(world) == rebuild(world)


def test_a_reserve_that_is_gone_does_not_move_up_not_even_when_it_is_there_again(world: Platform) -> None:
    delete_source(world, C)
    index(world, C)
    relink(world)
    put(world, C, 80)
    relink(world)
    put(world, B, 85)
    relink(world)
    assert listed(world, A) == [D]
    assert graph(world) == rebuild(world)


def test_a_reserve_that_moved_and_is_as_near_as_before_stays_a_reserve(
    world: Platform, asked: list[EntityRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_lists(monkeypatch, 1, 3)
    rebuild(world)
    assert reserves(world, A) == [C, D]
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


def test_a_newcomer_makes_the_last_of_the_list_a_reserve(world: Platform) -> None:
    put(world, D, 5)
    relink(world)
    assert listed(world, A) == [D]
    assert reserves(world, A) == [B]
    assert graph(world) == rebuild(world)


def test_no_reserve_takes_the_place_of_an_edge_that_another_program_removed(
    world: Platform, asked: list[EntityRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_lists(monkeypatch, 2, 4)
    put(world, E, 35)
    rebuild(world)
    assert (listed(world, A), reserves(world, A)) == ([B, C], [D, E])
    rows(world, "DELETE FROM relationships WHERE source_id = 'a' AND target_id = 'b' RETURNING id")
    put(world, C, 80)
    relink(world)
    assert A in asked
    assert listed(world, A) == [B, D]
    assert graph(world) == rebuild(world)


def test_a_reserve_moves_up_after_the_upgrade_that_renamed_its_table(
    world: Platform, asked: list[EntityRef], settings: Settings
) -> None:
    downgrade(settings, "0021")
    upgrade(settings, "head")
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert listed(world, A) == [C]
    assert A not in asked
    assert graph(world) == rebuild(world)


def test_an_entity_that_is_gone_has_no_reserves(world: Platform) -> None:
    delete_source(world, A)
    index(world, A)
    relink(world)
    assert not rows(world, "SELECT FROM {schema}.reserves WHERE entity_id = 'a'")
