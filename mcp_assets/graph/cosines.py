"""Cosines: where the last digits of a search engine's cosine decide a rounded score, the score is computed exactly.

Engines add the products of two vectors in different orders, in single precision, so that their cosines differ in the
last digits. A cosine far from a rounding border gives the same rounded score whichever engine it comes from. One near a
border is *doubtful*: its score is *settled*, which means computed again from the two stored vectors. So scores, and the
edges that follow from them, depend on the stored vectors alone.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mcp_assets.graph.edges import STRENGTH_DECIMALS, rounded

ENGINE_ERROR = 2e-6
"""The most by which an engine's cosine may differ from the exact one. Of 216,957 strengths, 55 differed between two
engines, so that the usual difference is a hundredth of this."""

_STEPS = 10.0**STRENGTH_DECIMALS

_DOUBLE_ERROR = 1e-12
"""The most by which a cosine in double precision may differ from the exact one: generous for thousands of products."""


def doubtful_positions(cosines: Iterable[float]) -> list[int]:
    """Where in `cosines`, as an engine gave them, are those whose exact cosine may have another rounded score."""
    return [
        position for position, cosine in enumerate(cosines) if abs(cosine * _STEPS % 1.0 - 0.5) <= ENGINE_ERROR * _STEPS
    ]


def highest_score(cosine: float) -> float:
    """The highest rounded score that a pair may have to which an engine gives `cosine`."""
    return rounded(cosine + ENGINE_ERROR)


def lowest_that_ties(cosine: float) -> float:
    """The lowest cosine that an engine may give to a pair whose score is as high as that of a pair with `cosine`."""
    return cosine - 1 / _STEPS - 2 * ENGINE_ERROR


def settled_scores(ones: NDArray[np.float32], others: NDArray[np.float32]) -> list[float]:
    """The rounded score of each pair of stored vectors of length 1: row n of `ones` with row n of `others`.

    It is that of the exact sum of the products, whatever the order of the two and of their numbers. NaN if a vector
    holds a number that is not finite.
    """
    cosines: list[float] = np.einsum("ij,ij->i", ones, others, dtype=np.float64).tolist()
    for row, cosine in enumerate(cosines):
        if not math.isfinite(cosine):
            cosines[row] = math.nan
            continue
        if abs(cosine * _STEPS % 1.0 - 0.5) <= _DOUBLE_ERROR * _STEPS:
            # The product of two float32 has no rounding error in a float64, and fsum has none but its last.
            cosine = math.fsum((ones[row].astype(np.float64) * others[row].astype(np.float64)).tolist())
        cosines[row] = rounded(cosine)
    return cosines


def doubtful_hits(
    answers: Sequence[Sequence[tuple[object, float]]], cut_off: float | None, threshold: float, limit: int
) -> Iterator[tuple[int, int]]:
    """The hits that have to be settled before the `limit` best of some answers are known: (answer, position in it).

    `answers`: hits of one entity with the cosines that an engine gave. `cut_off`: a score that only hits above it have
    a place for; None: there is none.
    """
    doubtful = [
        (number, position, answer[position][1])
        for number, answer in enumerate(answers)
        for position in doubtful_positions([cosine for _, cosine in answer])
        if (score := highest_score(answer[position][1])) >= threshold and (cut_off is None or score > cut_off)
    ]
    if not doubtful:
        return
    cosines = sorted((cosine for answer in answers for _, cosine in answer), reverse=True)
    lowest = lowest_that_ties(cosines[limit - 1]) if len(cosines) >= limit else -math.inf
    yield from ((number, position) for number, position, cosine in doubtful if cosine >= lowest)
