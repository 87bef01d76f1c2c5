"""Stores: the source tables of each system, the points that Qdrant holds, and the CPU seconds of both servers."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import psycopg
from harness import Bench, load_entities
from psycopg.types.json import Jsonb
from qdrant_client import QdrantClient
from qdrant_client.models import PointIdsList

from mcp_assets.cli.load_entities import Line
from mcp_assets.embedded import stack
from mcp_assets.embedded.stack import Part
from mcp_assets.entities.chunks import ChunkSpec
from peers.comparison import Vector, key_of
from peers.rows import Piece, Row, pieces
from peers.stub import TABLE

_PAGE = 2_000
"""Points in a request: 384 numbers each as JSON are some 10 MB."""

_SOURCE_TABLES = {"task": "tasks", "page": "wiki_pages", "memory": "memory_nodes"}

_CREATE = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    entity_type text, entity_id text, piece int, text text NOT NULL, metadata jsonb NOT NULL,
    PRIMARY KEY (entity_type, entity_id, piece)
)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A Qdrant that QDRANT_URL and QDRANT_API_KEY name; the key is empty if it asks for none."""

    url: str
    key: str

    def client(self) -> QdrantClient:
        return QdrantClient(url=self.url, headers={"api-key": self.key} if self.key else None, timeout=60)

    def collections(self) -> list[str]:
        with closing(self.client()) as client:
            return [collection.name for collection in client.get_collections().collections]

    def version(self) -> str:
        with closing(self.client()) as client:
            return str(client.info().version)


def named_server() -> Server | None:
    """The server that the environment names: asked before a stack starts, because that forgets these variables."""
    url = os.environ.get("QDRANT_URL")
    return Server(url, os.environ.get("QDRANT_API_KEY", "")) if url else None


def on_server(bench: Bench, server: Server | None) -> Bench:
    """The stack with `server` in the place of its own Qdrant; with None as it is."""
    if server is None:
        return bench
    return replace(bench, addresses=replace(bench.addresses, qdrant_url=server.url, qdrant_api_key=server.key))


def write_source(bench: Bench, upsert: Sequence[Row], remove: Sequence[Row], spec: ChunkSpec | None) -> None:
    """Write rows to, and remove rows from, the source tables of ours and the table of texts of the other systems."""
    load_entities(bench, (_line(row) for row in upsert))
    touched = [*upsert, *remove]
    with psycopg.connect(bench.database_url) as connection, connection.cursor() as cursor:
        for entity_type, table in _SOURCE_TABLES.items():
            ids = [row.entity_id for row in remove if row.entity_type == entity_type]
            cursor.execute(f"DELETE FROM {table} WHERE id = ANY(%s)".encode(), (ids,))
        cursor.execute(_CREATE.encode())
        cursor.execute(
            f"DELETE FROM {TABLE} USING unnest(%s::text[], %s::text[]) AS gone (entity_type, entity_id) "
            f"WHERE ({TABLE}.entity_type, {TABLE}.entity_id) = (gone.entity_type, gone.entity_id)".encode(),
            ([row.entity_type for row in touched], [row.entity_id for row in touched]),
        )
        with cursor.copy(f"COPY {TABLE} FROM STDIN".encode()) as copy:
            for piece in pieces(upsert, spec):
                copy.write_row(_text_row(piece))
    bench.settle()


def _line(row: Row) -> Line:
    return Line(row.entity_type, row.entity_id, row.title, row.content, row.metadata, None, None)


def _text_row(piece: Piece) -> tuple[Any, ...]:
    row = piece.row
    return row.entity_type, row.entity_id, piece.number, piece.text, Jsonb({"title": row.title, **row.metadata})


@dataclass(frozen=True, slots=True)
class Held:
    """A point that Qdrant holds."""

    collection: str
    id: str | int
    key: str
    vector: Vector


def held_points(client: QdrantClient) -> Iterator[Held]:
    """All points of all collections."""
    for collection in client.get_collections().collections:
        offset = None
        while True:
            page, offset = client.scroll(
                collection.name, limit=_PAGE, offset=offset, with_payload=True, with_vectors=True
            )
            for point in page:
                # LangChain names its vector "", which comes back as a vector without a name.
                vector = np.asarray(point.vector, dtype=np.float32)
                yield Held(collection.name, point.id, key_of(point.payload or {}), vector)
            if offset is None:
                break


def lose(client: QdrantClient, keys: set[str]) -> int:
    """Delete the points of the texts `keys` from Qdrant, as no system notices. Returns how many there were."""
    by_collection: dict[str, list[Any]] = {}
    for point in held_points(client):
        if point.key in keys:
            by_collection.setdefault(point.collection, []).append(point.id)
    for collection, ids in by_collection.items():
        client.delete(collection, PointIdsList(points=ids), wait=True)
    return sum(map(len, by_collection.values()))


def empty(bench: Bench) -> None:
    """Delete all collections."""
    with closing(bench.qdrant()) as client:
        for collection in client.get_collections().collections:
            client.delete_collection(collection.name)


def cpu_seconds(bench: Bench) -> dict[str, float | None]:
    """CPU seconds of PostgreSQL and of Qdrant so far; None for a server on another machine."""
    pids = {part: status.pid for part, status in stack.status(bench.state_dir).parts.items()}
    own = stack.addresses(bench.state_dir)
    qdrant = pids[Part.QDRANT]
    if own is None or own.qdrant_url != bench.addresses.qdrant_url:
        qdrant = _listener(bench.addresses.qdrant_url or "")
    return {"postgres": _tree_cpu_s(pids[Part.POSTGRES]), "qdrant": _tree_cpu_s(qdrant)}


def _listener(url: str) -> int | None:
    """The process of this machine that listens at the port of `url`, if there is one and it may be seen."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == (urlsplit(url).port or 6333):
                return connection.pid
    return None


def _tree_cpu_s(pid: int | None) -> float | None:
    """CPU seconds of a process and its children, those that have ended included."""
    if pid is None:
        return None
    root = psutil.Process(pid)
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            seconds += used.user + used.system + used.children_user + used.children_system
    return seconds
