"""topical_relevance: tags of an entity, weights, scores, candidates."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType
from mcp_assets.graph.ranking import ranked
from mcp_assets.graph.topical import (
    TagWeight,
    candidate_tags,
    relevance,
    tags_of,
    topical_edges,
    topical_neighbourhood,
    weight_of,
)
from mcp_assets_tests.unit.graph.samples import ANY_JSON, A, B, C

TAGS = st.frozensets(st.sampled_from("pqrstuvw"))
WEIGHTS = st.dictionaries(
    st.sampled_from("pqrstuvw"), st.builds(weight_of, st.integers(1, 1000), st.just(200)), max_size=6
)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"tags": ["Python", " python ", "Machine  Learning"]}, {"python", "machine learning"}),
        ({"tags": ["x"], "concepts": ["X", "y"]}, {"x", "y"}),
        ({"category": "Process "}, {"category:process"}),
        ({"tags": ["process"], "category": "process"}, {"process", "category:process"}),
        ({"tags": "on call, testing"}, {"on call, testing"}),
        ({"tags": [3.11, 7, 7.0]}, {"3.11", "7"}),
        ({"tags": 7, "category": 2}, {"7", "category:2"}),
        ({"tags": [None, True, "", "  ", ["x"], {"y": 1}, float("nan")]}, set()),
        ({"tags": None, "concepts": {"a": 1}, "category": None}, set()),
        ({}, set()),
    ],
)
def test_tags_concepts_and_category_are_normalised(metadata: dict[str, Any], expected: set[str]) -> None:
    assert tags_of(metadata) == expected


@given(st.dictionaries(st.sampled_from(["tags", "concepts", "category"]), ANY_JSON))
def test_no_metadata_makes_it_raise(metadata: dict[str, Any]) -> None:
    assert all(0 < len(tag) <= 512 for tag in tags_of(metadata))


@pytest.mark.parametrize(
    ("holders", "weight"), [(0, 1), (1, 1), (2, 1 / 2), (3, 1 / 2), (4, 1 / 3), (200, 1 / 8), (5000, 1 / 13)]
)
def test_the_weight_falls_with_the_logarithm_of_the_holders(holders: int, weight: float) -> None:
    assert weight_of(holders, 200).weight == weight


def test_a_tag_with_more_holders_than_the_limit_makes_no_candidates() -> None:
    assert (weight_of(200, 200).makes_candidates, weight_of(201, 200).makes_candidates) == (True, False)
    weights = {"common": weight_of(201, 200), "rare": weight_of(2, 200)}
    assert candidate_tags({"common", "rare", "unknown"}, weights) == {"rare", "unknown"}


def test_the_score_is_the_weighted_share_of_what_is_common() -> None:
    weights = {"common": TagWeight(0.25, True), "rare": TagWeight(0.5, True)}
    assert relevance({"common", "rare"}, {"common"}, weights) == 0.3333
    assert relevance({"common", "unknown"}, {"common"}, weights) == 0.2
    assert relevance({"rare"}, {"rare"}, weights) == 1.0
    assert relevance({"rare"}, {"common"}, weights) == 0.0
    assert relevance(set(), set(), weights) == 0.0


@given(TAGS, TAGS, WEIGHTS)
def test_the_score_is_the_same_both_ways(a: frozenset[str], b: frozenset[str], weights: dict[str, TagWeight]) -> None:
    assert relevance(a, b, weights) == relevance(b, a, weights)
    assert 0.0 <= relevance(a, b, weights) <= 1.0


def test_who_shares_only_a_hot_tag_is_no_neighbour_but_the_hot_tag_counts_in_the_score() -> None:
    weights = {"hot": weight_of(5000, 200), "rare": weight_of(2, 200)}
    holders = [(B, {"hot"}), (C, {"hot", "rare"})]
    assert topical_neighbourhood(A, {"hot", "rare"}, holders, weights, 0.0) == [(C, 1.0)]
    assert topical_neighbourhood(A, {"hot"}, holders, weights, 0.0) == []


def test_the_entity_itself_is_no_neighbour() -> None:
    assert topical_neighbourhood(A, {"x"}, [(A, {"x"}), (B, {"x"})], {}, 0.0) == [(B, 1.0)]


def test_the_threshold_is_inclusive() -> None:
    holders = [(B, {"x", "y", "z"}), (C, {"x", "y", "z", "w"})]
    assert topical_neighbourhood(A, {"x"}, holders, {}, 0.3333) == [(B, 0.3333)]


def test_an_edge_names_the_weightiest_shared_tags() -> None:
    tags = frozenset({"a", "b", "c", "d", "e", "f", "rare"})
    weights = {tag: weight_of(9, 200) for tag in "abcdef"}
    holders = {B: tags}
    (edge,) = topical_edges(
        A, tags, ranked(topical_neighbourhood(A, tags, holders.items(), weights, 0.1)), holders, weights
    )
    evidence = {"rule": "tags", "shared": ["rare", "a", "b", "c", "d"]}
    assert edge.of_type(EdgeType.TOPICAL_RELEVANCE) == Edge(A, B, EdgeType.TOPICAL_RELEVANCE, 1.0, evidence)


@given(
    st.lists(TAGS, min_size=1, max_size=8), WEIGHTS, st.sampled_from([0.0, 0.3, 0.5]), st.randoms(use_true_random=False)
)
def test_any_set_that_holds_all_candidates_gives_the_same_neighbours_in_whatever_order(
    tag_sets: list[frozenset[str]], weights: dict[str, TagWeight], threshold: float, rng: random.Random
) -> None:
    entities = [(EntityRef("task", str(number)), tags) for number, tags in enumerate(tag_sets)]
    (source, tags), makers = entities[0], candidate_tags(tag_sets[0], weights)
    candidates = [(ref, theirs) for ref, theirs in entities if makers & theirs]
    rng.shuffle(candidates)
    assert topical_neighbourhood(source, tags, candidates, weights, threshold) == topical_neighbourhood(
        source, tags, entities, weights, threshold
    )


@given(st.lists(TAGS, max_size=8), WEIGHTS, st.sampled_from([0.0, 0.3, 0.5]))
def test_neighbourhood_is_mutual(
    tag_sets: list[frozenset[str]], weights: dict[str, TagWeight], threshold: float
) -> None:
    entities = [(EntityRef("task", str(number)), tags) for number, tags in enumerate(tag_sets)]
    scores = {
        (ref, other): score
        for ref, tags in entities
        for other, score in topical_neighbourhood(ref, tags, entities, weights, threshold)
    }
    assert {(b, a): score for (a, b), score in scores.items()} == scores
