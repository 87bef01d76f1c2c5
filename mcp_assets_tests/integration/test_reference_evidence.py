"""Evidence and names of references on real stores: what edges say, what dangles, and the upgrade of a linked site."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.edge_census import EdgeCensus, RulesInService
from mcp_assets.sync.consistency.stored_censuses import CensusPass
from mcp_assets.sync.views.graph import related
from mcp_assets_tests.linking import TYPES, AngleEmbedder, evidence, graph, index, rebuild, relink, write_source
from mcp_assets_tests.migrating import downgrade, upgrade

A, B, PAGE = EntityRef("task", "A"), EntityRef("task", "B"), EntityRef("page", "P")
CROSS, SEMANTIC = EdgeType.CROSS_REFERENCE, EdgeType.SEMANTIC_SIMILARITY


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES)
    create_source_tables(platform)
    return platform


def put(platform: Platform, ref: EntityRef, title: str, content: str = "", **metadata: object) -> None:
    write_source(platform, ref, title, content, metadata)
    index(platform, ref)
    relink(platform)


def dangling(platform: Platform, entity_type: str) -> list[str]:
    whole_type = CensusPass(entity_type, range(1), "", of=1, deep=False)
    census = EdgeCensus(platform, whole_type, RulesInService(platform))
    with platform.postgres.transaction() as connection:
        return [drift.detail for drift in census._dangling(connection)]


def test_an_edge_of_a_list_names_the_collection_and_the_score(world: Platform) -> None:
    put(world, A, "@0")
    put(world, PAGE, "@10")
    assert evidence(world)[EdgeKey(A, PAGE, SEMANTIC)] == {
        "rule": "cosine",
        "model": "angles",
        "collection": "page_points",
        "similarity_score": 0.9848,
    }


def test_other_words_around_a_reference_update_its_edge_and_no_other(world: Platform) -> None:
    put(world, PAGE, "Plan", "@90")
    put(world, B, "@180")
    put(world, A, "@0", "See [[Plan#Goals]] and task:B.")
    put(world, A, "@0", "Read [[Plan#Goals]]\nand task:B.")
    assert evidence(world)[EdgeKey(A, PAGE, CROSS)] == {
        "rule": "text",
        "reference_type": "title",
        "context": "Read [[Plan#Goals]]",
    }
    edges, _ = related(world, A)
    said = {edge.target: edge.metadata["context"] for edge in edges if edge.edge_type == CROSS}
    assert said == {PAGE: "Read [[Plan#Goals]]", B: "and task:B."}
    incremental, shown = graph(world), evidence(world)
    assert (incremental, shown) == (rebuild(world), evidence(world))


def test_a_page_that_appears_under_a_better_name_takes_the_reference_over(world: Platform) -> None:
    put(world, A, "@0", "[[places/Harbour]]")
    assert dangling(world, "task") == ["title 'places/harbour', by text, names no entity"]
    put(world, B, "Harbour", "@90")
    assert graph(world, [CROSS]) == {(A, B, CROSS): 1.0}
    assert dangling(world, "task") == []
    put(world, PAGE, "The port @180", slug="places/harbour")
    assert graph(world, [CROSS]) == {(A, PAGE, CROSS): 1.0}


def test_a_site_that_was_linked_by_the_rules_before_is_linked_again_after_the_upgrade(
    world: Platform, settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    put(world, PAGE, "Plan", "@90")
    put(world, A, "@0", "[[Plan#Goals]]")
    expected = evidence(world)
    assert EdgeKey(A, PAGE, CROSS) in expected
    downgrade(settings, "0015")
    with psycopg.connect(settings.require_database_url()) as connection:
        schema = sql.Identifier(settings.schema_name)
        connection.execute(sql.SQL("DELETE FROM {}.reference_uses").format(schema))
        connection.execute("DELETE FROM relationships WHERE origin = 'mcp_assets'")
    upgrade(settings, "head")
    relink(world)
    assert evidence(world) == expected
