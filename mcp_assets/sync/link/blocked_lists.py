"""Blocked lists: all vectors are read from Qdrant once, and the nearest of each entity are found by matrix products.

Where very many lists are made, this takes a fraction of the time in which Qdrant answers as many questions. It finds
the same hits, but for the last digits of their cosines, which `graph.cosines` settles.

The vectors are in temporary files that are mapped into memory, so that the memory of the process does not grow with
them. The files have no name, so that nothing is left of them when the process ends, however that happens.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from threading import Event
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.stores.qdrant_search import QueryPoint
from mcp_assets.sync.link.blas_threads import one_blas_thread
from mcp_assets.sync.link.block_search import nearest_in_blocks
from mcp_assets.sync.link.settling import Hits
from mcp_assets.tuning import LinkTuning

_ROOM_FOR_NEW_POINTS = 2_000
"""Points that a file has room for beyond those that it was made with: 2 MB of 256 dimensions. The room is written, so
that a full disk is an error of that write, and not of a page of memory, which would end the process."""


class ListCosts(NamedTuple):
    """Estimates of the seconds in which lists are found, either way."""

    asking_s: float
    blocks_s: float
    asking_is_exact: bool

    def blocks_are_better(self, exact_for_s: float) -> bool:
        """They cost less, or up to `exact_for_s` where they are exact and the answers of Qdrant are not."""
        return self.blocks_s < (self.asking_s if self.asking_is_exact else max(self.asking_s, exact_for_s))


def list_costs(lists: int, points: Collection[int], dimension: int, tuning: LinkTuning, exact_up_to: int) -> ListCosts:
    """The costs of `lists` lists. `points`: of each collection that is searched; beyond `exact_up_to` by its index."""
    # A search by Qdrant's index compares far fewer vectors than this, and costs more a vector.
    asked = sum(min(count, exact_up_to) for count in points) * dimension
    compared = sum(points) * dimension
    asking = lists * (len(points) * tuning.ask_query_s + asked * tuning.ask_number_s)
    blocks = (
        tuning.block_start_s
        + compared * tuning.read_number_s
        + lists * (tuning.block_query_s + compared * tuning.block_number_s)
    )
    return ListCosts(asking, blocks, max(points, default=0) <= exact_up_to)


class _Vectors:
    """The vectors of the entity points of one collection."""

    def __init__(self, pages: Iterable[Mapping[str, NDArray[np.float32]]], dimension: int) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="mcp-assets-vectors")  # noqa: SIM115  (closed by `close`)
        self._rows: dict[str, int] = {}
        self._points: list[str] = []
        try:
            for page in pages:
                for point in page:
                    self._rows[point] = len(self._points)
                    self._points.append(point)
                self._file.write(b"".join(vector.tobytes() for vector in page.values()))
            self._file.write(np.full((_ROOM_FOR_NEW_POINTS, dimension), np.nan, dtype=np.float32).tobytes())
            self._file.flush()
            shape = (len(self._points) + _ROOM_FOR_NEW_POINTS, dimension)
            self._all = np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._points)

    @property
    def _used(self) -> NDArray[np.float32]:
        return np.asarray(self._all)[: len(self._points)]

    def row(self, point: str) -> int:
        """-1 if the collection does not hold it."""
        return self._rows.get(point, -1)

    def at(self, rows: Sequence[int]) -> NDArray[np.float32]:
        return self._used[rows]

    def replace(self, points: Collection[str], vectors: Mapping[str, NDArray[np.float32]]) -> bool:
        """Take over the vectors that `points` have now; none of one that is gone. False: there is no room for all."""
        for point in points:
            vector = vectors.get(point)
            row = self._rows.get(point)
            if row is None:
                if vector is None:
                    continue
                if len(self._points) == len(self._all):
                    return False
                row = self._rows[point] = len(self._points)
                self._all[row] = vector
                self._points.append(point)
            else:
                self._all[row] = np.nan if vector is None else vector
        return True

    def nearest(self, queries: NDArray[np.float32], own: NDArray[np.intp], limit: int, floor: float) -> Iterator[Hits]:
        for rows, cosines in nearest_in_blocks(queries, own, self._used, limit=limit, floor=floor):
            yield [(self._points[row], cosine) for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)]


class BlockedLists:
    """The vectors of some collections as they were when they were read, searched without Qdrant.

    Searches may run in several threads. `refresh` may run beside searches whose answers are not used.
    """

    def __init__(self, qdrant: Qdrant, collections: Iterable[str], dimension: int, stopping: Event) -> None:
        """Reads all vectors.

        Raises:
            StoreUnavailable, StoreRefused: Qdrant gave not all of them.
            CancelledError: `stopping` was set meanwhile.
            OSError: the temporary folder cannot hold them.
        """
        self._qdrant = qdrant
        self._dimension = dimension
        self._vectors: dict[str, _Vectors] = {}
        # Searches run in several threads already.
        self._until_closed = ExitStack()
        self._until_closed.enter_context(one_blas_thread())

        def pages(collection: str) -> Iterator[Mapping[str, NDArray[np.float32]]]:
            for page in qdrant.scroll_vectors(collection, dimension):
                if stopping.is_set():
                    raise CancelledError
                yield page

        try:
            for collection in collections:
                self._vectors[collection] = _Vectors(pages(collection), dimension)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the files. A search that still runs keeps what it reads."""
        self._until_closed.close()
        for vectors in self._vectors.values():
            vectors.close()

    def refresh(self, points: Mapping[str, Collection[str]]) -> bool:
        """Read again the vectors of `points`, by collection; False if there is no room for the new ones."""
        return all(
            self._vectors[collection].replace(some, self._qdrant.vectors(collection, list(some)))
            for collection, some in points.items()
        )

    def nearest(self, collection: str, asking: Sequence[QueryPoint], *, limit: int, floor: float) -> list[Hits]:
        """As `Qdrant.nearest`; no hits for a point that is not in its collection."""
        searched = self._vectors[collection]
        rows = [self._vectors[one.collection].row(one.point) for one in asking]
        there = [number for number, row in enumerate(rows) if row >= 0]
        queries = np.empty((len(there), self._dimension), dtype=np.float32)
        for place, number in enumerate(there):
            queries[place] = self._vectors[asking[number].collection].at([rows[number]])[0]
        own = np.array(
            [rows[number] if asking[number].collection == collection else -1 for number in there], dtype=np.intp
        )
        found: list[Hits] = [[] for _ in asking]
        for number, hits in zip(there, searched.nearest(queries, own, limit, floor), strict=True):
            found[number] = hits
        return found

    def vectors(self, collection: str, points: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """As `Qdrant.vectors`."""
        held = self._vectors[collection]
        there = {point: row for point in points if (row := held.row(point)) >= 0}
        return dict(zip(there, held.at(list(there.values())), strict=True)) if there else {}
