"""Vectors: what is refused, unit vectors, and a vector_check that is the same on every machine."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_assets.embedding.vectors import (
    VECTOR_CHECK_TOLERANCE,
    VectorFault,
    fault_of,
    unit,
    validate,
    vector_check,
    vector_checks,
)


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[np.float32]:
    rows, dimension, seed = draw(st.integers(1, 6)), draw(st.integers(1, 600)), draw(st.integers(0, 2**32))
    scale = 10.0 ** draw(st.integers(-6, 6))
    return (np.random.default_rng(seed).standard_normal((rows, dimension)) * scale).astype(np.float32)


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        (row(1, 2, 3), None),
        (row(1, 2), VectorFault.WRONG_DIMENSION),
        (row(), VectorFault.WRONG_DIMENSION),
        (np.ones((1, 3), dtype=np.float32), VectorFault.WRONG_DIMENSION),
        (row(1, math.nan, 3), VectorFault.NOT_FINITE),
        (row(1, math.inf, 3), VectorFault.NOT_FINITE),
        (row(0, 0, 0), VectorFault.ZERO),
        (row(0, 1e-45, 0), None),
    ],
)
def test_a_vector_is_sound_only_with_its_dimension_finite_and_not_zero(
    vector: NDArray[np.float32], fault: VectorFault | None
) -> None:
    assert fault_of(vector, 3) == fault


def test_validation_names_the_rows_at_fault() -> None:
    vectors = np.stack([row(1, 0), row(0, 0), row(math.nan, 1)])
    with pytest.raises(ValueError, match=r"2 of 3 vectors .* row 1: zero_vector, row 2: not_finite"):
        validate(vectors, 2)
    with pytest.raises(ValueError, match=r"shape \(3, 2\): expected \(n, 3\)"):
        validate(vectors, 3)
    validate(vectors[:1], 2)


@given(matrices())
def test_unit_vectors_have_length_1_and_the_same_direction(vectors: NDArray[np.float32]) -> None:
    units = unit(vectors)
    assert units.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(units.astype(np.float64), axis=1), 1, atol=1e-6)
    cosines = (units.astype(np.float64) * vectors).sum(axis=1) / np.linalg.norm(vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_a_vector_of_length_0_has_no_unit_vector() -> None:
    with pytest.raises(ValueError, match="length 0"):
        unit(np.stack([row(1, 0), row(0, 0)]))


def test_very_small_and_very_large_vectors_have_unit_vectors() -> None:
    assert unit(row(3e38, 0)).tolist() == [1, 0]
    assert unit(row(0, 1e-40)).tolist() == [0, 1]


def test_vector_check_is_what_its_documentation_says() -> None:
    dimension = 300
    bits = "".join(
        f"{byte:08b}"
        for block in (0, 1)
        for byte in hashlib.sha256(f"mcp_assets vector_check {block}".encode()).digest()
    )
    vector = unit(np.arange(1, dimension + 1, dtype=np.float32))
    by_hand = sum(
        float(value) * (1 if bit == "1" else -1) for value, bit in zip(vector, bits, strict=False)
    ) / math.sqrt(dimension)
    assert vector_check(vector) == round(by_hand, 6)


def test_vector_check_does_not_change_between_versions() -> None:
    assert vector_check(unit(np.arange(1, 257, dtype=np.float32))) == 0.094919
    assert vector_check(unit(np.cos(np.arange(1536)).astype(np.float32))) == -0.044704


@given(matrices())
def test_the_batch_form_gives_each_row_its_own_vector_check(vectors: NDArray[np.float32]) -> None:
    units = unit(vectors)
    assert vector_checks(units).tolist() == [vector_check(one) for one in units]


@given(matrices())
def test_scaling_a_vector_again_keeps_its_vector_check_within_the_tolerance(vectors: NDArray[np.float32]) -> None:
    units = unit(vectors)
    assert np.all(
        np.abs(vector_checks(unit(units * np.float32(0.37))) - vector_checks(units)) <= VECTOR_CHECK_TOLERANCE
    )


def test_unrelated_vectors_differ_in_their_vector_check() -> None:
    units = unit(np.random.default_rng(7).standard_normal((500, 256)).astype(np.float32))
    assert len(set(vector_checks(units).tolist())) == 500
