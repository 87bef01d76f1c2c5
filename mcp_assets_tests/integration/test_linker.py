"""The linker on real stores: each edge type, what comes and goes, and that incremental equals a rebuild."""

from collections.abc import Callable

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.link import linker
from mcp_assets.sync.link.marks import mark_shards, pending_links
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    delete_source,
    evidence,
    forget_links,
    graph,
    index,
    rebuild,
    relink,
    write_source,
)

A, B, C = EntityRef("task", "A"), EntityRef("task", "B"), EntityRef("memory", "C")
PAGE = EntityRef("page", "P")
SEMANTIC, TOPICAL = EdgeType.SEMANTIC_SIMILARITY, EdgeType.TOPICAL_RELEVANCE
SEQUENTIAL, HIERARCHY = EdgeType.SEQUENTIAL_DEPENDENCY, EdgeType.CONCEPTUAL_HIERARCHY
CROSS = EdgeType.CROSS_REFERENCE


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    """A platform whose vectors are angles, with empty source tables."""
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES)
    create_source_tables(platform)
    return platform


def put(platform: Platform, ref: EntityRef, title: str, content: str = "", **metadata: object) -> None:
    write_source(platform, ref, title, content, metadata)
    index(platform, ref)


def test_near_texts_of_all_types_are_linked_both_ways_and_far_ones_are_not(world: Platform) -> None:
    put(world, A, "@0")
    put(world, PAGE, "@10")
    put(world, C, "@90")
    relink(world)
    assert graph(world) == {(A, PAGE, SEMANTIC): 0.9848, (PAGE, A, SEMANTIC): 0.9848}


def test_a_text_that_moves_leaves_the_lists_it_was_in_and_enters_others(world: Platform) -> None:
    put(world, A, "@0")
    put(world, B, "@5")
    put(world, C, "@90")
    relink(world)
    put(world, B, "@88")
    relink(world)
    assert graph(world) == {(B, C, SEMANTIC): 0.9994, (C, B, SEMANTIC): 0.9994}


def test_when_an_entity_goes_its_edges_go_both_ways_and_references_to_it_stay_on_record(world: Platform) -> None:
    put(world, A, "@0 see task:B", depends_on=["B"], tags=["rare"])
    put(world, B, "@0", tags=["rare"])
    relink(world)
    assert {key.type for key in graph(world)} == {SEMANTIC, TOPICAL, SEQUENTIAL, CROSS}
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert graph(world) == {}
    put(world, B, "@90")
    relink(world)
    assert graph(world) == {(A, B, SEQUENTIAL): 1.0, (A, B, CROSS): 1.0}


def test_a_reference_to_what_does_not_exist_becomes_an_edge_when_its_target_appears(world: Platform) -> None:
    put(world, A, "@0 part of [[The Plan]]", "blocked by memory:C", blocks=["B"])
    relink(world)
    assert graph(world) == {}
    put(world, PAGE, "the plan @90")
    put(world, PAGE, "The  Plan", "@90")
    put(world, C, "@180")
    put(world, B, "@270")
    relink(world)
    assert graph(world) == {
        (A, PAGE, CROSS): 1.0,
        (A, PAGE, HIERARCHY): 0.8,
        (A, C, CROSS): 1.0,
        (A, C, SEQUENTIAL): 0.9,
        (B, A, SEQUENTIAL): 1.0,
    }


def test_a_title_that_changes_takes_its_references_along(world: Platform) -> None:
    put(world, A, "@0", "[[Old]] and [[New]]")
    put(world, B, "Old", "@90")
    put(world, PAGE, "New", "@180")
    relink(world)
    assert set(graph(world)) == {(A, B, CROSS), (A, PAGE, CROSS)}
    put(world, B, "New", "@90")
    relink(world)
    assert set(graph(world)) == {(A, PAGE, CROSS)}
    put(world, PAGE, "Other", "@180")
    relink(world)
    assert set(graph(world)) == {(A, B, CROSS)}


def test_an_unchanged_edge_is_not_touched(world: Platform) -> None:
    put(world, A, "@0", depends_on=["B"])
    put(world, B, "@5")
    relink(world)

    def stamps() -> dict[object, object]:
        with world.postgres.transaction() as connection:
            return dict(connection.execute("SELECT id, updated_at FROM relationships").fetchall())

    before = stamps()
    assert len(before) == 3
    put(world, A, "@0", "with more text", depends_on=["B"], colour="red")
    counts = relink(world)
    assert stamps() == before
    assert (counts.added, counts.changed, counts.removed) == ({}, {}, {})
    for name in world.settings.entity_types:
        mark_shards(world, name, range(4), force=True)
    assert relink(world).relinked
    assert stamps() == before


def test_forty_equal_texts_list_the_first_twenty_others(world: Platform) -> None:
    refs = [EntityRef("memory", f"{number:02}") for number in range(40)]
    for ref in refs:
        write_source(world, ref, "the same @0", "")
    index(world, *reversed(refs))
    relink(world)
    edges = graph(world)
    for ref in refs:
        listed = sorted(key.target for key in edges if key.source == ref)
        assert listed == [other for other in refs if other != ref][:20]
    delete_source(world, refs[3])
    index(world, refs[3])
    relink(world)
    assert graph(world) == rebuild(world)


def test_a_hot_tag_makes_no_candidates_and_still_counts(world: Platform) -> None:
    refs = [EntityRef("memory", f"{number:04}") for number in range(2_500)]
    with world.postgres.transaction() as connection:
        for ref in refs:
            connection.execute(
                "INSERT INTO memory_nodes (id, title, content, metadata) VALUES (%s, '', '@0', %s)",
                (ref.id, f'{{"tags": ["hot", "pair {int(ref.id) // 2}"]}}'),
            )
    for start in range(0, len(refs), 500):
        index(world, *refs[start : start + 500], embed=False)
    relink(world)
    refresh_tag_weights(world)
    relink(world)
    edges = graph(world, [TOPICAL])
    assert len(edges) == len(refs)
    assert edges[EdgeKey(refs[0], refs[1], TOPICAL)] == 1.0


def test_refreshing_tag_weights_marks_the_holders_of_changed_tags_only(world: Platform) -> None:
    put(world, A, "@0", tags=["x", "y"])
    put(world, B, "@90", tags=["x", "z"])
    put(world, C, "@180", tags=["lonely"])
    relink(world)
    assert graph(world) == {(A, B, TOPICAL): 0.3333, (B, A, TOPICAL): 0.3333}
    refreshed = refresh_tag_weights(world)
    assert (refreshed.changed, refreshed.marked) == (1, 2)
    relink(world)
    assert graph(world) == {}
    assert refresh_tag_weights(world).changed == 0


def test_bad_metadata_and_references_to_itself_make_no_edges_and_no_errors(world: Platform) -> None:
    put(world, A, "@0 task:A [[@0 task:A]]", depends_on=["A", None, {}, [], True], blocks="A", parent_id=7, tags="x")
    put(world, B, "@90", depends_on="task:A", blocked_by=None, tags=[None, 3, {"a": 1}], concepts=12)
    put(world, EntityRef("task", "7"), "@180", parent_id="A")
    relink(world)
    assert set(graph(world)) == {
        (B, A, SEQUENTIAL),
        (A, EntityRef("task", "7"), HIERARCHY),
        (EntityRef("task", "7"), A, HIERARCHY),
    }


def test_ten_thousand_references_in_one_text_are_linked(world: Platform) -> None:
    put(world, B, "@90")
    put(world, A, "@0", "Depends on " + ", ".join(["task:B", *(f"task:{number}" for number in range(10_000))]))
    relink(world)
    assert set(graph(world)) == {(A, B, CROSS), (A, B, SEQUENTIAL)}


def test_a_point_that_is_lost_behind_our_back_costs_its_neighbours_nothing(world: Platform) -> None:
    put(world, A, "@0")
    put(world, B, "@1")
    put(world, C, "@2")
    relink(world)
    (collection,) = {world.qdrant.alias_target("task_points")}
    assert collection is not None
    world.qdrant.write(collection, delete=[point_id(B)])
    mark_shards(world, "task", range(4), force=True)
    mark_shards(world, "memory", range(4), force=True)
    relink(world)
    assert set(graph(world)) == {(A, C, SEMANTIC), (C, A, SEMANTIC)}


def test_what_was_refused_by_the_embedder_is_linked_by_its_references(world: Platform) -> None:
    put(world, B, "@0")
    put(world, A, "", "", depends_on=["B"])
    relink(world)
    assert set(graph(world)) == {(A, B, SEQUENTIAL)}


@pytest.mark.parametrize("rebuild_from", [1, 10_000])
def test_both_ways_of_linking_make_the_edges_of_a_rebuild(world: Platform, rebuild_from: int) -> None:
    world.tuning = Tuning(
        link=LinkTuning(
            rebuild_from=rebuild_from, rebuild_share=0.0, reach_hits=16, reach_queries_a_request=2, entities_kept=30
        )
    )
    refs = [EntityRef(name, f"{number:02}") for name in ("task", "page", "memory") for number in range(15)]
    for number, ref in enumerate(refs):
        tags = [f"t{number % 5}", f"u{number % 3}"]
        write_source(world, ref, f"title {number % 7} @{number * 7 % 60}", f"task:{number:02}", {"tags": tags})
    index(world, *refs)
    relink(world)
    for number, ref in enumerate(refs[::4]):
        write_source(world, ref, f"title {number % 7} @{number * 11 % 60}", "[[title 3 @21]]", {"tags": ["t1"]})
    delete_source(world, refs[8])
    index(world, *refs[::4])
    relink(world)
    incremental, shown = graph(world), evidence(world)
    assert len(incremental) > 500
    assert incremental == rebuild(world)
    assert shown == evidence(world)


def test_a_change_that_meets_a_list_with_an_entity_gone_during_a_rebuild_updates_that_list(
    world: Platform,
) -> None:
    for number, ref in enumerate((A, B, C)):
        put(world, ref, f"@{number}", tags=["shared", "other"])
    relink(world)
    world.tuning = Tuning(link=LinkTuning(rebuild_from=1))
    delete_source(world, B)
    index(world, B)
    # Until the deletion is linked, and no list is written yet.
    linking = linker.link(world)
    next(linking)
    linking.close()
    world.tuning = Tuning(link=LinkTuning(rebuild_from=10_000))
    put(world, A, "@0", tags=["shared"])
    relink(world)
    assert {key.target for key in graph(world)} == {A, C}
    assert graph(world) == rebuild(world)


def test_what_was_indexed_before_there_were_edges_is_linked_by_a_full_run(world: Platform) -> None:
    put(world, A, "@0")
    put(world, B, "@5")
    relink(world)
    edges = graph(world)
    forget_links(world)
    assert relink(world).relinked == 0
    mark_shards(world, "task", range(4), force=False)
    relink(world)
    assert graph(world) == edges
    mark_shards(world, "task", range(4), force=False)
    assert pending_links(world, up_to=1) == 0
