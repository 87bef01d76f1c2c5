"""Comparison: the points that Qdrant holds after a run, against the texts that stand in the source table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-4
"""By how much the cosine of a vector with itself may differ from 1: Qdrant scales vectors to length 1 in float32."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Vectors:
    """How many vectors are right, and what is wrong with the others."""

    right: int
    missing: int
    """Texts for which there is no point at all."""
    stale: int
    """Points of a text that has changed, whose vectors are not those of the text as it is."""
    orphan: int
    """Points of a text that is gone."""
    doubled: int
    """Second points of a text, with the right vector."""

    @property
    def wrong(self) -> dict[str, int]:
        """What is not right, by its name; empty if everything is."""
        return {name: count for name, count in asdict(self).items() if count and name != "right"}


def compare(expected: Mapping[str, Vector], held: Iterable[tuple[str, Vector]]) -> Vectors:
    """Both by the key of a text; `expected` are vectors of length 1."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    right: set[str] = set()
    for key, vector in held:
        wanted = expected.get(key)
        seen.add(key)
        if wanted is None:
            counts["orphan"] += 1
        elif not same_direction(wanted, vector):
            counts["stale"] += 1
        elif key in right:
            counts["doubled"] += 1
        else:
            right.add(key)
    missing = len(expected.keys() - seen)
    return Vectors(len(right), missing, counts["stale"], counts["orphan"], counts["doubled"])


def same_direction(wanted: Vector, vector: Vector) -> bool:
    """Whether the cosine of the two is 1, but for rounding; `wanted` has length 1."""
    length = float(np.linalg.norm(vector))
    return length > 0 and float(wanted @ vector) / length > 1 - ROUNDING


def key_of(payload: Mapping[str, Any]) -> str:
    """The key of the text that a point is of.

    LangChain puts the metadata of a document into a field of the payload, the others into the payload itself; ours
    numbers chunks from 0 under a key of its own.
    """
    fields = payload if "entity_id" in payload else payload.get("metadata", {})
    piece = fields["mcp_chunk"] + 1 if fields.get("mcp_kind") == "chunk" else fields.get("piece", 0)
    return f"{fields.get('entity_type')}:{fields.get('entity_id')}#{piece}"
