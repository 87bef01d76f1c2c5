"""semantic_similarity: which hits are neighbours, and when an answer has to be asked for again."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType, rounded
from mcp_assets.graph.ranking import Neighbour, ranked
from mcp_assets.graph.semantic import Hit, cut_short, nearest, neighbourhood, query_floor, semantic_edges
from mcp_assets_tests.unit.graph.samples import A, B, C


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
def test_the_query_floor_lets_through_all_that_rounds_to_the_threshold(step: int, offset: float) -> None:
    threshold = step / 10_000
    (cosine,) = struct.unpack("f", struct.pack("f", threshold + offset))
    assert rounded(cosine) < threshold or cosine >= query_floor(threshold)


def hits(*cosines: float) -> list[Hit]:
    return [(EntityRef("task", f"n{number}"), cosine) for number, cosine in enumerate(cosines)]


@pytest.mark.parametrize(
    ("answer", "asked", "gone", "expected"),
    [
        (hits(0.9, 0.8), 3, set(), False),
        (hits(0.9, 0.8, 0.75), 3, set(), False),
        (hits(0.9, 0.8, 0.8), 3, set(), True),
        (hits(0.9, 0.80001, 0.79999), 3, set(), True),
        (hits(0.9, 0.8), 2, set(), True),
        (hits(0.9, 0.6), 2, set(), False),
        (hits(0.9, 0.8, 0.75), 3, {EntityRef("task", "n0")}, True),
        ([(A, 1.0), *hits(0.9, 0.8)], 3, set(), True),
        ([], 3, set(), False),
    ],
    ids=[
        "fewer hits than asked for are all there are",
        "two stand above the last",
        "the second ties with the last",
        "the second ties with the last after rounding",
        "the last may tie with one that was left out",
        "the last is below the threshold",
        "one of those above the last is gone",
        "the entity itself takes one of the hits",
        "no hits at all",
    ],
)
def test_an_answer_that_may_lack_one_of_the_two_best_is_noticed(
    answer: list[Hit], asked: int, gone: set[EntityRef], expected: bool
) -> None:
    near = neighbourhood(A, answer, 0.7, gone)
    assert cut_short(near, [cosine for _, cosine in answer], asked, threshold=0.7, limit=2) is expected


@given(
    st.lists(st.sampled_from([0.5, 0.7, 0.70001, 0.8, 0.80002, 0.9]), max_size=12),
    st.sets(st.integers(0, 11)),
    st.permutations(range(12)),
)
def test_doubling_the_limit_until_nothing_is_cut_gives_the_list_of_an_unlimited_search(
    cosines: list[float], gone_numbers: set[int], insertion: list[int]
) -> None:
    everything = hits(*cosines)
    gone = {EntityRef("task", f"n{number}") for number in gone_numbers}
    in_engine = sorted(everything, key=lambda hit: (-hit[1], insertion[int(hit[0].id[1:])]))
    asked = 3
    while cut_short(
        neighbourhood(A, in_engine[:asked], 0.7, gone), [cosine for _, cosine in in_engine[:asked]], asked, 0.7, limit=3
    ):
        asked *= 2
        assert asked <= 24, "it must end once the whole set has been asked for"
    assert ranked(neighbourhood(A, in_engine[:asked], 0.7, gone), 3) == ranked(
        neighbourhood(A, everything, 0.7, gone), 3
    )


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
        for answer in answers:
            cosines = [cosine for _, cosine in answer]
            assert cut_short(near, cosines, 3, 0.7, limit) == cut_short(whole, cosines, 3, 0.7, limit)


def test_a_score_that_is_not_a_number_is_an_error_among_many_hits_too() -> None:
    names: dict[str, EntityRef | None] = {str(number): EntityRef("task", str(number)) for number in range(9)}
    answer = [*((str(number), 0.9) for number in range(8)), ("8", float("nan"))]
    with pytest.raises(ValueError, match="finite"):
        nearest(A, [answer], names, 0.7, 1)


def test_the_edges_of_a_list_carry_score_and_model() -> None:
    (edge,) = semantic_edges(A, (Neighbour(B, 0.9),), "wordllama")
    evidence = {"rule": "cosine", "model": "wordllama"}
    assert edge.of_type(EdgeType.SEMANTIC_SIMILARITY) == Edge(A, B, EdgeType.SEMANTIC_SIMILARITY, 0.9, evidence)
