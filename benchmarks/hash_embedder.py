"""Hash embedder: vectors that are functions of the texts and cost next to nothing, in place of a model.

What the benchmarks measure is then the platform and its stores, and the same texts always get the same vectors.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Event

import numpy as np

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Refusal, Vector, only_vector

_CLUSTER = re.compile(r"@(\d+)/(\d+)")

_NOISE = 0.8
"""Length of what a member adds to the centre of its cluster, of length 1: two members then have a cosine of about 0.6,
and two entities of different clusters one of about 0."""


class HashEmbedder:
    """An `Embedder` whose vectors are `vectors_of(texts)`, each of shape (dimension,).

    `vectors_of` raises ValueError if it refuses one of the texts, and with it the request, as providers do. A refused
    request is halved until the text at fault stands alone.
    """

    concurrency = 2

    def __init__(
        self, dimension: int, vectors_of: Callable[[Sequence[str]], list[Vector]], *, threshold: float = 0.7
    ) -> None:
        self._vectors_of = vectors_of
        self.profile = ModelProfile("hash", dimension, "Cosine", threshold, 1_000_000, 4096, 1_000_000_000)

    def embed(
        self,
        texts: Sequence[str],
        *,
        stopping: Event | None = None,  # noqa: ARG002
        background: bool = False,  # noqa: ARG002
    ) -> EmbeddingResult:
        return EmbeddingResult(self._outcomes(texts), None)

    def embed_query(self, text: str) -> Vector:
        return only_vector(self.embed([text]))

    def stop(self) -> None:
        """There is no request to stop."""

    def close(self) -> None:
        """There is nothing to close."""

    def _outcomes(self, texts: Sequence[str]) -> list[EmbeddingOutcome]:
        try:
            return [EmbeddingOutcome(vector, None) for vector in self._vectors_of(texts)]
        except ValueError as refused:
            if len(texts) == 1:
                return [EmbeddingOutcome(None, Refusal("input_refused", str(refused)))]
        half = len(texts) // 2
        return [*self._outcomes(texts[:half]), *self._outcomes(texts[half:])]


def scattered(dimension: int) -> HashEmbedder:
    """No two texts are near each other."""
    return HashEmbedder(dimension, lambda texts: [hashed(text, dimension) for text in texts])


def clustered(dimension: int) -> HashEmbedder:
    """A text says `@7/3` if it is the third member of the seventh cluster, and is near its other members."""
    return HashEmbedder(dimension, lambda texts: [_in_cluster(text, dimension) for text in texts], threshold=0.5)


def hashed(text: str, dimension: int) -> Vector:
    """A vector of length 1 by a hash of the text."""
    digest = hashlib.shake_256(text.encode()).digest(dimension)
    vector: Vector = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - np.float32(127.5)
    return vector / np.float32(np.linalg.norm(vector))


def _in_cluster(text: str, dimension: int) -> Vector:
    found = _CLUSTER.search(text)
    if found is None:
        raise ValueError(f"the text names no cluster: {text[:80]!r}")
    # Of the whole text: a text that changes moves within its cluster.
    vector: Vector = _centre(found[1], dimension) + hashed(text, dimension) * np.float32(_NOISE)
    return vector / np.float32(np.linalg.norm(vector))


@lru_cache(maxsize=20_000)
def _centre(name: str, dimension: int) -> Vector:
    return hashed(f"centre {name}", dimension)
