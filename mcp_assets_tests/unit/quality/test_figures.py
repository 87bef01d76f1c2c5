"""Figures of ranks and of pairs, and the sample of questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.quality import (
    PairFigures,
    Question,
    SearchFigures,
    pair_figures,
    rank_of,
    recall,
    sampled,
    search_figures,
)

A, B, C, D = (EntityRef("task", name) for name in "abcd")


def test_the_rank_is_that_of_the_first_answer() -> None:
    assert rank_of([A, B, C], {C, B}) == 2
    assert rank_of([A, B], {D}) is None


def test_search_figures_count_first_results_first_fives_and_reciprocal_ranks() -> None:
    assert search_figures([1, 2, None, 10]) == SearchFigures(4, 0.25, 0.5, 0.4)
    assert search_figures([]) == SearchFigures(0, 0.0, 0.0, 0.0)


@given(st.lists(st.none() | st.integers(1, 20)))
def test_a_hit_as_the_first_result_counts_in_each_figure(ranks: list[int | None]) -> None:
    found = search_figures(ranks)
    assert 0 <= found.hit_1 <= found.mrr + 1e-4 <= 1 + 1e-4
    assert found.hit_1 <= found.hit_5 <= 1


def test_recall_has_no_direction() -> None:
    assert recall([(A, B), (C, D)], [(B, A), (A, C)]) == 0.5
    assert recall([], [(A, B)]) == 0.0


def test_pair_figures_compare_edges_with_all_partners_and_not_with_the_sample_alone() -> None:
    edges = {A: {B, C}, B: {D}}
    partners = {A: {B}, B: {A, D}}
    assert pair_figures([(B, A), (C, D)], edges, partners) == PairFigures(recall=0.5, precision=0.6667, edges=3)
    assert pair_figures([], {}, {}) == PairFigures(0.0, 0.0, 0)


def test_a_sample_is_the_same_in_any_order_and_a_question_more_displaces_one_at_most() -> None:
    questions = [Question("golden", f"question {number}", frozenset({A})) for number in range(40)]
    before = sampled(questions, 10)
    assert before == sampled(questions[::-1], 10)
    after = sampled([*questions, Question("golden", "one more", frozenset({A}))], 10)
    assert len(set(before) - set(after)) <= 1


@pytest.mark.parametrize("limit", [0, 3, 100])
def test_a_sample_has_as_many_questions_as_there_are_up_to_its_limit(limit: int) -> None:
    questions = [Question("golden", str(number), frozenset({A})) for number in range(5)]
    assert len(sampled(questions, limit)) == min(limit, 5)
