"""The diff of edges."""

import json
import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.diff import StoredEdge, diff, diff_lists
from mcp_assets.graph.edges import Edge, EdgeType, ListedEdge, strongest
from mcp_assets_tests.unit.graph.samples import A, B, C

EVIDENCE = st.fixed_dictionaries({"rule": st.sampled_from(["text", "slug"]), "shared": st.lists(st.sampled_from("xy"))})
EDGES = st.builds(
    Edge,
    st.sampled_from([A, B]),
    st.sampled_from([C, EntityRef("page", "A")]),
    st.sampled_from(EdgeType),
    st.floats(0, 1),
    EVIDENCE,
)


def as_stored(edge: Edge) -> Edge:
    """The edge after a round trip through `real` and `jsonb`."""
    (strength,) = struct.unpack("f", struct.pack("f", edge.strength))
    return Edge(edge.source, edge.target, EdgeType(str(edge.type)), strength, json.loads(json.dumps(edge.metadata)))


def test_added_changed_and_removed_are_distinguished_and_unchanged_edges_are_in_none() -> None:
    same = Edge(A, B, EdgeType.CROSS_REFERENCE, 1.0, {"rule": "text"})
    weaker = Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.8)
    stronger = Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.9)
    gone = Edge(A, B, EdgeType.TOPICAL_RELEVANCE, 0.5)
    new = Edge(A, C, EdgeType.TOPICAL_RELEVANCE, 0.5)
    assert diff([same, weaker, gone], [stronger, new, same]) == ((new,), (stronger,), (gone,))


def test_a_difference_below_four_decimals_is_no_change() -> None:
    assert diff(
        [Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.80001)], [Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.8)]
    ) == (
        (),
        (),
        (),
    )


def test_other_evidence_is_a_change() -> None:
    before = Edge(A, B, EdgeType.CONCEPTUAL_HIERARCHY, 1.0, {"rule": "slug"})
    after = Edge(A, B, EdgeType.CONCEPTUAL_HIERARCHY, 1.0, {"rule": "metadata:parent_id"})
    assert diff([before], [after]).changed == (after,)


def test_a_tuple_in_the_evidence_is_the_list_that_jsonb_gives_back() -> None:
    edge = Edge(A, B, EdgeType.TOPICAL_RELEVANCE, 0.5, {"shared": ("x", "y")})
    assert diff([as_stored(edge)], [edge]) == ((), (), ())


@given(st.lists(EDGES))
def test_what_is_stored_is_not_written_again(wanted: list[Edge]) -> None:
    stored = [as_stored(edge) for edge in strongest(wanted).values()]
    assert diff(stored, wanted) == ((), (), ())


@given(st.lists(EDGES), st.lists(EDGES))
def test_applying_a_diff_gives_the_wanted_edges_in_ordered_writes(before: list[Edge], wanted: list[Edge]) -> None:
    stored = strongest(as_stored(edge) for edge in before)
    added, changed, removed = diff(stored.values(), wanted)
    assert not {edge.key for edge in added} & stored.keys()
    assert {edge.key for edge in (*changed, *removed)} <= stored.keys()
    after = {key: edge for key, edge in stored.items() if edge not in removed}
    after |= {edge.key: edge for edge in (*added, *changed)}
    assert after == strongest(wanted)
    for edges in (added, changed, removed):
        assert [edge.key for edge in edges] == sorted({edge.key for edge in edges})


def listed(edges: list[Edge]) -> list[ListedEdge]:
    return [
        ListedEdge(edge.source, edge.target, edge.strength, json.dumps(dict(reversed(list(edge.metadata.items())))))
        for edge in edges
    ]


@given(st.lists(EDGES), st.lists(EDGES))
def test_the_diff_of_lists_is_the_diff_of_their_edges(before: list[Edge], wanted: list[Edge]) -> None:
    kind = EdgeType.TOPICAL_RELEVANCE
    stored = list(strongest(replace(edge, type=kind) for edge in before).values())
    target = list(strongest(replace(edge, type=kind) for edge in wanted).values())
    lists: dict[EntityRef, dict[EntityRef, StoredEdge]] = {}
    for edge in stored:
        row = f"row of {edge.source} {edge.target}"
        lists.setdefault(edge.source, {})[edge.target] = StoredEdge(row, edge.strength, json.dumps(edge.metadata))
    found = diff_lists(lists, listed(target))
    expected = diff(stored, target)
    assert sorted(edge.of_type(kind).key for edge in found.added) == [edge.key for edge in expected.added]
    for rows, edges in ((found.changed, expected.changed), (found.removed, expected.removed)):
        assert [edge.of_type(kind) for _, edge in rows] == list(edges)
        assert [row for row, _ in rows] == [f"row of {edge.source} {edge.target}" for edge in edges]
