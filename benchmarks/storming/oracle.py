"""Oracle: compares every store, at rest, with the truth that a workload implies; it reads the stores themselves.

What a vector, a text and an id should be is computed here from the documentation's words; only the borders of chunks
and the edges are taken from the product: edges are compared with those of a rebuild from nothing, in a second schema.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import psycopg
from pydantic import SecretStr
from qdrant_client import QdrantClient

from mcp_assets.entities.chunks import split
from mcp_assets.entities.points import chunk_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.openai_stub import vector_of
from storming.workload import Row, Truth, is_refused, prepared_text

COLLECTIONS = {"task": "kanban_tasks", "page": "wiki_pages", "memory": "memory_nodes"}

REBUILT = "rebuilt"
"""Schema of the rebuild; its edges are in `public.relationships_rebuilt`."""

_LONG_TEXT = 8_000
_SCROLL = 2_000
_EXAMPLES = 5
_TOLERANCE = 1e-4


@dataclass(slots=True)
class Findings:
    """What of the stores is not as the truth says, in sentences, by kind."""

    missing: list[str] = field(default_factory=list)
    """A living entity, point or chunk that is not there."""
    stale: list[str] = field(default_factory=list)
    """There, but with another text, vector or payload."""
    orphan: list[str] = field(default_factory=list)
    """There, though its entity is not living."""
    duplicate: list[str] = field(default_factory=list)
    """An entity's point under an id that is not the entity's."""
    wrong_edges: list[str] = field(default_factory=list)
    """Edges that a rebuild does not make, or makes otherwise."""
    inbox: list[str] = field(default_factory=list)
    """Messages that are not applied."""
    dead_letters: list[str] = field(default_factory=list)
    """Messages or entities that should be dead letters and are not, or the other way round."""

    def __bool__(self) -> bool:
        return any(self.counts().values())

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in self.__dataclass_fields__}

    def examples(self) -> list[str]:
        """Some sentences of each kind."""
        return [
            f"{name}: {sentence}"
            for name in self.__dataclass_fields__
            for sentence in islice(getattr(self, name), _EXAMPLES)
        ]


def examine(settings: Settings, truth: Truth, *, edges: bool) -> Findings:
    """Compare ledger, points, chunks, dead letters and inbox with `truth`; with `edges`, the edges with a rebuild."""
    found = Findings()
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        hashes = _ledger(connection, truth, found)
        _letters(connection, truth, found)
        for kind, count in connection.execute("SELECT kind, count(*) FROM mcp_assets.inbox GROUP BY kind"):
            found.inbox.append(f"{count} messages of kind {kind} wait")
    with closing(qdrant_of(settings, timeout=60)) as client:
        for entity_type, collection in COLLECTIONS.items():
            _points(client, collection, _expected(settings, truth, entity_type), hashes, found)
    if edges and not found:
        _edges(settings, found)
    return found


def _ledger(connection: psycopg.Connection[Any], truth: Truth, found: Findings) -> dict[EntityRef, tuple[str, str]]:
    """Compare living ledger rows with `truth`; returns their text and state hashes."""
    left = dict(truth.living)
    hashes = {}
    rows = connection.execute(
        "SELECT entity_type, entity_id, title, content, metadata, text_hash, state_hash FROM mcp_assets.entities"
        " WHERE deleted_at IS NULL"
    )
    for entity_type, entity_id, title, content, metadata, text_hash, state_hash in rows:
        ref = EntityRef(entity_type, entity_id)
        row = left.pop(ref, None)
        hashes[ref] = (text_hash, state_hash)
        if row is None:
            found.orphan.append(f"{ref} is living in the ledger")
        elif (title, content, metadata.get("mood"), sorted(metadata.get("tags") or [])) != (
            row.title,
            row.content,
            row.mood,
            sorted(row.tags),
        ):
            found.stale.append(f"{ref} in the ledger says {title!r} {content[:60]!r} {metadata}, not {row}"[:400])
    found.missing += [f"{ref} is not living in the ledger" for ref in left]
    return hashes


def _letters(connection: psycopg.Connection[Any], truth: Truth, found: Findings) -> None:
    junk = connection.execute("SELECT count(*) FROM mcp_assets.dead_letters WHERE stage = 'intake'").fetchone()
    if junk is None or junk[0] != truth.junk:
        found.dead_letters.append(f"{junk and junk[0]} messages are dead letters, {truth.junk} are no events")
    refused = {ref for ref, row in truth.living.items() if is_refused(row)}
    kept = {
        EntityRef(*row)
        for row in connection.execute(
            "SELECT entity_type, entity_id FROM mcp_assets.dead_letters"
            " WHERE stage <> 'intake' AND entity_id IS NOT NULL"
        )
    }
    found.dead_letters += [f"{ref} is refused, and no dead letter says so" for ref in refused - kept]
    found.dead_letters += [f"{ref} is a dead letter, though nothing is wrong with it" for ref in kept - refused]


Expected = Mapping[str, tuple[EntityRef, str, Row]]
"""By point id: the entity, the text that the point embeds, the row."""


def _expected(settings: Settings, truth: Truth, entity_type: str) -> Expected:
    expected = {}
    for ref, row in truth.living.items():
        if ref.type != entity_type or is_refused(row):
            continue
        own = point_id(ref)
        text = prepared_text(row)
        expected[str(own)] = (ref, text, row)
        if len(text) >= _LONG_TEXT - 1 and settings.chunks is not None:
            for number, chunk in enumerate(split(f"{row.title}\n\n{row.content}", settings.chunks)):
                expected[str(chunk_id(own, number))] = (ref, chunk.text, row)
    return expected


def _points(
    client: QdrantClient,
    collection: str,
    expected: Expected,
    hashes: Mapping[EntityRef, tuple[str, str]],
    found: Findings,
) -> None:
    left = dict(expected)
    for point_id_, vector, payload in _scroll(client, collection):
        known = left.pop(point_id_, None)
        named = f"point {point_id_} of {payload.get('entity_type')}:{payload.get('entity_id')} in {collection}"
        if known is None:
            living = EntityRef(payload["entity_type"], payload["entity_id"]) in hashes
            (found.duplicate if living else found.orphan).append(named)
            continue
        ref, text, row = known
        if (payload["entity_type"], payload["entity_id"]) != (ref.type, ref.id):
            found.stale.append(f"{named} should be of {ref}")
        elif not np.allclose(vector, vector_of(text, len(vector)), atol=_TOLERANCE):
            found.stale.append(f"{named} has another text's vector")
        elif payload.get("title") != row.title or _own(payload, "text_hash", "state_hash") != hashes.get(ref):
            found.stale.append(f"{named} has the payload {payload}, not that of {row.title!r}"[:400])
        elif point_id_ == str(point_id(ref)) and payload.get("mood") != row.mood:
            found.stale.append(f"{named} has the mood {payload.get('mood')}, not {row.mood}")
    found.missing += [f"point {point_id_} of {ref} in {collection}" for point_id_, (ref, _, _) in left.items()]


def _own(payload: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """Reserved values, whatever prefix they bear."""
    return tuple(next((value for key, value in payload.items() if key.endswith(name)), None) for name in names)


def _scroll(client: QdrantClient, collection: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    if not client.collection_exists(collection):
        return
    offset = None
    while True:
        points, offset = client.scroll(collection, limit=_SCROLL, with_vectors=True, offset=offset)
        for point in points:
            yield str(point.id), np.array(point.vector, dtype=np.float32), point.payload or {}
        if offset is None:
            return


_COPIED = ("entities", "embedded", "tag_weights", "collection_changes")
"""What edges are a function of, beside the vectors."""


def _edges(settings: Settings, found: Findings) -> None:
    """Link everything from nothing in a second schema that has the same ledger, over the same collections."""
    other = settings.model_copy(
        update={
            "schema_name": REBUILT,
            "relationships_table": "public.relationships_rebuilt",
            "database_url": SecretStr(settings.require_database_url()),
        }
    )
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {REBUILT} CASCADE")
        connection.execute("DROP TABLE IF EXISTS public.relationships_rebuilt")
    with closing(Platform(other)) as platform:
        with platform.postgres.transaction() as connection:
            for table in _COPIED:
                connection.execute(f"INSERT INTO {REBUILT}.{table} SELECT * FROM mcp_assets.{table}".encode())
            # The weights of tags are an input. Where none are counted yet, the linker would count them for a rebuild.
            connection.execute(
                f"INSERT INTO {REBUILT}.tag_weights (tag, holders, weight, makes_candidates)"
                f" SELECT '', 1, 1, true WHERE NOT EXISTS (SELECT FROM {REBUILT}.tag_weights)".encode()
            )
        for entity_type in other.entity_types:
            mark_shards(platform, entity_type, range(other.shards), force=True)
        for _ in link_until_done(platform):
            pass
        with platform.postgres.transaction() as connection:
            rows = connection.execute(_DIFFERENT_EDGES.encode()).fetchall()
    for side, *edge in rows:
        found.wrong_edges.append(f"{edge} stands only {side}")


_COLUMNS = "source_type, source_id, target_type, target_id, relationship_type, round(strength::numeric, 4)"
_MADE = f"SELECT {_COLUMNS} FROM public.relationships WHERE origin = 'mcp_assets'"
_MADE_AGAIN = f"SELECT {_COLUMNS} FROM public.relationships_rebuilt"
_DIFFERENT_EDGES = (
    f"SELECT 'in relationships', * FROM ({_MADE} EXCEPT {_MADE_AGAIN}) AS made"
    f" UNION ALL SELECT 'in the rebuild', * FROM ({_MADE_AGAIN} EXCEPT {_MADE}) AS made_again"
)
