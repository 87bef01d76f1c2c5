"""LlamaIndex: one run of its ingestion pipeline, with the document store in PostgreSQL and its Qdrant store."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    NodeRelationship,
    TextNode,
    TransformComponent,
)
from llama_index.storage.docstore.postgres import PostgresDocumentStore
from llama_index.storage.kvstore.postgres import PostgresKVStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from pydantic import PrivateAttr
from qdrant_client import QdrantClient
from stub import QUERY, Job, Stub, main

BATCH = 1_000
"""Documents in a statement of the document store (1 by default), texts in a request to the embedder (10 by default,
2,048 at most) and points in a request to Qdrant (64 by default): the larger ones cost it less."""


class OneNode(TransformComponent):
    """A document is a node: the texts are cut already, so that a splitter has nothing to do."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> list[BaseNode]:
        return [
            TextNode(
                id_=str(uuid.uuid5(uuid.NAMESPACE_URL, node.id_)),
                text=node.get_content(),
                metadata=node.metadata,
                excluded_embed_metadata_keys=list(node.metadata),
                relationships={NodeRelationship.SOURCE: node.as_related_node_info()},
            )
            for node in nodes
        ]


class Embedder(BaseEmbedding):
    _stub: Stub = PrivateAttr()

    def __init__(self, stub: Stub) -> None:
        super().__init__(model_name="stub", embed_batch_size=BATCH)
        self._stub = stub

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self._stub.embed(texts)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def documents(database_url: str) -> Iterator[Document]:
    with psycopg.connect(database_url) as connection, connection.cursor("texts") as cursor:
        cursor.itersize = BATCH
        for entity_type, entity_id, piece, text, metadata in cursor.execute(QUERY):
            known = {"entity_type": entity_type, "entity_id": entity_id, "piece": piece}
            yield Document(
                id_=f"{entity_type}:{entity_id}#{piece}",
                text=text,
                metadata={**metadata, **known},
            )


def sync(job: Job, stub: Stub) -> None:
    client = QdrantClient(url=job.qdrant_url, headers=job.qdrant_headers, check_compatibility=False, timeout=600)
    keys_and_values = PostgresKVStore(
        table_name="docstore",
        connection_string=job.database_url.replace("postgresql://", "postgresql+psycopg2://"),
        async_connection_string=job.database_url.replace("postgresql://", "postgresql+asyncpg://"),
        use_jsonb=True,
    )
    pipeline = IngestionPipeline(
        transformations=[OneNode(), Embedder(stub)],
        docstore=PostgresDocumentStore(keys_and_values, namespace="peers", batch_size=BATCH),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        vector_store=QdrantVectorStore("peers", client=client, batch_size=BATCH),
        # It spares a pipeline to transform again what the document store skips anyway.
        disable_cache=True,
    )
    pipeline.run(documents=list(documents(job.database_url)))
    client.close()


if __name__ == "__main__":
    main(sync)
