"""Paid vectors: embeddings that the provider has made are not lost, even if they cannot be written at once.

In memory, for one indexer: batches that need the same text at the same time share one embedding; and if only the
metadata of an entity change while its text is embedded, the next plan finds the vector. In PostgreSQL
(`unwritten_vectors`): vectors that could not be written because a store was away, for a later run.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.embedding.vectors import vector_checks
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

_RECENT_BYTES = 32 << 20
"""Vectors that an indexer remembers: some 5,000 texts at 1,536 dimensions, more than are in flight."""

_STORED = np.dtype("<f4")
"""How PostgreSQL keeps vectors: float32, little-endian on every machine."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Unit vectors of an entity's own text and of its chunks, shape (1 + chunks, dimension), with their checks."""

    rows: NDArray[np.float32]
    checks: Sequence[float]


Outcome = Vectors | Refusal
VectorKey = tuple[str, str]
"""Model key and text hash."""


class RecentVectors:
    """Outcomes of the texts that one indexer embeds now, or embedded a short while ago. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[VectorKey, Future[Outcome]] = OrderedDict()
        self._bytes = 0

    def claim(self, key: VectorKey) -> "Future[Outcome] | None":
        """The outcome for `key`, which may be on its way. None: the caller has to find it, and to `give` or `drop` it.

        A caller gives all that it has claimed before it waits for an outcome of another caller.
        """
        with self._lock:
            known = self._outcomes.get(key)
            if known is None:
                self._outcomes[key] = Future()
            else:
                self._outcomes.move_to_end(key)
            return known

    def give(self, key: VectorKey, outcome: Outcome) -> None:
        """Set the outcome of a claimed key. A refusal reaches the callers that wait, and is not remembered."""
        with self._lock:
            claimed = self._outcomes[key]
            if isinstance(outcome, Vectors):
                self._bytes += outcome.rows.nbytes
                self._forget_oldest()
            else:
                del self._outcomes[key]
        claimed.set_result(outcome)

    def drop(self, keys: Iterable[VectorKey], error: BaseException) -> None:
        """Give up claimed keys: the callers that wait for them get `error`."""
        for key in keys:
            with self._lock:
                claimed = self._outcomes.pop(key)
            claimed.set_exception(error)

    def _forget_oldest(self) -> None:
        forgotten = []
        for key, future in self._outcomes.items():
            if self._bytes <= _RECENT_BYTES:
                break
            if future.done():
                forgotten.append(key)
                outcome = future.result()
                self._bytes -= outcome.rows.nbytes if isinstance(outcome, Vectors) else 0
        for key in forgotten:
            del self._outcomes[key]


def keep(platform: Platform, model: str, vectors: Mapping[str, Vectors]) -> None:
    """Keep vectors, by text hash, that cannot be written now: the newest KEPT_VECTORS_MB, for a day.

    Raises:
        StoreUnavailable: PostgreSQL is away, too; nothing is kept.
    """
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("keep_vectors"),
            {
                "model": model,
                "text_hash": list(vectors),
                "vectors": [one.rows.astype(_STORED).tobytes() for one in vectors.values()],
            },
        )
        connection.execute(
            platform.postgres.query("bound_kept_vectors"), {"most_bytes": platform.settings.kept_vectors_mb << 20}
        )


def kept(
    platform: Platform, connection: Connection, model: str, dimension: int, text_hashes: Sequence[str]
) -> dict[str, Vectors]:
    """The vectors that are kept, of `text_hashes`."""
    rows = connection.execute(
        platform.postgres.query("kept_vectors"), {"model": model, "text_hashes": list(text_hashes)}
    )
    found = {}
    for text_hash, stored in rows:
        vectors = np.frombuffer(stored, dtype=_STORED).astype(np.float32).reshape(-1, dimension)
        found[text_hash] = Vectors(vectors, vector_checks(vectors).tolist())
    return found


def forget(platform: Platform, connection: Connection, model: str, text_hashes: Sequence[str]) -> None:
    """Delete vectors that have been written."""
    connection.execute(
        platform.postgres.query("forget_kept_vectors"), {"model": model, "text_hashes": list(text_hashes)}
    )
