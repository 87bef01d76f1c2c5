"""Edges: rounding, what is refused, which statement of an edge stands."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.graph.edges import Edge, EdgeType, rounded, strongest
from mcp_assets_tests.unit.graph.samples import A, B, C

SEQUENTIAL = EdgeType.SEQUENTIAL_DEPENDENCY


def as_real(number: float) -> float:
    """What a column of type `real` gives back."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def test_every_strength_survives_a_real_column() -> None:
    strengths = [number / 10_000 for number in range(10_001)]
    assert [rounded(as_real(strength)) for strength in strengths] == strengths


@pytest.mark.parametrize(
    ("score", "expected"), [(0.70004999, 0.7), (0.70005001, 0.7001), (1.0000001, 1.0), (-0.00001, 0.0), (1, 1.0)]
)
def test_scores_are_rounded_to_four_decimals(score: float, expected: float) -> None:
    assert rounded(score) == expected
    assert str(rounded(score)) == str(expected)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        rounded(score)


def test_a_strength_is_rounded_as_the_edge_is_made() -> None:
    assert Edge(A, B, SEQUENTIAL, 0.123456).strength == 0.1235


def test_an_edge_to_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="task:A cannot have an edge"):
        Edge(A, A, SEQUENTIAL, 1.0)


@pytest.mark.parametrize("strength", [-0.2, 1.01])
def test_a_strength_outside_0_to_1_is_refused_by_name(strength: float) -> None:
    with pytest.raises(ValueError, match="task:A -> task:B"):
        Edge(A, B, SEQUENTIAL, strength)


def test_of_several_statements_the_strongest_stands_with_its_evidence() -> None:
    weak = Edge(A, B, SEQUENTIAL, 0.7, {"rule": "text:after"})
    strong = Edge(A, B, SEQUENTIAL, 1.0, {"rule": "metadata:depends_on"})
    assert strongest([weak, strong]) == {strong.key: strong}


def test_direction_and_type_make_different_edges() -> None:
    edges = [
        Edge(A, B, SEQUENTIAL, 1.0),
        Edge(B, A, SEQUENTIAL, 1.0),
        Edge(A, B, EdgeType.CROSS_REFERENCE, 1.0),
        Edge(A, C, SEQUENTIAL, 1.0),
    ]
    assert list(strongest(edges).values()) == edges


@given(st.lists(st.tuples(st.sampled_from([0.7, 0.9]), st.sampled_from(["x", "y"]), st.integers(0, 2))), st.randoms())
def test_which_statement_stands_does_not_depend_on_their_order(
    statements: list[tuple[float, str, int]], rng: random.Random
) -> None:
    edges = [Edge(A, B, SEQUENTIAL, strength, {"rule": rule, "n": n}) for strength, rule, n in statements]
    shuffled = edges.copy()
    rng.shuffle(shuffled)
    assert strongest(edges) == strongest(shuffled)
