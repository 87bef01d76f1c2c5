"""semantic_similarity: which hits are neighbours, and when an answer has to be asked for again."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType, rounded
from mcp_assets.graph.ranking import Neighbour, NeighbourList, ranked
from mcp_assets.graph.semantic import (
    Hit,
    certain_list,
    cut_off_of,
    nearest,
    neighbourhood,
    search_threshold,
    semantic_edges,
)
from mcp_assets_tests.unit.graph.samples import A, B, C

NEAR = (Neighbour(A, 0.9), Neighbour(B, 0.8), Neighbour(C, 0.75), Neighbour(EntityRef("task", "D"), 0.7))


def test_the_threshold_applies_to_the_rounded_score() -> None:
    assert neighbourhood(A, [(B, 0.69995001), (C, 0.69994999)], 0.7) == [(B, 0.7)]


def test_the_entity_itself_and_those_that_are_gone_are_no_neighbours() -> None:
    assert neighbourhood(A, [(A, 1.0), (B, 0.9), (C, 0.8)], 0.7, gone={B}) == [(C, 0.8)]


def test_scores_that_differ_below_four_decimals_tie_and_go_by_type_and_id() -> None:
    page = EntityRef("page", "Z")
    assert neighbourhood(A, [(C, 0.90003), (B, 0.90001), (page, 0.9)], 0.7) == [(page, 0.9), (B, 0.9), (C, 0.9)]


def test_an_entity_that_two_searches_find_counts_once_with_its_best_score() -> None:
    assert neighbourhood(A, [(B, 0.8), (B, 0.9), (B, 0.7)], 0.7) == [(B, 0.9)]


def test_a_score_that_is_not_a_number_is_an_error_not_an_absent_neighbour() -> None:
    with pytest.raises(ValueError, match="finite"):
        neighbourhood(A, [(B, float("nan"))], 0.7)


@given(st.integers(0, 10_000), st.floats(-0.00005, 0.00005))
def test_the_search_threshold_lets_through_all_that_rounds_to_the_threshold(step: int, offset: float) -> None:
    threshold = step / 10_000
    (cosine,) = struct.unpack("f", struct.pack("f", threshold + offset))
    assert rounded(cosine) < threshold or cosine >= search_threshold(threshold)


def hits(*cosines: float) -> list[Hit]:
    return [(EntityRef("task", f"n{number}"), cosine) for number, cosine in enumerate(cosines)]


@pytest.mark.parametrize(
    ("answer", "asked", "expected"),
    [
        (hits(0.9, 0.8), 3, None),
        (hits(0.9, 0.8, 0.75004), 3, 0.75),
        (hits(0.9, 0.6), 2, None),
        (hits(0.9, 0.69996), 2, 0.7),
        ([], 3, None),
    ],
    ids=[
        "fewer hits than asked for are all there are",
        "the last may tie with one that was left out",
        "the last is below the threshold",
        "the last reaches the threshold after rounding",
        "no hits at all",
    ],
)
def test_points_that_an_answer_leaves_out_score_at_most_as_high_as_its_last(
    answer: list[Hit], asked: int, expected: float | None
) -> None:
    assert cut_off_of(answer, asked, threshold=0.7) == expected


@pytest.mark.parametrize(
    ("cut_offs", "expected"),
    [
        ([None], NeighbourList(NEAR, None)),
        ([0.7, None], NeighbourList(NEAR[:3], 0.7)),
        ([0.7, 0.8], NeighbourList(NEAR[:1], 0.8)),
        ([0.95], NeighbourList((), 0.95)),
    ],
    ids=[
        "no point is left out",
        "a neighbour that ties with a cut-off is left out",
        "the highest of some cut-offs counts",
        "all neighbours may be behind a point that is left out",
    ],
)
def test_a_list_has_only_neighbours_above_all_that_is_left_out(
    cut_offs: list[float | None], expected: NeighbourList
) -> None:
    assert certain_list(NEAR, cut_offs, 4) == expected


def test_of_more_than_are_kept_the_last_that_is_kept_is_the_cut_off() -> None:
    assert certain_list(NEAR, [0.6], 2) == NeighbourList(NEAR[:2], 0.8)


@given(
    st.lists(st.sampled_from([0.5, 0.7, 0.70001, 0.8, 0.80002, 0.9]), max_size=12),
    st.sets(st.integers(0, 11)),
    st.permutations(range(12)),
)
def test_doubling_the_limit_until_enough_are_certain_gives_the_list_of_an_unlimited_search(
    cosines: list[float], gone_numbers: set[int], insertion: list[int]
) -> None:
    everything = hits(*cosines)
    gone = {EntityRef("task", f"n{number}") for number in gone_numbers}
    in_engine = sorted(everything, key=lambda hit: (-hit[1], insertion[int(hit[0].id[1:])]))
    all_neighbours = ranked(neighbourhood(A, everything, 0.7, gone), 12)
    asked = 3
    while True:
        answer = in_engine[:asked]
        cut_off = cut_off_of(answer, asked, 0.7)
        certain = certain_list(neighbourhood(A, answer, 0.7, gone), [cut_off], 5)
        assert certain.neighbours == all_neighbours[: len(certain.neighbours)]
        if certain.cut_off is None or len(certain.neighbours) >= 3:
            break
        asked *= 2
        assert asked <= 24, "it must end once the whole set has been asked for"
    outside = all_neighbours[len(certain.neighbours) :]
    assert not outside if certain.cut_off is None else all(near.score <= certain.cut_off for near in outside)


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("abcdefghijklmn"), st.sampled_from([0.69, 0.7, 0.70001, 0.70004, 0.70006, 0.8, 0.9])
            ),
            max_size=10,
        ),
        max_size=3,
    ),
    st.sets(st.sampled_from("abcdefghijklmn")),
)
def test_the_nearest_of_some_answers_are_the_best_of_their_neighbourhood(
    answers: list[list[tuple[str, float]]], unknown: set[str]
) -> None:
    names = {point: None if point in unknown else EntityRef("task", point) for point in "abcdefghijklmn"}
    named = [(ref, cosine) for answer in answers for point, cosine in answer if (ref := names[point])]
    source = EntityRef("task", "a")
    whole = neighbourhood(source, named, 0.7)
    for limit in (1, 2, 4):
        near = nearest(source, answers, names, 0.7, limit)
        assert near == whole[:limit]


def test_a_score_that_is_not_a_number_is_an_error_among_many_hits_too() -> None:
    names: dict[str, EntityRef | None] = {str(number): EntityRef("task", str(number)) for number in range(9)}
    answer = [*((str(number), 0.9) for number in range(8)), ("8", float("nan"))]
    with pytest.raises(ValueError, match="finite"):
        nearest(A, [answer], names, 0.7, 1)


def test_the_edges_of_a_list_carry_score_and_model() -> None:
    (edge,) = semantic_edges(A, (Neighbour(B, 0.9),), "wordllama", {"task": "kanban_tasks"})
    evidence = {"rule": "cosine", "model": "wordllama", "collection": "kanban_tasks", "similarity_score": 0.9}
    assert edge.of_type(EdgeType.SEMANTIC_SIMILARITY) == Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.9, evidence)
