"""What the tests of links share: an embedder whose vectors the texts name, source rows, and the graph as it is."""

import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from threading import Event

import numpy as np
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from qdrant_client import models

from mcp_assets.embedding.profiles import ModelProfile, profile_for
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector, refusal_before_sending
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.registry import SourceTable
from mcp_assets.graph import EdgeKey, EdgeType, ranking
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.sync.index.batch_report import BatchReport
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link import changes, semantic_neighbours, stored_lists, topical_neighbours
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets_tests.clients import qdrant_of

_ANGLE = re.compile(r"@(\d+)")

TABLES = {"task": ("tasks", "description"), "page": ("wiki_pages", "content"), "memory": ("memory_nodes", "content")}

TYPES = {
    name: TypeMapping(
        source=SourceTable(table=table, content=(body,), metadata_json="metadata"), collection=f"{name}_points"
    )
    for name, (table, body) in TABLES.items()
}
"""The tables of the preset with all metadata in the free column: any JSON value may stand under any key."""

Graph = dict[EdgeKey, float]


def shorten_lists(monkeypatch: pytest.MonkeyPatch, length: int, with_reserves: int) -> None:
    """Lists hold `length` neighbours, and with their reserves `with_reserves`: few entities fill and overflow them."""
    for module in (ranking, stored_lists, semantic_neighbours, topical_neighbours, changes):
        for name, number in (("LIST_LENGTH", length), ("LIST_AND_RESERVES", with_reserves)):
            monkeypatch.setattr(module, name, number, raising=False)


class AngleEmbedder:
    """Embeds a text that says `@40` as the direction of 40 degrees in a plane: cosines are known, and often tie."""

    concurrency = 1

    def __init__(self, threshold: float = 0.9) -> None:
        self.profile: ModelProfile = profile_for("angles", dimension=4, similarity_threshold=threshold)

    def embed(
        self, texts: Sequence[str], *, stopping: Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        return EmbeddingResult([self._one(text) for text in texts], None)

    def embed_query(self, text: str) -> Vector:
        return _direction(text)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _one(self, text: str) -> EmbeddingOutcome:
        refusal = refusal_before_sending(text)
        return EmbeddingOutcome(None if refusal else _direction(text), refusal)


def _direction(text: str) -> Vector:
    found = _ANGLE.search(text)
    angle = np.deg2rad(int(found[1]) if found else 0)
    return np.array([np.cos(angle), np.sin(angle), 0, 0], dtype=np.float32)


def write_source(
    platform: Platform, ref: EntityRef, title: str | None, content: str, metadata: dict[str, object] | None = None
) -> None:
    """Upsert the source row of `ref`; all metadata goes to the free column."""
    table, body = TABLES[ref.type]
    statement = sql.SQL(
        "INSERT INTO {table} (id, title, {body}, metadata) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title, {body} = excluded.{body}, metadata = excluded.metadata"
    ).format(table=sql.Identifier(table), body=sql.Identifier(body))
    with platform.postgres.transaction() as connection:
        connection.execute(statement, (ref.id, title or "", content, Jsonb(metadata or {})))


def delete_source(platform: Platform, ref: EntityRef) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE id = %s").format(sql.Identifier(TABLES[ref.type][0])), (ref.id,)
        )


def index(platform: Platform, *refs: EntityRef, embed: bool = True) -> list[BatchReport]:
    """Look at `refs`, as a drain does on an event."""
    by_type: dict[str, list[Wanted]] = {}
    for ref in refs:
        by_type.setdefault(ref.type, []).append(Wanted(ref.id))
    return [Indexer(platform, name).run(wanted, embed=embed) for name, wanted in by_type.items()]


def relink(platform: Platform) -> LinkCounts:
    total = LinkCounts()
    for report in link_until_done(platform):
        total.add(report.total())
    return total


def sync_all(platform: Platform) -> None:
    for name in platform.settings.entity_types:
        for _ in full_sync(platform, name, range(platform.settings.shards), stages=Stages()):
            pass


def graph(platform: Platform, types: Iterable[EdgeType] = EdgeType) -> Graph:
    """All our edges, with their strengths."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            "SELECT source_type, source_id, target_type, target_id, relationship_type, strength"
            " FROM relationships WHERE origin = 'mcp_assets' AND relationship_type = ANY(%s)",
            ([edge_type.value for edge_type in types],),
        ).fetchall()
    return {
        EdgeKey(EntityRef(row[0], row[1]), EntityRef(row[2], row[3]), EdgeType(row[4])): round(row[5], 4)
        for row in rows
    }


def evidence(platform: Platform) -> dict[EdgeKey, object]:
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            "SELECT source_type, source_id, target_type, target_id, relationship_type, metadata"
            " FROM relationships WHERE origin = 'mcp_assets'"
        ).fetchall()
    return {EdgeKey(EntityRef(row[0], row[1]), EntityRef(row[2], row[3]), EdgeType(row[4])): row[5] for row in rows}


def judged_edges(platform: Platform) -> list[EdgeKey]:
    """The edges that have a verdict."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            sql.SQL("SELECT source_type, source_id, target_type, target_id, edge_type FROM {}.edge_verdicts").format(
                sql.Identifier(platform.postgres.schema)
            )
        ).fetchall()
    return sorted(EdgeKey(EntityRef(row[0], row[1]), EntityRef(row[2], row[3]), EdgeType(row[4])) for row in rows)


def forget_links(platform: Platform) -> None:
    """Everything that the linker wrote, gone; `tag_weights` and `edge_verdicts`, which are inputs, stay."""
    with platform.postgres.transaction() as connection:
        schema = sql.Identifier(platform.postgres.schema)
        for table in ("relink_marks", "linked", "reserves", "reference_uses"):
            connection.execute(sql.SQL("TRUNCATE {}.{}").format(schema, sql.Identifier(table)))
        connection.execute("DELETE FROM relationships WHERE origin = 'mcp_assets'")


def rebuild(platform: Platform) -> Graph:
    """The graph made from nothing."""
    forget_links(platform)
    for name in platform.settings.entity_types:
        mark_shards(platform, name, range(platform.settings.shards), force=True)
    relink(platform)
    return graph(platform)


def empty_world(platform: Platform) -> None:
    """No source row, no entity, no point, no edge of ours, no weight: the stores as a new site has them."""
    with platform.postgres.transaction() as connection:
        schema = sql.Identifier(platform.postgres.schema)
        for table in (
            "relink_marks",
            "linked",
            "reserves",
            "reference_uses",
            "tag_weights",
            "edge_verdicts",
            "entities",
            "embedded",
            "dead_letters",
        ):
            connection.execute(sql.SQL("TRUNCATE {}.{}").format(schema, sql.Identifier(table)))
        for table, _ in TABLES.values():
            connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
        connection.execute("DELETE FROM relationships WHERE origin = 'mcp_assets'")
    with closing(qdrant_of(platform.settings)) as client:
        for collection in client.get_collections().collections:
            client.delete(collection.name, models.FilterSelector(filter=models.Filter()), wait=True)
