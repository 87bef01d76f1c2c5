"""What integration tests do beside the product: write source rows, send events, read what the stores hold."""

import asyncio
import copy
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import nats
import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_requests import pending_types
from mcp_assets.sync.inbox.drained import Drained
from mcp_assets.sync.inbox.intake import IntakeReport, intake
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.index.event_rechecks import take_due
from mcp_assets.sync.index.full_sync import Progress, Stages, full_sync
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.openai_stub import vector_of

EVERYTHING = Stages()

COLLECTIONS = {"task": "kanban_tasks", "page": "wiki_pages", "memory": "memory_nodes"}


@dataclass(frozen=True)
class StoredPoint:
    """One point as Qdrant gives it back."""

    vector: NDArray[np.float32]
    payload: dict[str, Any]


# Source tables, as an MCP server writes them.


def put(platform: Platform, table: str, **columns: Any) -> None:
    """Insert or replace one source row, by its `id`."""
    names = [sql.Identifier(name) for name in columns]
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(names),
        sql.SQL(", ").join(sql.Placeholder() * len(names)),
        sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names),
    )
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    with platform.postgres.transaction() as connection:
        connection.execute(statement, values)


def put_tasks(platform: Platform, texts: Mapping[str, str]) -> None:
    """Insert or replace tasks: id -> title, which is all the text that they have."""
    with platform.postgres.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tasks (id, title) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET title = excluded.title",
            list(texts.items()),
        )


def remove(platform: Platform, table: str, *ids: str) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(sql.Identifier(table)), (list(ids),))


def rows(platform: Platform, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The answer to `query`; `{schema}` stands for the platform's schema."""
    text = query.replace("{schema}", platform.settings.schema_name)
    with platform.postgres.transaction() as connection:
        return connection.execute(text.encode(), parameters).fetchall()


# Events.


def send(platform: Platform, *messages: tuple[str, Any]) -> None:
    """Publish messages: (subject, body), a body that is not bytes as JSON."""
    platform.nats.publish(
        (subject, body if isinstance(body, bytes) else json.dumps(body).encode()) for subject, body in messages
    )


def send_looks(platform: Platform, *ids: str) -> None:
    """Publish a thin event about each of the tasks."""
    send(platform, *(("mcp.task.updated", {"taskId": entity_id}) for entity_id in ids))


def send_raw(platform: Platform, *protocol: bytes) -> None:
    """Write bytes of the NATS protocol to the server, past any client library; returns when it has read them."""
    address = urlsplit(platform.settings.require_nats_url())
    assert address.hostname is not None
    with (
        socket.create_connection((address.hostname, address.port or 4222), timeout=10) as connection,
        connection.makefile("rb") as answers,
    ):
        answers.readline()
        options = {"verbose": False, "pedantic": False, "headers": True}
        signing_in = {"user": address.username, "pass": address.password}
        connection.sendall(f"CONNECT {json.dumps(options | signing_in)}\r\n".encode())
        connection.sendall(b"".join(protocol) + b"PING\r\n")
        assert answers.readline() == b"PONG\r\n"


def raw_publish(subject: bytes, data: bytes, header: bytes | None = None) -> bytes:
    """The protocol bytes of one PUB, or HPUB."""
    if header is None:
        return b"PUB %s %d\r\n%s\r\n" % (subject, len(data), data)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (subject, len(header), len(header) + len(data), header, data)


# The product's own steps, to their end.


def take_in(platform: Platform, *, calls: int = 100) -> IntakeReport:
    """Call intake until it says that there is no more."""
    done = IntakeReport()
    for _ in range(calls):
        step = intake(platform, wait_s=0.2)
        done = IntakeReport(done.accepted + step.accepted, done.rejected + step.rejected, done.gap or step.gap)
        if not step.more:
            return done
    raise AssertionError(f"intake was not done after {calls} calls")


def drain_all(platform: Platform, *types: str) -> Counts:
    """Take in what was published and drain `types`, by default those with messages; the counts of all that was done."""
    take_in(platform)
    counts = Counts()
    for entity_type in types or pending_types(platform, MessageKind.ENTITY):
        for drained in drain(without_linger(platform), entity_type, "test"):
            counts.add(total(drained))
    return counts


def look_again(platform: Platform, entity_type: str = "task") -> int:
    """Take the next recheck of all that is noted, without waiting for its time; the number found to differ."""
    rows(platform, "UPDATE {schema}.rechecks SET due_at = now() RETURNING 1")
    return take_due(platform, entity_type)


def without_linger(platform: Platform) -> Platform:
    """The same platform, on the same connections, whose drains end as soon as the inbox is empty."""
    opened = (platform.postgres, platform.qdrant, platform.nats, platform.embedder)
    assert all(opened)
    hasty = copy.copy(platform)
    hasty.settings = platform.settings.model_copy(update={"drain_linger_s": 0})
    hasty.tuning = replace(platform.tuning, inbox=replace(platform.tuning.inbox, intake_wait_s=0.1))
    return hasty


def total(drained: Drained) -> Counts:
    counts = Counts()
    for part in drained.report.shards.values():
        counts.add(part)
    return counts


def sync_all(
    platform: Platform, entity_type: str = "task", *, stages: Stages = EVERYTHING, force: bool = False
) -> Counts:
    """A full sync of all shards; the sum over what was complete."""
    return summed(full_sync(platform, entity_type, range(platform.settings.shards), stages=stages, force=force))


def summed(progress: Iterable[Progress]) -> Counts:
    counts = Counts()
    for news in progress:
        if news.complete:
            counts.add(news.counts)
    return counts


# What the stores hold.


def ledger(platform: Platform, entity_type: str = "task") -> dict[str, dict[str, Any]]:
    """The ledger's rows of the type by id."""
    columns = (
        "origin",
        "title",
        "content",
        "metadata",
        "text_hash",
        "state_hash",
        "event_order",
        "dirty",
        "chunk_bound",
    )
    found = rows(
        platform,
        f"SELECT entity_id, deleted_at IS NOT NULL, {', '.join(columns)} "
        "FROM {schema}.entities WHERE entity_type = %s",
        entity_type,
    )
    return {row[0]: {"deleted": row[1], **dict(zip(columns, row[2:], strict=True))} for row in found}


def inbox(platform: Platform) -> list[str]:
    """The ids of the entities that messages of the inbox name, in stream order."""
    return [row[0] for row in rows(platform, "SELECT entity_id FROM {schema}.inbox ORDER BY event_order")]


def dead_letters(platform: Platform) -> dict[str, str]:
    """Entity id (or the sequence of the message, as text) -> error kind."""
    return dict(rows(platform, "SELECT coalesce(entity_id, seq::text), error_kind FROM {schema}.dead_letters"))


def points(platform: Platform, collection: str = "kanban_tasks") -> dict[str, StoredPoint]:
    """Every point of the collection by id; none if there is no such collection."""
    client = qdrant_of(platform.settings)
    try:
        names = [alias.alias_name for alias in client.get_aliases().aliases]
        if collection not in names and not client.collection_exists(collection):
            return {}
        found: dict[str, StoredPoint] = {}
        offset = None
        while True:
            page, offset = client.scroll(collection, limit=1000, offset=offset, with_payload=True, with_vectors=True)
            for record in page:
                found[str(record.id)] = StoredPoint(np.array(record.vector, np.float32), record.payload or {})
            if offset is None:
                return found
    finally:
        client.close()


def entity_points(
    platform: Platform, entity_type: str = "task", collection: str | None = None
) -> dict[str, StoredPoint]:
    """The entities' own points by entity id; asserts that each stands under the id that its name gives."""
    found = {}
    for identifier, point in points(platform, collection or COLLECTIONS[entity_type]).items():
        if point.payload[Key.KIND] == "entity" and point.payload["entity_type"] == entity_type:
            ref = EntityRef(entity_type, point.payload["entity_id"])
            assert identifier == str(point_id(ref))
            assert ref.id not in found
            found[ref.id] = point
    return found


def assert_points_are(
    platform: Platform, texts: Mapping[str, str], entity_type: str = "task", collection: str | None = None
) -> None:
    """The type's collection holds one point each of `texts` (id -> prepared text), no other, and the right vectors."""
    stored = points(platform, collection or COLLECTIONS[entity_type])
    assert {str(point_id(EntityRef(entity_type, entity_id))) for entity_id in texts} == set(stored)
    known = ledger(platform, entity_type)
    for entity_id, text in texts.items():
        point = stored[str(point_id(EntityRef(entity_type, entity_id)))]
        assert is_vector_of(point, text), (
            f"the vector of {entity_id}, of {len(point.vector)} dimensions, is not that of {text!r}: {point.payload}"
        )
        assert point.payload[Key.TEXT_HASH] == known[entity_id]["text_hash"]
        assert point.payload[Key.STATE_HASH] == known[entity_id]["state_hash"]
        assert not known[entity_id]["dirty"]


def is_vector_of(point: StoredPoint, text: str) -> bool:
    """The point's vector is the one that the embedding stub gives for `text`."""
    return bool(np.allclose(point.vector, vector_of(text, len(point.vector)), atol=1e-5))


def replace_stream(platform: Platform) -> None:
    """Delete the stream and make it again, as an operator might."""

    async def delete() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            await client.jetstream().delete_stream(platform.settings.streams[0])
        finally:
            await client.close()

    asyncio.run(delete())
    platform.nats.ensure_stream(platform.settings.streams[0])
