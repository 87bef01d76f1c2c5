"""Possible duplicates for a person or a program: all pairs, those of one entity, those of a text not written yet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from mcp_assets.embedding.protocol import Vector, only_vector
from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare
from mcp_assets.graph import (
    LIST_LENGTH,
    Neighbour,
    near_copies,
    ranked,
    rounded,
    search_threshold,
    wording_of,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import by_ref, fetch_rows
from mcp_assets.sync.collections.serving import searchable_collections
from mcp_assets.sync.link.duplicates import DUPLICATE, Duplicates, duplicate_rule
from mcp_assets.sync.link.locks import reading_edges


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two entities that may be duplicates, the smaller (type, id) first; or a text and an entity."""

    one: EntityRef | None
    """None: the text that was asked about."""
    other: EntityRef
    strength: float
    """The smaller of the two measures below, 0..1."""
    shared_words: float | None
    """Share of the pairs of neighbouring words; None: the edge does not say it."""
    similarity: float | None
    """Cosine of the vectors; None: the edge does not say it."""


@dataclass(frozen=True, slots=True)
class DuplicatesFound:
    """The strongest pairs, with the titles of their entities."""

    pairs: list[DuplicatePair]
    titles: dict[EntityRef, str | None]
    more: int = 0
    """Further pairs that are left out."""


@dataclass(frozen=True, slots=True)
class _PairRow:
    """One pair of the table of edges, and how many pairs there are."""

    one_type: str
    one_id: str
    other_type: str
    other_id: str
    strength: float
    metadata: Any
    pairs: int

    def pair(self) -> DuplicatePair:
        evidence = self.metadata if isinstance(self.metadata, dict) else {}
        return DuplicatePair(
            EntityRef(self.one_type, self.one_id),
            EntityRef(self.other_type, self.other_id),
            round(self.strength, 4),
            evidence.get("shared_words"),
            evidence.get("similarity_score"),
        )


def stored_duplicates(
    platform: Platform, entity: EntityRef | None = None, *, types: Collection[str] = (), limit: int
) -> DuplicatesFound:
    """The `limit` strongest pairs in the table of edges: of `entity`, or of all entities. Each pair once.

    `types`: only pairs with an entity, other than `entity`, of one of these types.

    Raises:
        StoreUnavailable.
        StoreRefused: the table of edges could not be made or adopted.
    """
    with reading_edges(platform) as connection:
        relationships = platform.relationships
        asked = [] if entity is None else relationships.castable(connection, [entity])
        if entity is not None and not asked:
            # The table holds no edge of an entity with such an id.
            return DuplicatesFound([], {})
        rows = fetch_rows(
            connection,
            _PAIRS.format(
                table=relationships.table,
                only=_OF_ENTITY.format(id=relationships.id_type(connection)) if asked else sql.SQL(""),
            ),
            _PairRow,
            {
                "origin": ORIGIN,
                "duplicate": DUPLICATE.value,
                "types": list(types),
                "entity_type": entity.type if entity else None,
                "entity_id": entity.id if entity else None,
                "limit": limit,
            },
        )
        pairs = [row.pair() for row in rows]
        more = rows[0].pairs - len(rows) if rows else 0
    return DuplicatesFound(pairs, _titles(platform, pairs), more)


_PAIRS = sql.SQL(
    """
    SELECT one_type, one_id, other_type, other_id, max(strength)::float8 AS strength,
           (array_agg(metadata ORDER BY strength DESC))[1] AS metadata, count(*) OVER () AS pairs
    FROM (
        SELECT CASE WHEN in_order THEN source_type ELSE target_type END AS one_type,
               CASE WHEN in_order THEN source_id ELSE target_id END AS one_id,
               CASE WHEN in_order THEN target_type ELSE source_type END AS other_type,
               CASE WHEN in_order THEN target_id ELSE source_id END AS other_id,
               strength, metadata
        FROM (
            SELECT source_type COLLATE "C" AS source_type, source_id::text COLLATE "C" AS source_id,
                   target_type COLLATE "C" AS target_type, target_id::text COLLATE "C" AS target_id,
                   strength::real AS strength, metadata,
                   (source_type COLLATE "C", source_id::text COLLATE "C")
                   < (target_type COLLATE "C", target_id::text COLLATE "C") AS in_order
            FROM {table}
            WHERE origin = %(origin)s AND relationship_type::text = %(duplicate)s {only}
        ) AS edges
    ) AS ordered
    WHERE %(types)s::text[] = '{{}}'
       OR one_type = ANY(%(types)s) AND (one_type, one_id) IS DISTINCT FROM (%(entity_type)s, %(entity_id)s)
       OR other_type = ANY(%(types)s) AND (other_type, other_id) IS DISTINCT FROM (%(entity_type)s, %(entity_id)s)
    GROUP BY one_type, one_id, other_type, other_id
    ORDER BY max(strength) DESC, one_type, one_id, other_type, other_id
    LIMIT %(limit)s
    """
)
"""An edge may lead in both directions, because each entity has a list of its own."""

_OF_ENTITY = sql.SQL(
    """
            AND ((source_type = %(entity_type)s AND source_id = %(entity_id)s::{id})
                 OR (target_type = %(entity_type)s AND target_id = %(entity_id)s::{id}))
    """
)


def duplicates_of_text(
    platform: Platform, title: str | None, content: str, *, types: Sequence[str] = (), limit: int
) -> DuplicatesFound:
    """The `limit` strongest possible duplicates of an entity with this title and content, which is not written yet.

    They are found as the edges are: by the vectors of the collections in service, and by words. `types`: only
    entities of these types.

    Raises:
        TextRefused: the text is empty, or the model does not take it.
        CollectionMismatch: a collection was made for a model that is not configured.
        StoreUnavailable, StoreRefused, EmbedderUnavailable.
    """
    rule = duplicate_rule(platform.settings)
    text = prepare(title, content, None).text
    vectors: dict[int, Vector] = {}
    near: dict[EntityRef, float] = {}
    registry = platform.settings.entity_types
    for alias, (target, embedder) in searchable_collections(platform).items():
        held = [name for name in types or registry if registry[name].collection_name == alias]
        if not held:
            continue
        if id(embedder) not in vectors:
            # As a text is embedded that is indexed, not as a question.
            vectors[id(embedder)] = only_vector(embedder.embed([text]))
        hits = platform.qdrant.nearest_entities(
            target.collection.name,
            vectors[id(embedder)],
            entity_types=held,
            limit=LIST_LENGTH,
            floor=search_threshold(rule.similarity),
        )
        for hit in hits:
            # A cosine of float32 may exceed 1 by a little.
            near[EntityRef(hit.payload[Key.ENTITY_TYPE], hit.payload[Key.ENTITY_ID])] = min(1.0, rounded(hit.score))
    ranking = ranked((Neighbour(*one) for one in near.items()), LIST_LENGTH)
    with platform.postgres.transaction() as connection:
        wordings = Duplicates(platform).wordings(connection, [one.ref for one in ranking])
    copies = near_copies(wording_of(title, content), ranking, wordings, rule)
    copies.sort(key=lambda copy: (-copy.strength, copy.ref))
    pairs = [
        DuplicatePair(None, copy.ref, copy.strength, copy.shared_words, copy.similarity) for copy in copies[:limit]
    ]
    return DuplicatesFound(pairs, _titles(platform, pairs), len(copies) - len(pairs))


def _titles(platform: Platform, pairs: Iterable[DuplicatePair]) -> dict[EntityRef, str | None]:
    """The titles of the living entities of `pairs`."""
    refs = sorted({ref for pair in pairs for ref in (pair.one, pair.other) if ref is not None})
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        return dict(platform.postgres.rows(connection, "read_titles", by_ref(_title), names))


def _title(title: str | None) -> str | None:
    return title
