"""CocoIndex: one update of an app that reads a table of PostgreSQL and declares a point in Qdrant for each row."""

import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import cocoindex as coco
import numpy as np
from cocoindex.connectors import postgres, qdrant
from cocoindex.resources.schema import VectorSchema
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from stub import DIMENSION, TABLE, Job, Stub, TextRefused, main

BATCH = 1_000
"""Texts in a request to the embedder at most; how many there are is up to the rows that CocoIndex works on at once,
1,024 by default."""

POOL = coco.ContextKey[asyncpg.Pool]("peers_pool")
QDRANT = coco.ContextKey[QdrantClient]("peers_qdrant")

_stub = Stub()


@dataclass
class TextRow:
    entity_type: str
    entity_id: str
    piece: int
    text: str
    metadata: str


@coco.fn.as_async(batching=True, max_batch_size=BATCH)
def embed(texts: list[str]) -> list[NDArray[np.float32]]:
    try:
        return _stub.embed(texts)
    except TextRefused as refused:
        raise coco.RetryWithSmallerBatch from refused


@coco.fn(memo=True)
async def index_row(row: TextRow, target: qdrant.CollectionTarget) -> None:
    vector = await embed(row.text)
    known = {"entity_type": row.entity_type, "entity_id": row.entity_id, "piece": row.piece}
    target.declare_point(
        qdrant.PointStruct(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{row.entity_type}:{row.entity_id}#{row.piece}")),
            vector=vector.tolist(),
            payload={**json.loads(row.metadata), **known, "text": row.text},
        )
    )


@coco.fn
async def app_main() -> None:
    target = await qdrant.mount_collection_target(
        QDRANT,
        collection_name="peers",
        schema=await qdrant.CollectionSchema.create(
            vectors=qdrant.QdrantVectorDef(schema=VectorSchema(dtype=np.dtype(np.float32), size=DIMENSION))
        ),
    )
    source = postgres.PgTableSource(coco.use_context(POOL), table_name=TABLE, row_type=TextRow)
    await coco.mount_each(
        index_row,
        source.fetch_rows().items(lambda row: (row.entity_type, row.entity_id, row.piece)),
        target,
    )


def sync(job: Job, stub: Stub) -> None:
    global _stub
    _stub = stub

    @coco.lifespan
    async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
        builder.settings.db_path = Path(job.state_dir) / "cocoindex.db"
        # gRPC is its default, and the embedded engine of our stack answers HTTP alone.
        grpc_port = os.environ.get("PEERS_QDRANT_GRPC_PORT")
        client = qdrant.create_client(
            job.qdrant_url,
            prefer_grpc=grpc_port is not None,
            grpc_port=int(grpc_port or 6334),
            headers=job.qdrant_headers,
            check_compatibility=False,
            timeout=600,
        )
        async with asyncpg.create_pool(job.database_url) as pool:
            builder.provide(POOL, pool)
            builder.provide(QDRANT, client)
            yield

    app = coco.App(coco.AppConfig(name="Peers"), app_main)
    with coco.runtime():
        app.update_blocking(full_reprocess=job.task == "mend")


if __name__ == "__main__":
    main(sync)
