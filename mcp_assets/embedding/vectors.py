"""Vectors: whether a vector is sound, its unit vector, and its vector check.

A vector check is a short digest of a vector. The payload of a point carries it, so that the census finds out from
Qdrant alone whether the point still has the vector that was written with it.
"""

import hashlib
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

VECTOR_CHECK_TOLERANCE = 1e-5
"""Two checks that differ by at most this are equal.

Qdrant scales vectors to length 1 itself and keeps them as float32, so that the check of a vector that is read back may
differ by rounding. The checks of two unrelated vectors differ by about 1/sqrt(dimension).
"""

_DECIMALS = 6
"""Of a vector check: float32 has no more."""


class VectorFault(StrEnum):
    """Why a vector cannot be stored."""

    WRONG_DIMENSION = "wrong_dimension"
    NOT_FINITE = "not_finite"
    ZERO = "zero_vector"


def fault_of(vector: NDArray[np.float32], dimension: int) -> VectorFault | None:
    """What is wrong with `vector` for a collection of `dimension` dimensions; None if it is sound."""
    if vector.shape != (dimension,):
        return VectorFault.WRONG_DIMENSION
    if not np.isfinite(vector).all():
        return VectorFault.NOT_FINITE
    if not vector.any():
        return VectorFault.ZERO
    return None


def validate(vectors: NDArray[np.float32], dimension: int) -> None:
    """Raises ValueError unless `vectors`, shape (n, dimension), are all finite and of a length above 0."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"vectors of shape {vectors.shape}: expected (n, {dimension})")
    faults = [f"row {row}: {fault}" for row, vector in enumerate(vectors) if (fault := fault_of(vector, dimension))]
    if faults:
        shown = ", ".join(faults[:5]) + (", …" if len(faults) > 5 else "")
        raise ValueError(f"{len(faults)} of {len(vectors)} vectors cannot be stored: {shown}")


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors`, shape (d,) or (n, d), scaled to length 1. Raises ValueError for a vector of length 0."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    if not norms.all():
        raise ValueError("a vector of length 0 has no unit vector")
    units: NDArray[np.float32] = (wide / norms).astype(np.float32)
    return units


def vector_check(unit_vector: NDArray[np.float32]) -> float:
    """Dot product of a unit vector, shape (d,), with a fixed vector of d times ±1/sqrt(d), at 6 decimals, in -1..1.

    The signs are the first d bits of sha256("mcp_assets vector_check 0"), sha256("mcp_assets vector_check 1"), …, the
    most significant bit of a byte first, 1 for plus: the same on every machine. Compare what was written with what
    is read back within VECTOR_CHECK_TOLERANCE, not for equality.
    """
    return float(vector_checks(unit_vector[np.newaxis])[0])


def vector_checks(unit_vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """`vector_check` of each row of `unit_vectors`, shape (n, d): shape (n,)."""
    signs = _signs(unit_vectors.shape[1])
    # Not a matrix product: its order of summation may depend on the number of rows, and with it the last decimal.
    products: NDArray[np.float64] = (unit_vectors.astype(np.float64) * signs).sum(axis=1) / np.sqrt(len(signs))
    return products.round(_DECIMALS) + 0.0  # no -0.0


@cache
def _signs(dimension: int) -> NDArray[np.float64]:
    digests = b"".join(
        hashlib.sha256(f"mcp_assets vector_check {block}".encode()).digest() for block in range(-(-dimension // 256))
    )
    bits = np.unpackbits(np.frombuffer(digests, dtype=np.uint8))[:dimension]
    signs = np.where(bits == 1, 1.0, -1.0)
    signs.flags.writeable = False
    return signs
