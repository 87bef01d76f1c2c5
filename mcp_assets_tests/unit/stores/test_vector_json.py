"""Vector JSON: the numbers are those of rounding to 8 decimals, whatever their size."""

import json

import numpy as np
import pytest

from mcp_assets.stores.vector_json import vectors_as_json

UNIT = np.random.default_rng(7).normal(size=(50, 96)).astype(np.float32)
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
EDGES = np.array([[1, -1, 0, -0.0, 1e-9, -1e-9, 5e-9, 0.99999999, 0.1, -0.00001234, 9.5, -9.5]], dtype=np.float32)
LARGE = np.array([[12.5, -300.0, 0.25]], dtype=np.float32)


@pytest.mark.parametrize("vectors", [UNIT, EDGES, LARGE], ids=["unit vectors", "edges", "large"])
def test_components_are_rounded_to_eight_decimals(vectors: np.ndarray) -> None:
    written = [json.loads(vector) for vector in vectors_as_json(vectors)]
    assert written == vectors.astype(np.float64).round(8).tolist()


def test_components_that_are_no_numbers_are_null() -> None:
    vectors = np.array([[0.5, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert [json.loads(vector) for vector in vectors_as_json(vectors)] == [[0.5, None, None, None]]
