"""LangChain: one run of its indexing API, with the record manager in PostgreSQL and its Qdrant store."""

from collections.abc import Iterator

import psycopg
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams
from stub import DIMENSION, QUERY, Job, Stub, main

BATCH = 1_000
"""Documents in a batch of `index` (100 by default) and points in a request (64 by default): the larger ones cost it
less, and a provider takes 2,048 texts a request."""


class Embedder(Embeddings):
    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self._stub.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def documents(database_url: str) -> Iterator[Document]:
    with psycopg.connect(database_url) as connection, connection.cursor("texts") as cursor:
        cursor.itersize = BATCH
        for entity_type, entity_id, piece, text, metadata in cursor.execute(QUERY):
            known = {"entity_type": entity_type, "entity_id": entity_id, "piece": piece}
            yield Document(page_content=text, metadata={**metadata, **known})


def sync(job: Job, stub: Stub) -> None:
    client = QdrantClient(url=job.qdrant_url, headers=job.qdrant_headers, check_compatibility=False, timeout=600)
    if not client.collection_exists("peers"):
        client.create_collection("peers", VectorParams(size=DIMENSION, distance=Distance.COSINE))
    store = QdrantVectorStore(client, "peers", Embedder(stub), validate_embeddings=False)
    database_url = job.database_url.replace("postgresql://", "postgresql+psycopg://")
    records = SQLRecordManager("qdrant/peers", db_url=database_url)
    records.create_schema()
    index(
        documents(job.database_url),
        records,
        store,
        batch_size=BATCH,
        cleanup="full",
        source_id_key="entity_id",
        # Of its encoders the one whose keys are UUIDs: Qdrant takes no other text as the id of a point.
        key_encoder="sha1",
        force_update=job.task == "mend",
    )
    client.close()


if __name__ == "__main__":
    main(sync)
