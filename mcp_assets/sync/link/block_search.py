"""Block search: the nearest of very many vectors to some hundred others, by matrix products. Pure, and exact but for
the last digits of a float32."""

import numpy as np
from numpy.typing import NDArray

VECTORS_A_BLOCK = 8_192
"""Vectors that are compared at once: with 500 queries their cosines take 16 MB, which is the memory of a search beside
its result. Measured on one core with 256 dimensions: larger blocks are no faster."""


def nearest_in_blocks(
    queries: NDArray[np.float32],
    own: NDArray[np.intp],
    vectors: NDArray[np.float32],
    *,
    limit: int,
    floor: float,
) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """For each query, its `limit` nearest rows of `vectors`, best first, and their cosines.

    queries: (n, dimension). vectors: (m, dimension); a row of NaN is found by no query. All have length 1. own: (n,),
    the row of `vectors` that is the query itself, and is left out; -1: none. floor: only cosines above it count.
    """
    count = len(queries)
    of_query = np.empty(0, dtype=np.intp)
    rows = np.empty(0, dtype=np.intp)
    cosines = np.empty(0, dtype=np.float32)
    # A query that has `limit` hits takes none that is not nearer than the last of them.
    lowest = np.full(count, floor, dtype=np.float32)
    every = np.arange(count)
    for start in range(0, len(vectors), VECTORS_A_BLOCK):
        block = vectors[start : start + VECTORS_A_BLOCK]
        found = queries @ block.T
        inside = (own >= start) & (own < start + len(block))
        found[every[inside], own[inside] - start] = -np.inf
        places = np.flatnonzero(found > lowest[:, None])
        if not len(places):
            continue
        new_queries, new_rows = np.divmod(places, len(block))
        of_query = np.concatenate((of_query, new_queries))
        rows = np.concatenate((rows, new_rows + start))
        cosines = np.concatenate((cosines, found.ravel()[places]))
        of_query, rows, cosines, lowest = _best(of_query, rows, cosines, lowest, limit)
    ends = np.searchsorted(of_query, every, side="right")
    starts = np.concatenate(([0], ends[:-1]))
    return [(rows[start:end], cosines[start:end]) for start, end in zip(starts, ends, strict=True)]


def _best(
    of_query: NDArray[np.intp],
    rows: NDArray[np.intp],
    cosines: NDArray[np.float32],
    lowest: NDArray[np.float32],
    limit: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """The `limit` best hits of each query, in the order of queries, best first, and the new `lowest`."""
    order = np.lexsort((-cosines, of_query))
    of_query, rows, cosines = of_query[order], rows[order], cosines[order]
    first = np.searchsorted(of_query, np.arange(len(lowest)))
    place = np.arange(len(of_query)) - first[of_query]
    last = place == limit - 1
    lowest[of_query[last]] = cosines[last]
    kept = place < limit
    return of_query[kept], rows[kept], cosines[kept], lowest
