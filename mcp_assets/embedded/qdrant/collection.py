"""One collection: one shard of the engine, its writes in order, its reads in slices.

The engine holds the GIL for a whole call (so calls never overlap), and is safe to call from several threads. What this
module adds: one writer at a time, slices small enough that other requests are answered in between, and its errors in
the words of the server.

Durability: an update is in the shard's write-ahead log when the engine returns, and the log survives kill -9.
`upkeep` flushes the segments, which truncates the log.

Memory: the log is mapped into memory in files of 32 MB. So each collection that is written to adds up to 32 MB, and at
times more, to the resident size (RssFile), however little it holds; the kernel takes these pages back when memory is
short. Large answers leave some 50 MB in the allocators of Python and of the threads (RssAnon).
"""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_schemas, strict
from mcp_assets.embedded.qdrant.convert_points import PointId
from mcp_assets.embedded.qdrant.errors import from_engine, no_collection
from mcp_assets.embedded.qdrant.upkeep import indexing_threshold_kb

# An engine call is to hold the GIL for about 50 ms at most, and exact search costs about 1.3 us a point.
_QUERIES_PER_CALL = 50
_POINTS_SEARCHED_PER_CALL = 1_500_000
_RECORDS_PER_CALL = 2_000


class StoredCollection:
    """An open collection; `config.params.vectors` is one unnamed dense vector."""

    def __init__(self, name: str, config: models.CollectionConfig, shard: edge.EdgeShard) -> None:
        vectors = config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise TypeError(f"collection {name} has no single unnamed vector: {vectors}")
        self.name = name
        self.config = config
        self.dimension: int = vectors.size
        self.unflushed = False
        self.unoptimized = True
        self._shard = shard
        self._closed = False
        self._writing = threading.Lock()
        self._operation_id = 0
        self._indexes: dict[str, str] | None = None

    @classmethod
    def create(cls, name: str, config: models.CollectionConfig, directory: Path) -> Self:
        """A new collection in `directory`, which must not exist."""
        vectors = config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise TypeError(f"collection {name} has no single unnamed vector: {vectors}")
        directory.mkdir(parents=True)
        engine_config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(vectors.size, convert_schemas.distance(vectors.distance)),
            hnsw_config=edge.HnswIndexConfig(
                m=config.hnsw_config.m,
                ef_construct=config.hnsw_config.ef_construct,
                full_scan_threshold=config.hnsw_config.full_scan_threshold,
            ),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=indexing_threshold_kb(vectors.size)),
        )
        with _engine_errors():
            shard = edge.EdgeShard.create(str(directory), engine_config)
            shard.flush()
        return cls(name, config, shard)

    @classmethod
    def open(cls, name: str, config: models.CollectionConfig, directory: Path) -> Self:
        """The collection in `directory`, its write-ahead log replayed."""
        with _engine_errors():
            return cls(name, config, edge.EdgeShard.load(str(directory)))

    def close(self) -> None:
        """Flush and close; requests that come later are answered as for a collection that does not exist."""
        with self._writing:
            self._closed = True
            self._shard.close()

    @contextmanager
    def _engine(self) -> Iterator[edge.EdgeShard]:
        try:
            with _engine_errors():
                yield self._shard
        except Exception as error:
            if self._closed:
                raise no_collection(self.name) from error
            raise

    # Strict mode

    def check_filter(self, by: models.Filter | None, *, updates: bool = False) -> None:
        """Raise a RequestError (400) if strict mode forbids this filter: of an update, or of a read."""
        strict.check_filter(self.config.strict_mode_config, by, self._index_types, updates=updates)

    def _index_types(self) -> dict[str, str]:
        if self._indexes is None:
            self._indexes = {
                key: convert_schemas.index_type(index) for key, index in self.info().payload_schema.items()
            }
        return self._indexes

    # Writes

    def change_index(self, operation: edge.UpdateOperation) -> int:
        """As `apply`, for the making and removal of a payload index."""
        number = self.apply([operation])
        self._indexes = None
        return number

    def apply(self, operations: Sequence[edge.UpdateOperation]) -> int:
        """Apply the operations in order, durably; the number of this update."""
        with self._writing:
            for operation in operations:
                with self._engine() as shard:
                    self.unflushed = self.unoptimized = True
                    shard.update(operation)
            self._operation_id += 1
            return self._operation_id

    def flush(self) -> None:
        with self._writing, self._engine() as shard:
            self.unflushed = False
            shard.flush()

    def optimize(self) -> None:
        """Merge, vacuum and index segments. No other thread of the process runs meanwhile: see `upkeep`."""
        with self._writing, self._engine() as shard:
            self.unoptimized = False
            shard.optimize()

    # Reads

    def info(self) -> edge.ShardInfo:
        with self._engine() as shard:
            return shard.info()

    def count(self, request: edge.CountRequest) -> int:
        with self._engine() as shard:
            return shard.count(request)

    def facet(self, request: edge.FacetRequest) -> edge.FacetResponse:
        with self._engine() as shard:
            return shard.facet(request)

    def retrieve(
        self, ids: Sequence[PointId], with_payload: edge.WithPayloadType, with_vector: edge.WithVectorType
    ) -> list[edge.Record]:
        """The points that exist, each once, in the order of `ids`."""
        wanted = list(dict.fromkeys(ids))
        found: dict[Any, edge.Record] = {}
        for start in range(0, len(wanted), _RECORDS_PER_CALL):
            with self._engine() as shard:
                records = shard.retrieve(list(wanted[start : start + _RECORDS_PER_CALL]), with_payload, with_vector)
            found.update((record.id, record) for record in records)
        return [found[id_] for id_ in wanted if id_ in found]

    def scroll(
        self,
        offset: PointId | None,
        limit: int,
        filter_: edge.Filter | None,
        with_payload: edge.WithPayloadType,
        with_vector: edge.WithVectorType,
    ) -> tuple[list[edge.Record], edge.PointId | None]:
        """Up to `limit` points in the order of their ids from `offset` on, and the id that follows them."""
        records: list[edge.Record] = []
        following: edge.PointId | None = offset
        while len(records) < limit:
            request = edge.ScrollRequest(
                following, min(limit - len(records), _RECORDS_PER_CALL), filter_, with_payload, with_vector
            )
            with self._engine() as shard:
                page, following = shard.scroll(request)
            records += page
            if following is None:
                break
        return records, following

    def scroll_ordered(self, request: edge.ScrollRequest) -> list[edge.Record]:
        """One page in the order of a payload key, which must be indexed."""
        with self._engine() as shard:
            return shard.scroll(request)[0]

    def query(self, requests: Sequence[edge.QueryRequest]) -> list[list[edge.ScoredPoint]]:
        """The answers to `requests`, in their order."""
        at_once = max(1, min(_QUERIES_PER_CALL, _POINTS_SEARCHED_PER_CALL // max(1, self.info().points_count)))
        answers: list[list[edge.ScoredPoint]] = []
        for start in range(0, len(requests), at_once):
            with self._engine() as shard:
                answers += shard.query_batch(edge.QueryBatchRequest(list(requests[start : start + at_once])))
        return answers


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise from_engine(error) from error
