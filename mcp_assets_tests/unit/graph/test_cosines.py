"""Settled scores: whichever engine gave a cosine, the list that follows from it is that of the exact cosines."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.cosines import ENGINE_ERROR, doubtful_hits, doubtful_positions, settled_scores
from mcp_assets.graph.edges import rounded
from mcp_assets.graph.ranking import ranked
from mcp_assets.graph.semantic import certain_list, cut_off_of, neighbourhood, search_threshold
from mcp_assets_tests.unit.graph.samples import A

NEAR_BORDERS = st.builds(
    lambda step, offset: step / 20_000 + offset,
    st.integers(13_990, 14_010),
    st.sampled_from([0.0, 1e-9, -1e-9, 1e-7, -1e-7, 1.9e-6, -1.9e-6, 2.1e-6, -2.1e-6, 2e-5]),
)
"""Cosines about 0.7, most of them at a border between two scores or near one, and many the same."""

ERRORS = st.sampled_from([0.0, ENGINE_ERROR * 0.99, -ENGINE_ERROR * 0.99, 1e-8, -1e-8])

POINTS = "abcdefghijklmn"


@given(NEAR_BORDERS, ERRORS)
def test_a_cosine_that_is_not_doubtful_has_one_score_whichever_engine_gave_it(exact: float, error: float) -> None:
    assert doubtful_positions([exact + error]) or rounded(exact + error) == rounded(exact)


def test_of_a_hundred_scores_only_those_near_a_border_are_doubtful() -> None:
    cosines = [0.7000005 + number * 1e-6 for number in range(100)]
    assert doubtful_positions(cosines) == [48, 49, 50, 51]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 40)),
        elements=st.floats(-1, 1, width=32, allow_subnormal=False),
    ),
    st.randoms(use_true_random=False),
)
def test_a_settled_score_is_that_of_the_exact_sum_in_whatever_order(vectors: np.ndarray, random: object) -> None:
    one, other = vectors
    exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(one, other, strict=True))
    order = list(range(len(one)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for ones, others in ((one, other), (other, one), (one[order], other[order])):
        assert settled_scores(ones[None], others[None]) == [rounded(float(exact))]


def test_a_cosine_exactly_on_a_border_has_one_score_in_every_order_of_its_numbers() -> None:
    # 31/32 = 0.96875 is halfway between two scores. In most orders, a plain sum of these numbers misses it.
    numbers = np.array([0.1] * 64, dtype=np.float32)
    rest = np.float64(31 / 32) - np.sum(numbers.astype(np.float64) ** 2)
    one = np.append(numbers, [1.0, 1.0, 1.0]).astype(np.float32)
    parts = [np.float32(rest)]
    parts.append(np.float32(rest - np.float64(parts[0])))
    parts.append(np.float32(rest - np.float64(parts[0]) - np.float64(parts[1])))
    other = np.append(numbers, parts).astype(np.float32)
    expected = settled_scores(one[None], other[None])
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(one))
        assert settled_scores(one[order][None], other[order][None]) == expected


def test_a_number_that_is_not_finite_gives_no_score() -> None:
    ones = np.array([[np.nan, 1], [1, 0]], dtype=np.float32)
    assert settled_scores(ones, ones) == [pytest.approx(float("nan"), nan_ok=True), 1.0]


@given(st.lists(NEAR_BORDERS, max_size=len(POINTS)), st.data(), st.integers(1, 4))
def test_two_engines_give_one_list_once_their_doubtful_hits_are_settled(
    cosines: list[float], data: st.DataObject, asked: int
) -> None:
    """`asked`: hits that the search asks for; it is doubled as the linker does, until three neighbours are certain."""
    exact = dict(zip(POINTS, cosines, strict=False))
    refs = {point: EntityRef("task", point) for point in POINTS}
    threshold, kept, wanted = 0.7, 4, 3
    scores = {point: rounded(cosine) for point, cosine in exact.items()}
    truth = ranked(neighbourhood(A, ((refs[point], score) for point, score in scores.items()), threshold), 99)
    errors = data.draw(st.lists(ERRORS, min_size=len(exact), max_size=len(exact)))
    engine = {point: exact[point] + error for point, error in zip(exact, errors, strict=True)}
    order = sorted(engine, key=lambda point: -engine[point])
    while True:
        answer = [(point, engine[point]) for point in order if engine[point] >= search_threshold(threshold)][:asked]
        cut_off = cut_off_of(answer, asked, threshold)
        for _, position in list(doubtful_hits([answer], cut_off, threshold, kept + 1)):
            point = answer[position][0]
            answer[position] = (point, scores[point])
        assert cut_off_of(answer, asked, threshold) == cut_off
        near = neighbourhood(A, ((refs[point], cosine) for point, cosine in answer), threshold)[: kept + 1]
        certain = certain_list(near, [cut_off], kept)
        if certain.cut_off is None or len(certain.neighbours) >= wanted:
            break
        asked *= 2
    assert certain.neighbours[:wanted] == truth[:wanted]
    assert certain.neighbours == truth[: len(certain.neighbours)]
    outside = truth[len(certain.neighbours) :]
    assert not outside if certain.cut_off is None else all(one.score <= certain.cut_off for one in outside)
